"""The graph passes and the order they run in.

A pass is one graph transformation in one file: an `onnx_ir.passes.InPlacePass` whose class is
named as its file and as its row here. It never changes numerics beyond float rounding, and leaves
alone what it cannot prove. Passes see onnx_ir and each other's `rewriting` tools, never targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from onnx_ir.passes import PassBase


@dataclass(frozen=True, slots=True)
class PassSpec:
    """A row of the pipeline: `factory` is `module:Class`, imported only when it runs."""

    name: str
    factory: str
    summary: str

    def make(self) -> PassBase:
        """Import the class and make the pass."""
        module, _, cls = self.factory.partition(":")
        return cast("PassBase", getattr(import_module(module), cls)())


@dataclass(frozen=True, slots=True)
class Phase:
    """Passes that run in order, once, or again and again until none of them changes anything."""

    name: str
    passes: tuple[PassSpec, ...]
    repeat: bool = False


_UPSTREAM = "onnx_ir.passes.common"


def _rewrite(name: str, summary: str) -> PassSpec:
    """The row of a rewriting pass: file and class are the name in their own spelling."""
    file = name.replace("-", "_")
    return PassSpec(name, f"infc.passes.{file}:{file.title().replace('_', '')}", summary)


_REWRITES = (
    _rewrite("eliminate-no-ops", "remove nodes that give back their input"),
    _rewrite("omit-zero-states", "initial states of zeros left out of LSTM, GRU and RNN"),
    _rewrite("replace-sequences", "sequences of known length replaced by their tensors"),
    _rewrite("fuse-normalization", "layer and RMS normalisation spelled out made one operator"),
    _rewrite("fuse-softmax", "softmax spelled out made one operator"),
    _rewrite("fuse-activations", "Gelu, HardSwish and others spelled out made one operator"),
    _rewrite("simplify-arithmetic", "identities of arithmetic and logic that save a node"),
    _rewrite("merge-clips", "Relu, Clip, Min and Max of each other made one"),
    _rewrite("merge-slices", "slices of slices made one, slices of all parts made a Split"),
    _rewrite("write-padding", "auto_pad of Conv and the pools made pads"),
    _rewrite("fold-pad", "Pad into Conv, MaxPool and AveragePool"),
    _rewrite("simplify-reshape", "chains of Reshape, Flatten, Squeeze, Unsqueeze made one or none"),
    _rewrite("fuse-gemm", "rank-two MatMul with Add and Transpose made Gemm"),
    _rewrite("push-transpose", "transposes merged, cancelled, pushed to where they cancel"),
    _rewrite("absorb-transpose", "a transpose before a flattening into the weights behind it"),
)
"""Algebraic rewrites, by their golden graphs in tests/passes."""

PIPELINE: tuple[Phase, ...] = (
    Phase(
        "normalize",
        (
            PassSpec(
                "inline-functions",
                f"{_UPSTREAM}:InlinePass",
                "replace calls of model-local functions by their bodies",
            ),
            PassSpec(
                "sort-nodes",
                f"{_UPSTREAM}:TopologicalSortPass",
                "order the nodes so that values are produced before they are read",
            ),
        ),
    ),
    Phase(
        "simplify",
        (
            _rewrite("lift-constants", "Constant nodes become initializers"),
            _rewrite("inline-constant-if", "an If with a constant condition becomes its branch"),
            _rewrite("infer-shapes", "fill in missing types and shapes"),
            _rewrite("fold-shapes", "shape arithmetic becomes constants, also on dynamic shapes"),
            _rewrite("fold-constants", "compute what depends on constants only"),
            _rewrite("eliminate-identity", "remove nodes that hand their input on"),
            _rewrite("fold-batchnorm", "BatchNormalization into Conv, ConvTranspose, Gemm, MatMul"),
            _rewrite(
                "fold-constant-arithmetic", "constant scales and shifts into their neighbours"
            ),
            _rewrite("deduplicate-initializers", "equal initializers become one"),
            _rewrite("eliminate-common-subexpressions", "compute equal nodes once"),
            *_REWRITES,
            _rewrite("remove-unused", "remove what no output depends on"),
        ),
        repeat=True,
    ),
    Phase(
        "finish",
        (
            PassSpec(
                "remove-unused-opsets",
                f"{_UPSTREAM}:RemoveUnusedOpsetsPass",
                "drop opset imports that no node uses",
            ),
        ),
    ),
)

ORDER: tuple[tuple[str, str, str], ...] = (
    (
        "inline-functions",
        "eliminate-identity",
        "a function's body is only seen by other passes once it is inlined",
    ),
    (
        "sort-nodes",
        "eliminate-common-subexpressions",
        "equal nodes are recognised only after their inputs were visited",
    ),
    (
        "lift-constants",
        "deduplicate-initializers",
        "constants are compared where they are initializers",
    ),
    (
        "infer-shapes",
        "fold-shapes",
        "the elements of Shape are read off the shapes that inference finds",
    ),
    (
        "write-padding",
        "fold-pad",
        "a Pad is added to the padding that is written down",
    ),
    (
        "fold-shapes",
        "fold-constants",
        "a Reshape by a shape that is known only in part is settled before others depend on it",
    ),
    (
        "deduplicate-initializers",
        "eliminate-common-subexpressions",
        "equal nodes have the same inputs only once equal constants are one value",
    ),
    (
        "fold-batchnorm",
        "eliminate-common-subexpressions",
        "equal convolutions followed by different normalisations must not be made one first",
    ),
    (
        "fold-constant-arithmetic",
        "eliminate-common-subexpressions",
        "nor those followed by different scales and shifts",
    ),
    (
        "fuse-normalization",
        "push-transpose",
        "a layer normalisation is recognised over the last dimensions, before they are moved",
    ),
    (
        "fuse-softmax",
        "push-transpose",
        "its spelled-out reductions are still next to each other",
    ),
    (
        "simplify-reshape",
        "push-transpose",
        "a transpose joins a reshape only where no other reshape would take it first",
    ),
    (
        "push-transpose",
        "absorb-transpose",
        "weights are permuted only for a transpose that cancels nowhere",
    ),
)
"""(earlier, later, why): checked against PIPELINE by a test."""


def pass_names() -> tuple[str, ...]:
    """The names of all passes, in pipeline order."""
    return tuple(spec.name for phase in PIPELINE for spec in phase.passes)

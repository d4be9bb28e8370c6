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
            PassSpec(
                "eliminate-identity", f"{_UPSTREAM}:IdentityEliminationPass", "Identity(x) -> x"
            ),
            PassSpec(
                "eliminate-common-subexpressions",
                f"{_UPSTREAM}:CommonSubexpressionEliminationPass",
                "compute equal nodes once",
            ),
            PassSpec(
                "remove-unused-nodes",
                f"{_UPSTREAM}:RemoveUnusedNodesPass",
                "remove what no output depends on",
            ),
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
)
"""(earlier, later, why): checked against PIPELINE by a test."""


def pass_names() -> tuple[str, ...]:
    """The names of all passes, in pipeline order."""
    return tuple(spec.name for phase in PIPELINE for spec in phase.passes)

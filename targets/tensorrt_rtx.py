"""TensorRT for RTX: the artifact is an engine for GeForce and RTX GPUs, built without one.

Engines are built ahead of time for the compute capabilities that are named, and compiled to the
GPU's own code when they are first loaded there. Building needs neither a GPU nor a driver; running
does. Where there is none, the graph that the engine was built of is what is verified, and the
manifest says so (`"verdict": "graph"`).

Precision is in the graph: networks are strongly typed. float32 is multiplied in float32, not in
the 19 bits of TF32, unless `-X tf32=on`.

Source: tensorrt-rtx 1.7 Python API; the same engine twice is the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infc.request import Precision
from infc.targets import (
    Artifact,
    BuildJob,
    LoaderSpec,
    RunJob,
    Target,
    Unsupported,
    Worker,
    schemes,
    tensorrt_sdk,
    tensorrt_spec,
)
from infc.targets.arithmetic import Arithmetic

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.targets import Runner

NAME = "tensorrt-rtx"
SUMMARY = "TensorRT for RTX: .engine for GeForce and RTX GPUs"
EXTRA = "tensorrt-rtx"
DISTRIBUTIONS = ("tensorrt_rtx",)
MODULES = ("tensorrt_rtx",)
OPTIONS = tensorrt_spec.OPTIONS
PRECISIONS = (Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8)
ARITHMETIC = {
    Precision.FP16: Arithmetic(converts=True),
    Precision.BF16: Arithmetic(converts=True, opset=22),
}
MIN_OPSET = 13
SCHEME = schemes.TENSORRT
THREADS = (1,)

CAPABILITIES = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")


def worker(target: Target) -> Worker:
    """Any environment that has the package.

    The names of an engine's inner tensors are numbered in the order of addresses: with random ones
    an engine of many layers, or of int8, is other bytes every time. So `build` also runs where no
    path or variable of the user's moves them.
    """
    return Worker(target.toolchain, fixed_addresses=True)


def require_options(target: Target) -> None:
    """Every option, and that the GPUs are of those that can be built for."""
    tensorrt_spec.require_options(target, CAPABILITIES)


def legalize(model: ir.Model, target: Target) -> None:
    """Rewrite what the parser lacks."""
    from infc.targets.tensorrt_lowering import lower
    from infc.targets.tensorrt_operators import LATEST

    lower(model, LATEST)


def check(model: Path, target: Target) -> Sequence[Unsupported]:
    """Every node that the parser refuses, or that nothing was made for."""
    import onnx_ir as ir
    import tensorrt_rtx

    from infc.targets import tensorrt_support, tensorrt_worker

    graph = ir.load(model)
    outside = tensorrt_support.interface(graph)
    if outside:  # the parser gives up over these, and names no node
        return [Unsupported(*row) for row in outside]
    known = {
        **{row[:2]: Unsupported(*row) for row in tensorrt_support.without_kernels(graph)},
        **{(row.node, row.op_type): row for row in tensorrt_worker.check(tensorrt_rtx, model)},
    }
    ordered = [known.pop(key) for key in tensorrt_support.keys(graph) if key in known]
    return [*ordered, *known.values()]


def build(job: BuildJob) -> Artifact:
    """Build the engine."""
    import tensorrt_rtx

    from infc.targets import tensorrt_worker

    return tensorrt_worker.build(tensorrt_rtx, job, apart=True)


def open(job: RunJob) -> Runner:
    """Load the engine on the GPU that is here."""
    import tensorrt_rtx

    from infc.targets import tensorrt_worker

    return tensorrt_worker.open(tensorrt_rtx, job)


def absence(target: Target) -> str:
    """Why engines cannot be run here: most machines that build have no such GPU."""
    from infc.targets import tensorrt_worker

    return tensorrt_worker.absence()


def device(target: Target) -> str:
    """Always the GPU."""
    return "GPU"


LOADER = LoaderSpec("tensorrt", tensorrt_sdk.rtx_entries, tensorrt_sdk.rtx_library_path)

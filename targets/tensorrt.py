"""TensorRT: the artifact is an engine, built on the GPU that it is for.

TensorRT times its kernels on the device. Where that GPU and the library are here, the engine is
built in a worker; elsewhere the bundle is deferred: it holds the typed graph and the builder, and
is finished on the device (`infc.deferral`). An engine runs on that kind of GPU with that release
of TensorRT, unless `-X version-compatible=on` or `-X hardware-compatible=` say otherwise.

The graph is one for the parser of the target's release (`-X release=`), by what its documentation
says: the parser itself is on the device. Precision is in the graph; the network is strongly typed.
On a DLA TensorRT 10 chooses the types itself, of float16.

JetPack 6 has TensorRT 10.3 (Orin), JetPack 7.2.2 has 11.4.1 (Orin, Thor); both know Orin's DLA.
Source: TensorRT developer guide, "Working with DLA", support matrices; JetPack release notes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import fail
from infc.places import cache_folder
from infc.request import Precision
from infc.signature import TensorSpec
from infc.targets import (
    Artifact,
    BuildJob,
    LoaderSpec,
    RunJob,
    Target,
    Unsupported,
    Worker,
    choice,
    schemes,
    tensorrt_sdk,
    tensorrt_spec,
)
from infc.targets.arithmetic import Arithmetic

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.targets import Runner

NAME = "tensorrt"
SUMMARY = "TensorRT: .engine for NVIDIA GPUs, Jetson to data centre"
EXTRA = "tensorrt"
DISTRIBUTIONS = ("tensorrt",)
MODULES = ("tensorrt",)
OPTIONS = {**tensorrt_spec.OPTIONS, **tensorrt_spec.DEVICE_OPTIONS}
PRECISIONS = (Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8)
ARITHMETIC = {
    Precision.FP16: Arithmetic(converts=True),
    Precision.BF16: Arithmetic(converts=True, opset=13),
}
MIN_OPSET = 13
SCHEME = schemes.TENSORRT
THREADS = (1,)

CAPABILITIES = (
    *("sm75", "sm80", "sm86", "sm87", "sm89", "sm90", "sm100", "sm103", "sm110", "sm120", "sm121"),
)
DLA_RELEASES = ("10.3", "11.4")
BUILDER = Path(__file__).with_name("tensorrt_builder.py")
"""The program that builds an engine, here or on the device: no more than Python and TensorRT."""


def worker(target: Target) -> Worker:
    """Any environment that has the package."""
    return Worker(target.toolchain)


def require_options(target: Target) -> None:
    """Every option, and that they go together.

    Raises:
        InfcError: E205.
    """
    tensorrt_spec.require_options(target, CAPABILITIES)
    release = release_of(target)
    if target.options.get("dla") is not None:
        if release not in DLA_RELEASES:
            raise fail(
                "E205",
                f"`-X dla=`: TensorRT {release} has no DLA",
                help="`-X release=10.3` (JetPack 6) and `-X release=11.4` (JetPack 7.2.2) have",
            )
        if release == "10.3" and target.precision is Precision.INT8:
            raise fail(
                "E205",
                "`-X dla=`: TensorRT 10.3 takes no Q/DQ on a DLA",
                help="`--precision fp16`, or `-X release=11.4` (JetPack 7.2.2)",
            )
    if release == "10.3" and target.options.get("hardware-compatible") == "same":
        raise fail(
            "E205",
            "`-X hardware-compatible=same`: TensorRT 10.3 does not have it",
            help="`-X hardware-compatible=ampere+`, or `-X release=11.4`",
        )


def release_of(target: Target) -> str:
    """The release that the graph is for, whose parser takes least."""
    from infc.targets.tensorrt_operators import LATEST, RELEASES

    return choice(target, "release", tuple(RELEASES), LATEST)


def spec_of(
    target: Target, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Mapping[str, Any]:
    """What the builder is told on the device."""
    return tensorrt_spec.spec_of(target, inputs, outputs)


def deferral(target: Target) -> str | None:
    """Why the engine cannot be built on this machine; None where it can.

    Nothing of TensorRT is imported, and the GPU is asked for in a process of its own.
    """
    if not target.toolchain:
        if find_spec("tensorrt") is None:
            return "TensorRT is not installed here"
        found = _installed()
        wanted = target.options.get("release", "")
        if wanted and found and _numbers(found) < _numbers(wanted):
            return f"TensorRT {found} is installed here, and the target has {wanted}"
    from infc.targets import tensorrt_worker

    gpu = tensorrt_worker.gpu()
    if "reason" in gpu:
        return str(gpu["reason"])
    wanted_gpus = tensorrt_spec.capabilities_of(target)
    if wanted_gpus and gpu["compute_capability"] not in wanted_gpus:
        return (
            f"the GPU here, {gpu['name']}, is {gpu['compute_capability']}, "
            f"and the target {' or '.join(wanted_gpus)}"
        )
    return None


def _installed() -> str:
    try:
        return version("tensorrt")
    except PackageNotFoundError:  # JetPack's comes from a system package
        return ""


def _numbers(release: str) -> list[int]:
    return [int(part) for part in release.split(".") if part.isdecimal()]


def absence(target: Target) -> str:
    """Why engines cannot be run here: the reason that they cannot be built here either."""
    return deferral(target) or ""


def legalize(model: ir.Model, target: Target) -> None:
    """Rewrite what the parser of the release lacks."""
    from infc.targets.tensorrt_lowering import lower

    lower(model, release_of(target))


def check(model: Path, target: Target) -> Sequence[Unsupported]:
    """Every node that the release does not take, by its documentation; then what the parser says.

    The parser is asked only where the engine can be built.
    """
    import onnx_ir as ir

    from infc.targets import tensorrt_worker
    from infc.targets.tensorrt_support import unsupported

    rows = [Unsupported(*row) for row in unsupported(ir.load(model), release_of(target))]
    if rows or deferral(target) is not None:
        return rows
    import tensorrt

    return tensorrt_worker.check(tensorrt, model)


def build(job: BuildJob) -> Artifact:
    """Build the engine on the GPU that is here."""
    import tensorrt

    from infc.targets import tensorrt_worker

    cache = None
    if job.target.options.get("timing-cache", "on") == "on":
        gpu = tensorrt_worker.gpu().get("compute_capability", "gpu")
        cache = cache_folder() / "tensorrt" / f"{tensorrt.__version__}-{gpu}.cache"
        cache.parent.mkdir(parents=True, exist_ok=True)
    return tensorrt_worker.build(tensorrt, job, cache)


def open(job: RunJob) -> Runner:
    """Load the engine on the GPU that is here."""
    import tensorrt

    from infc.targets import tensorrt_worker

    return tensorrt_worker.open(tensorrt, job)


def device(target: Target) -> str:
    """Always the GPU, with a DLA beside it where one is asked for."""
    return "GPU"


LOADER = LoaderSpec("tensorrt", tensorrt_sdk.entries, tensorrt_sdk.library_path)

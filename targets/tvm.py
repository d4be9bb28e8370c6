"""TVM: a library of kernels made for one processor, which needs nothing on the device but libc.

    ONNX -> channels last (targets/tvm_lowering) -> Relax -> kernels, scheduled by rule or record
         -> static plan -> model.so

TVM's importer and code generator are used, and its Relax for fusing operators and planning memory.
Its own way to fast kernels, measuring thousands of them, is not: the rules of `schedules` reach
ONNX Runtime's speed without any (targets/tvm_compiler/README.md). Left to itself TVM computes a
convolution element by element on one thread, 25 to 120 times slower.

All shapes are fixed in the artifact, memory is planned, and nothing is allocated when it runs.
Source: apache/tvm 0.27, whose wheel goes with one version of apache-tvm-ffi only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infc.diagnostics import did_you_mean, fail
from infc.request import Precision
from infc.targets import (
    Artifact,
    BackEndError,
    BuildJob,
    LoaderSpec,
    RunJob,
    Target,
    Unsupported,
    Worker,
    choice,
)
from infc.targets.tvm_compiler.cpus import CPUS, HOST, Cpu, host

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.targets import Runner

NAME = "tvm"
SUMMARY = "TVM: a library of kernels for one processor, without a runtime"
EXTRA = "tvm"
DISTRIBUTIONS = ("apache-tvm", "apache-tvm-ffi")
MODULES = ("tvm",)
OPTIONS = {
    "cpu": f"the processor: {HOST}, {', '.join(CPUS)} ({HOST})",
    "cores": "how many cores the kernels are shared among (those of the processor)",
}
PRECISIONS = (Precision.FP32,)
MIN_OPSET = 13
THREADS = (1, 3)
ENTRY = "model.so"
MAX_CORES = 256


def _no_sdk() -> dict[str, str]:
    return {}


def _no_library_path() -> list[Path]:
    return []


LOADER = LoaderSpec("tvm", _no_sdk, _no_library_path)


def worker(target: Target) -> Worker:
    """Any environment that has the package."""
    return Worker(target.toolchain)


def require_options(target: Target) -> None:
    """A processor that is known, and a number of cores."""
    name = target.options.get("cpu", HOST)
    if name != HOST and name not in CPUS:
        hint = did_you_mean(name, (HOST, *CPUS))
        have = ", ".join(f"`{n}`" for n in (HOST, *CPUS))
        raise fail("E205", f"`-X cpu={name}`: no such processor", help=f"{hint}there are {have}")
    cores = target.options.get("cores", "1")
    if not cores.isdecimal() or not 0 < int(cores) <= MAX_CORES:
        choice(target, "cores", [f"1 to {MAX_CORES}"], "")


def cpu_of(target: Target) -> Cpu:
    """The processor that `target` is for.

    Raises:
        BackEndError: it is this machine's, which is of no kind that is known.
    """
    from dataclasses import replace

    name = target.options.get("cpu", HOST)
    found = host() if name == HOST else CPUS[name]
    cores = target.options.get("cores")
    return replace(found, cores=int(cores)) if cores else found


def legalize(model: ir.Model, target: Target) -> None:
    """Channels last, and what TVM's importer lacks said otherwise.

    Raises:
        InfcError: E207 for an input whose shape is not fixed.
    """
    from infc.targets.tvm_lowering import lower

    for value in model.graph.inputs:
        _require_fixed(value)
    lower(model)


def _require_fixed(value: ir.Value) -> None:
    """Refuse an input with a dimension that is no number.

    Raises:
        InfcError: E207.
    """
    if value.shape is None:
        what = f"the rank of `{value.name}` is not known"
        raise fail("E207", what, help=f"give its shape: `--input {value.name}=...`")
    open_dims = [str(d.value) for d in value.shape if not isinstance(d, int)]
    if not open_dims:
        return
    # The first dimension is a batch, as a rule; of the others nothing is known.
    example = [d if isinstance(d, int) else "N" if i else 1 for i, d in enumerate(value.shape)]
    raise fail(
        "E207",
        f"{', '.join(f'`{d}`' for d in open_dims)} of `{value.name}` has to be fixed",
        help=f"for example `--input {value.name}={'x'.join(map(str, example))}`",
    )


def check(model: Path, target: Target) -> Sequence[Unsupported]:
    """Return the nodes that have no converter, or whose converter fails."""
    from infc.targets.tvm_compiler.checking import unsupported

    return unsupported(model, cpu_of(target))


def build(job: BuildJob) -> Artifact:
    """Compile the kernels and link the library.

    Raises:
        BackEndError: a shape that depends on values, or the C compiler is missing or refuses.
    """
    from infc.targets.tvm_compiler import compile_model
    from infc.targets.tvm_compiler.library import CompilerError, write_library
    from infc.targets.tvm_compiler.plan import UnplannedError

    cpu = cpu_of(job.target)
    try:
        plan = compile_model(job.model, cpu)
        scratch = job.output.parent / "tvm-objects"
        sizes = write_library(plan, cpu, job.output / ENTRY, scratch, "the model")
    except (UnplannedError, CompilerError) as error:
        raise BackEndError(str(error)) from error
    notes = {
        "cpu": {"triple": cpu.triple, "mcpu": cpu.mcpu, "features": list(cpu.features)},
        "kernels": len(plan.kernels),
        "calls": len(plan.calls),
        "weight_bytes": sizes.weights,
        "arena_bytes": sizes.arena,
    }
    return Artifact(ENTRY, (ENTRY,), notes)


def open(job: RunJob) -> Runner:
    """Load the library; it writes into arrays of the size that each output has."""
    from infc.targets.tvm_compiler.opened import Model

    return Model(job.entry, job.inputs, job.outputs, job.threads).run


def device(target: Target) -> str:
    """Always the CPU."""
    return "CPU"

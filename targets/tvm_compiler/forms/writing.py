"""A plan as an artifact: the form that the target asks for, and what there is to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from infc.targets import Artifact, cross
from infc.targets.tvm_compiler.forms.emulated import emulator_of
from infc.targets.tvm_compiler.forms.library import place_bytes, write_library
from infc.targets.tvm_compiler.forms.static import write_static
from infc.targets.tvm_compiler.settings import (
    cpu_of,
    has_threads,
    is_static,
    require_memory,
    runs_natively,
)

if TYPE_CHECKING:
    from infc.signature import TensorSpec
    from infc.targets import BuildJob
    from infc.targets.tvm_compiler.forms.plan import Plan

ENTRY = "model.so"


def write(plan: Plan, job: BuildJob) -> Artifact:
    """Write the artifact of `plan` into the job's folder.

    Raises:
        InfcError: E208, it takes too much memory; E501, there is no C compiler for the processor.
        CompilerError: the C compiler refuses.
    """
    with TemporaryDirectory(prefix="infc-tvm-") as scratch:
        return _write(plan, job, Path(scratch))


def _write(plan: Plan, job: BuildJob, scratch: Path) -> Artifact:
    target, cpu = job.target, cpu_of(job.target)
    _tell_compiling(job, len(plan.kernels))
    threads = has_threads(target)
    require_memory(target, cpu, place_bytes(plan, cpu, threads=threads), plan.arena_bytes)
    named = target.options.get("compiler", "")
    compiler = cross.find_compiler(cpu.triple, named, cpu.flags)
    notes: dict[str, Any] = {
        "cpu": {"triple": cpu.triple, "mcpu": cpu.mcpu, "features": list(cpu.features)},
        "compiler": compiler.version,
        "kernels": len(plan.kernels),
        "calls": len(plan.calls),
    }
    emulator = emulator_of(target)
    if emulator is not None:
        notes["emulator"] = emulator.name
    if not is_static(target):
        output = job.output / ENTRY
        sizes = write_library(plan, cpu, output, scratch, "the model", compiler.c, threads=threads)
        notes |= {"weight_bytes": sizes.weights, "arena_bytes": sizes.arena}
        return Artifact(ENTRY, (ENTRY,), {**notes, "memory_bytes": sizes.place})
    made = write_static(plan, cpu, job.output, scratch, job.name, compiler.c, threads=threads)
    notes |= {
        "weight_bytes": made.sizes.weights,
        "arena_bytes": made.sizes.arena,
        "memory_bytes": made.sizes.place,
        "flash_bytes": made.footprint.flash,
        "ram_bytes": made.ram_bytes,
    }
    return Artifact(made.archive, made.files, notes)


def _tell_compiling(job: BuildJob, kernels: int) -> None:
    """LLVM takes all of them at once, and the C compiler what it makes of them."""
    if job.report is not None:
        job.report(phase=f"compiling {kernels} kernels")


def open_dims_of(spec: TensorSpec) -> list[str]:
    """The names of the dimensions of a tensor that are not fixed; `?` for one without."""
    return [str(d or "?") for d in spec.shape or () if not isinstance(d, int)]


def write_vm(module: Any, job: BuildJob, open_dims: Sequence[str]) -> Artifact:
    """Write `module`, a Relax module of kernels, as a library for TVM's runtime.

    `open_dims` are the dimensions that are not fixed, for the manifest to say why.

    Raises:
        InfcError: E501, there is no C compiler for the processor.
        CompilerError: the C compiler refuses.
    """
    from infc.targets.tvm import VM_ENTRY
    from infc.targets.tvm_compiler.forms.vm import ffi_version, write_machine

    cpu = cpu_of(job.target)
    _tell_compiling(job, len(module.functions) - 1)
    compiler = cross.find_compiler(cpu.triple, job.target.options.get("compiler", ""), cpu.flags)
    with TemporaryDirectory(prefix="infc-tvm-") as scratch:
        made = write_machine(module, cpu, job.output / VM_ENTRY, Path(scratch), compiler.c)
    reason = "`-X form=vm`" if "form" in job.target.options else f"open: {', '.join(open_dims)}"
    notes: dict[str, Any] = {
        "cpu": {"triple": cpu.triple, "mcpu": cpu.mcpu, "features": list(cpu.features)},
        "compiler": compiler.version,
        "kernels": made.kernels,
        "form": "vm",
        "form_reason": reason,
        "tvm_ffi": ffi_version(),
    }
    emulator = emulator_of(job.target) if runs_natively(job.target) else None
    if emulator is not None:
        notes["emulator"] = emulator.name
    return Artifact(VM_ENTRY, (VM_ENTRY,), notes)

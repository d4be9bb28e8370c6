"""A plan as an artifact: the form that the target asks for, and what there is to know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infc.targets import Artifact, cross
from infc.targets.tvm_compiler.library import place_bytes, write_library
from infc.targets.tvm_compiler.settings import (
    cpu_of,
    has_threads,
    is_static,
    require_memory,
)
from infc.targets.tvm_compiler.static import write_static

if TYPE_CHECKING:
    from infc.targets import BuildJob
    from infc.targets.tvm_compiler.plan import Plan

ENTRY = "model.so"


def write(plan: Plan, job: BuildJob) -> Artifact:
    """Write the artifact of `plan` into the job's folder.

    Raises:
        InfcError: E208, it takes too much memory; E501, there is no C compiler for the processor.
        CompilerError: the C compiler refuses.
    """
    target, cpu = job.target, cpu_of(job.target)
    threads, scratch = has_threads(target), job.output.parent / "tvm-objects"
    require_memory(target, cpu, place_bytes(plan, cpu, threads=threads), plan.arena_bytes)
    named = target.options.get("compiler", "")
    compiler = cross.find_compiler(cpu.triple, named, cpu.flags)
    notes: dict[str, Any] = {
        "cpu": {"triple": cpu.triple, "mcpu": cpu.mcpu, "features": list(cpu.features)},
        "compiler": compiler.version,
        "kernels": len(plan.kernels),
        "calls": len(plan.calls),
    }
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

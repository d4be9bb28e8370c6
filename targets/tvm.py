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

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import fail
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
    schemes,
    tvm_sdk,
)
from infc.targets.arithmetic import Arithmetic
from infc.targets.tvm_compiler import settings
from infc.targets.tvm_compiler.cpus import HOST
from infc.targets.tvm_compiler.settings import cpu_of
from infc.targets.tvm_operators import IN_HALVES, KNOWN

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.targets import Runner
    from infc.targets.abilities import Cross

NAME = "tvm"
SUMMARY = "TVM: a library of kernels for one processor, without a runtime"
EXTRA = "tvm"
DISTRIBUTIONS = ("apache-tvm", "apache-tvm-ffi")
MODULES = ("tvm",)
OPTIONS = settings.OPTIONS
PRECISIONS = (Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8)
ARITHMETIC = {
    Precision.FP16: Arithmetic(converts=False, stores="float16"),
    Precision.BF16: Arithmetic(converts=False, stores="bfloat16"),
}
HALF = Arithmetic(converts=True, blocked=KNOWN - IN_HALVES, stores="float16")
"""Of a processor that multiplies vectors of float16."""
SCHEME = schemes.TVM
PEER = "onnxruntime"
MIN_OPSET = 13
OWN_OPERATORS = True
THREADS = (1, 3)
ENTRY = "model.so"
VM_ENTRY = "model.vm.so"
"""The file to open of an artifact for TVM's runtime."""


def _no_sdk() -> dict[str, str]:
    return {}


def _no_library_path() -> list[Path]:
    return []


LOADER = LoaderSpec("tvm", _no_sdk, _no_library_path)
LINKED = LoaderSpec("tvm_static", _no_sdk, _no_library_path, "tvm")
MACHINE = LoaderSpec("tvm_vm", tvm_sdk.entries, tvm_sdk.library_path)


def loader(entry: str) -> LoaderSpec:
    """A static library is linked in, a shared one opened; one for TVM's runtime needs that."""
    if entry == VM_ENTRY:
        return MACHINE
    return LINKED if entry.endswith(".a") else LOADER


def worker(target: Target) -> Worker:
    """Any environment that has the package.

    TVM imports PyTorch where it is, to exchange tensors with it: of 3.2 s for `import tvm`, 2.3.
    What is for TVM's runtime on another kind of machine has no Python here.
    """
    runner = Worker(native=True) if settings.runs_natively(target) else None
    return Worker(target.toolchain, runner=runner, without=("torch",))


def require_options(target: Target) -> None:
    """Values that make sense."""
    settings.require(target)
    if target.precision is Precision.FP16 and not settings.widens_float16(target):
        cpu = target.options.get("cpu", HOST)
        raise fail(
            "E205",
            f"`-X cpu={cpu}` has no instruction that widens float16",
            help="`--precision bf16` stores weights in 16 bits too, and needs none",
        )


def absence(target: Target) -> str:
    """Why this machine cannot run what is made for `target`; "" where it can."""
    return settings.absence(target)


def arithmetic(target: Target) -> Mapping[Precision, Arithmetic]:
    """How `target` has float16: in registers too where it can, else in memory alone."""
    if settings.multiplies_halves(target):
        return {**ARITHMETIC, Precision.FP16: HALF}
    return ARITHMETIC


def cross(target: Target) -> Cross | None:
    """The kind of machine that the processor is in, where it is named and has Linux."""
    return settings.cross_of(target)


def remote(address: str) -> object:
    """A device that a tracker has, `tracker://HOST[:PORT]/KEY`."""
    from infc.targets.tvm_compiler.devices.address import DeviceAddress

    return DeviceAddress.parse(address)


def tools(target: Target) -> None:
    """A C compiler for the processor."""
    settings.require_tools(target)


def legalize(model: ir.Model, target: Target) -> None:
    """Channels last, and what TVM's importer lacks said otherwise.

    Raises:
        InfcError: E207 for an input whose shape is not fixed, where the form asks for that, and
            for one of unknown rank.
    """
    from infc.targets.tvm_compiler.integers.dot_products import activation_of
    from infc.targets.tvm_lowering import lower

    for value in model.graph.inputs:
        if value.shape is None or settings.form_of(target, True) != settings.VM:
            _require_fixed(value)
    lower(model, activation_of(cpu_of(target).triple))


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
        help=f"for example `--input {value.name}={'x'.join(map(str, example))}`, or keep it open "
        "with `-X form=vm`",
    )


def check(model: Path, target: Target) -> Sequence[Unsupported]:
    """Return the nodes that have no converter, or whose converter fails."""
    from infc.targets.tvm_compiler.importing.checking import unsupported

    return unsupported(model, cpu_of(target))


def build(job: BuildJob) -> Artifact:
    """Compile the kernels and link the library.

    Raises:
        InfcError: E208, it takes too much memory; E209, records that cannot be used; E501, there
            is no C compiler for the processor.
        BackEndError: a shape that depends on values, or the C compiler refuses.
    """
    from infc.targets.tvm_compiler import compile_model, relax_of
    from infc.targets.tvm_compiler.forms.library import CompilerError
    from infc.targets.tvm_compiler.forms.plan import UnplannedError
    from infc.targets.tvm_compiler.forms.writing import open_dims_of, write, write_vm
    from infc.targets.tvm_compiler.tuning.lookup import Lookup

    cpu = cpu_of(job.target)
    lookup = Lookup(job.tuning, cpu)
    open_dims = [f"`{d}` of `{i.name}`" for i in job.inputs for d in open_dims_of(i)]
    try:
        if settings.form_of(job.target, bool(open_dims)) == settings.VM:
            made = write_vm(relax_of(job.model, cpu, lookup, job.report), job, open_dims)
        else:
            made = write(compile_model(job.model, cpu, lookup, job.report), job)
    except (UnplannedError, CompilerError) as error:
        raise BackEndError(str(error)) from error
    return replace(made, notes={**made.notes, "tuning": lookup.notes()})


def tune(job: BuildJob) -> dict[str, Any]:
    """Measure kernels of the model until `job.tuning` is used up; see `tuning_job.tune`."""
    from infc.targets.tvm_compiler.tuning import job as tuning_job

    assert job.report is not None
    cpu = cpu_of(job.target)
    return tuning_job.tune(job.model, job.target, cpu, job.tuning, job.report)


def open(job: RunJob) -> Runner:
    """Load the library, or start a program that has it, where this process cannot.

    Raises:
        BackEndError: nothing on this machine runs it.
    """
    from infc.targets.tvm_compiler.forms.emulated import Emulated, emulator_of, linked
    from infc.targets.tvm_compiler.forms.opened import Model

    if job.remote:
        if job.entry.suffix == ".a":
            raise BackEndError("a static library is a part of a program, which no device is sent")
        from infc.targets.tvm_compiler.devices.session import Remote

        return Remote(job).run

    absent = settings.absence(job.target)
    if absent:
        raise BackEndError(f"the artifact cannot run here: {absent}")
    if job.entry.name == VM_ENTRY:
        from infc.targets.tvm_compiler.forms.vm import Model as Machine

        return Machine(job.entry, job.inputs, job.outputs, job.threads).run
    if emulator_of(job.target):
        return Emulated(job).run
    if job.entry.suffix == ".a":
        return linked(job).run
    return Model(job.entry, job.inputs, job.outputs, job.threads).run


def device(target: Target) -> str:
    """The CPU, or what stands in for it."""
    from infc.targets.tvm_compiler.forms.emulated import emulator_of

    emulator = emulator_of(target)
    return f"CPU ({emulator.name})" if emulator else "CPU"

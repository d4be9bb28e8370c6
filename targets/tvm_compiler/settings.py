"""What the user chooses with `-X`, checked: the processor, the form, the memory, the compiler."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from infc.diagnostics import did_you_mean, fail
from infc.targets import BackEndError, choice, cross, tvm_sdk
from infc.targets.tvm_compiler.cpus import CPUS, HOST, Cpu, UnknownCpuError, host

if TYPE_CHECKING:
    from infc.targets import Target
    from infc.targets.abilities import Cross

OPTIONS = {
    "cpu": f"the processor: {HOST}, {', '.join(CPUS)} ({HOST})",
    "cores": "how many cores the kernels are shared among (those of the processor)",
    "form": "library: a shared one; static: one to be linked; vm: one for TVM's runtime, where "
    "dimensions may stay open (library; static without an OS; vm where a dimension is open)",
    "threads": "0: a build without threads; a static one then allocates nothing (any)",
    "memory": "the most that a model may take when it is made: bytes, 64k or 2M (any)",
    "compiler": "a C compiler for the processor: zig, or a command (the first that is found)",
}
MAX_CORES = 256
LIBRARY, STATIC, VM = "library", "static", "vm"
_UNITS = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def require(target: Target) -> None:
    """Refuse values that make no sense.

    Raises:
        InfcError: E205.
    """
    name = target.options.get("cpu", HOST)
    if name != HOST and name not in CPUS:
        hint = did_you_mean(name, (HOST, *CPUS))
        have = ", ".join(f"`{n}`" for n in (HOST, *CPUS))
        raise fail("E205", f"`-X cpu={name}`: no such processor", help=f"{hint}there are {have}")
    cores = target.options.get("cores", "1")
    if not cores.isdecimal() or not 0 < int(cores) <= MAX_CORES:
        choice(target, "cores", [f"1 to {MAX_CORES}"], "")
    choice(target, "threads", ["0", "any"], "any")
    memory_of(target)
    form = target.options.get("form", "")
    choice(target, "form", (LIBRARY, STATIC, VM), form or LIBRARY)
    if name != HOST and CPUS[name].bare and form not in ("", STATIC):
        raise fail(
            "E205",
            f"`-X form={form}`: `{name}` has no operating system that could load one",
            help="`-X form=static`",
        )


def cpu_of(target: Target) -> Cpu:
    """The processor that `target` is for.

    Raises:
        BackEndError: it is this machine's, which is of no kind that is known.
    """
    name = target.options.get("cpu", HOST)
    try:
        found = host() if name == HOST else CPUS[name]
    except UnknownCpuError as error:
        raise BackEndError(str(error)) from error
    cores = target.options.get("cores")
    return replace(found, cores=int(cores)) if cores else found


def form_of(target: Target, has_open_dims: bool) -> str:
    """The form of the artifact of a model that has dimensions which are not fixed, or none.

    That for TVM's runtime is chosen by itself only where that runtime is: on this kind of machine.
    """
    if is_static(target):
        return STATIC
    own = VM if has_open_dims and not cross_of(target) else LIBRARY
    return target.options.get("form", own)


def is_static(target: Target) -> bool:
    """Whether the artifact is to be linked into a program."""
    return target.options.get("form", "") == STATIC or _is_bare(target)


def has_threads(target: Target) -> bool:
    """Whether the artifact may start threads, and asks for memory when it is made."""
    return target.options.get("threads", "any") != "0" and not _is_bare(target)


def memory_of(target: Target) -> int | None:
    """Bytes that a model may take, None where that does not matter.

    Raises:
        InfcError: E205 for what is no size.
    """
    text = target.options.get("memory")
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,12})([kMG]?)", text)
    if found is None or not int(found[1]):
        choice(target, "memory", ["bytes", "64k", "2M"], "")
        raise AssertionError
    return int(found[1]) * _UNITS[found[2]]


def require_memory(target: Target, cpu: Cpu, place_bytes: int, arena_bytes: int) -> None:
    """Refuse a model that takes more than the user, or the processor's addresses, have for it.

    Raises:
        InfcError: E208.
    """
    limit = memory_of(target)
    if limit is not None and place_bytes > limit:
        bound = f"and `-X memory={target.options['memory']}` allows {limit}"
    elif cpu.pointer_bytes == 4 and place_bytes >= 1 << 31:
        bound = "which a processor with addresses of 32 bits does not have"
    else:
        return
    raise fail(
        "E208",
        f"the model takes {place_bytes} bytes when it is made, {bound}",
        notes=[f"{arena_bytes} of them are for what is computed between its layers"],
        help="give it smaller inputs (`--input`), or another `-X memory=`",
    )


def require_tools(target: Target) -> None:
    """Refuse a processor that nothing here compiles for, before anything is built.

    Raises:
        InfcError: E501, with what to install.
    """
    try:
        cpu = cpu_of(target)
    except BackEndError:
        return  # what there is to say of this machine, the worker says
    cross.find_compiler(cpu.triple, target.options.get("compiler", ""), cpu.flags)


def absence(target: Target) -> str:
    """Why what is made for `target` cannot run on this machine, "" where it can."""
    name = target.options.get("cpu", HOST)
    if name == HOST:
        return ""
    cpu = CPUS[name]
    if cpu.bare:
        return f"`{name}` has no operating system: only a board, or its emulator, runs it"
    if cross.is_native(cpu.triple):
        missing = cpu.missing_here()
        return f"this machine's processor lacks {', '.join(missing)}" if missing else ""
    if target.options.get("form") == VM and not tvm_sdk.is_named_for(cpu.machine):
        gnu = cross.gnu_triple(cpu.triple)
        return (
            f"it runs on TVM's runtime for {gnu}: set TVM_HOME to a folder with that, or "
            "`infc verify --remote` runs it on a device"
        )
    if cross.find_emulator(cpu.triple):
        return ""
    gnu = cross.gnu_triple(cpu.triple)
    return f"it is for {gnu}, which nothing here runs: {cross.emulator_remedy(gnu)}"


def runs_natively(target: Target) -> bool:
    """Whether only a C++ loader can run the artifact here: TVM's runtime is another machine's."""
    cpu = CPUS.get(target.options.get("cpu", HOST))
    if cpu is None or cross.is_native(cpu.triple) or target.options.get("form") != VM:
        return False
    return tvm_sdk.is_named_for(cpu.machine)


def cross_of(target: Target) -> Cross | None:
    """Where the artifacts of `target` run, None where that is this machine."""
    from infc.targets.abilities import Cross

    name = target.options.get("cpu", HOST)
    if name == HOST:
        return None
    cpu = CPUS[name]

    def compiler() -> tuple[str, ...]:
        return cross.find_compiler(cpu.triple, target.options.get("compiler", ""), cpu.flags).cxx

    def emulator() -> tuple[str, ...]:
        if cross.is_native(cpu.triple):
            return ()
        found = cross.find_emulator(cpu.triple, cpu.mcpu)
        return found.command if found else ()

    triple = cross.gnu_triple(cpu.triple)
    foreign = not cross.is_native(cpu.triple)
    return Cross(triple, cpu.machine, foreign, compiler, emulator, hosted=not cpu.bare)


def _is_bare(target: Target) -> bool:
    name = target.options.get("cpu", HOST)
    return name in CPUS and CPUS[name].bare


def multiplies_halves(target: Target) -> bool:
    """Whether the processor multiplies vectors of float16; not of a machine that is not known."""
    name = target.options.get("cpu", HOST)
    try:
        return (host() if name == HOST else CPUS[name]).multiplies_halves
    except UnknownCpuError:
        return False


_WITHOUT_FLOAT16 = ("x86-64", "x86-64-v2", "armv7", "riscv64")


def widens_float16(target: Target) -> bool:
    """Whether the processor makes float32 of float16 in one instruction: F16C, VCVT, FCVTL."""
    name = target.options.get("cpu", HOST)
    try:
        mcpu = host().mcpu if name == HOST else name
    except UnknownCpuError:
        return True
    return mcpu not in _WITHOUT_FLOAT16

"""A plan as a library: kernels, weights, tables and the code that walks them, and nothing of TVM.

    kernels.o   TVM's code generator          weights.S   .incbin of weights.bin
    model.c     the plan, as tables           runtime.c   templates/tvm, the same for every model

The library needs libc and, with threads, libpthread. It exports what `infc_model.h` declares.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infc.targets import cross
from infc.targets.tvm_compiler.forms.objects import ElfObject
from infc.targets.tvm_compiler.forms.plan import ALIGNMENT, Plan, aligned

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu

EXPORTED = (
    *("infc_model_abi", "infc_model_bytes", "infc_model_weight_bytes", "infc_model_tensor"),
    "infc_model_create",
    *("infc_model_place", "infc_model_run", "infc_model_message", "infc_model_destroy"),
)
_PLACES = {
    "input": "INFC_INPUT",
    "output": "INFC_OUTPUT",
    "constant": "INFC_CONSTANT",
    "arena": "INFC_ARENA",
}
_CODES = {"int": 0, "uint": 1, "float": 2, "bfloat": 4, "bool": 6}
"""DLPack's type codes."""
HEADER = "infc_model.h"
FLAGS = ("-std=c99", "-O2", "-g0", "-fPIC", "-fvisibility=hidden", "-Wall")


_WORKSPACE = "__TVMBackendAllocWorkspace"
_DIVISIONS = {
    f"__{kind}{width}" for kind in ("div", "udiv", "mod", "umod") for width in ("si3", "di3")
}
"""What LLVM calls where an Arm processor cannot divide."""
_CONVERSIONS = {
    *(f"__{kind}{width}di" for kind in ("fix", "fixuns") for width in ("sf", "df")),
    *(f"__{kind}di{width}" for kind in ("float", "floatun") for width in ("sf", "df")),
}
"""What LLVM calls for 64 bits on a processor of 32, by the names that the Arm ABI does not have."""


class CompilerError(Exception):
    """The C compiler refused; the message is its own."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of a library and its parts; `place` is all that a model takes when it is made."""

    library: int
    weights: int
    arena: int
    place: int


def compiler_for(cpu: Cpu, named: str = "") -> list[str]:
    """The command of a C compiler for the processor.

    Raises:
        InfcError: E501, there is none.
    """
    return [*cross.find_compiler(cpu.triple, named, cpu.flags).c]


def write_library(
    plan: Plan,
    cpu: Cpu,
    output: Path,
    scratch: Path,
    name: str,
    compiler: Sequence[str] = (),
    *,
    threads: bool = True,
) -> Sizes:
    """Write the shared library `output`; `name` is the model's, for a comment.

    Raises:
        InfcError: E501, there is no compiler.
        CompilerError: the C compiler refuses.
    """
    command = compiler or compiler_for(cpu)
    objects = write_sources(plan, cpu, scratch, name, threads=threads)
    script = scratch / "exported.map"
    listed = " ".join(f"{symbol};" for symbol in EXPORTED)
    script.write_text(f"{{ global: {listed} local: *; }};\n", encoding="utf-8")
    options = ["-shared", "-s", "-Wl,-Bsymbolic", "-Wl,--build-id=none", "-Wl,-z,noexecstack"]
    options.append("-Wl,-z,defs")  # what is missing is missed here, and not on the device
    run_compiler(
        [
            *command,
            *FLAGS,
            *definitions(objects, threads=threads),
            *options,
            f"-Wl,--version-script={script}",
            *map(str, objects),
            *(("-lpthread",) if threads else ()),
            "-lm",
            "-o",
            str(output),
        ],
        scratch,
    )
    weights = (scratch / "weights.bin").stat().st_size
    place = place_bytes(plan, cpu, threads=threads)
    return Sizes(output.stat().st_size, weights, plan.arena_bytes, place)


def write_sources(
    plan: Plan, cpu: Cpu, scratch: Path, name: str, *, threads: bool = True, checked: bool = True
) -> list[Path]:
    """Write everything that a library is made of into `scratch`; what is to be compiled.

    `checked` kernels look at the type and the shape of every operand before they start, which
    costs as much code as the kernels themselves.
    """
    import tvm

    scratch.mkdir(parents=True, exist_ok=True)
    functions = {k: f.with_attr("global_symbol", k) for k, f in plan.kernels.items()}
    module = tvm.IRModule(functions)
    if functions:
        with tvm.transform.PassContext(config={"tirx.disable_assert": not checked}):
            built = tvm.tirx.build(module, target=tvm.target.Target(cpu.target()))
        built.write_to_file(str(scratch / "kernels.o"), "o")
    offsets = _write_weights(plan, scratch)
    tables = _tables(plan, cpu, offsets, name, threads=threads)
    (scratch / "model.c").write_text(tables, encoding="utf-8")
    for file in ("runtime.c", "plan.h", HEADER):
        shutil.copyfile(template_folder() / file, scratch / file)
    made = [scratch / "model.c", scratch / "runtime.c", scratch / "weights.S"]
    return [*made, scratch / "kernels.o"] if functions else made


def definitions(sources: Sequence[Path], *, threads: bool) -> list[str]:
    """What runtime.c is told: whether it has threads, and what the kernels call."""
    found = [] if threads else ["-DINFC_NO_THREADS"]
    wanted: set[str] = set()
    for source in sources:
        if source.suffix == ".o":
            kernels = ElfObject(source.read_bytes())
            wanted |= {*kernels.undefined(), *kernels.defined()}
    if not wanted.isdisjoint(_DIVISIONS):
        found.append("-DINFC_DIVISION")
    if not wanted.isdisjoint(_CONVERSIONS):
        found.append("-DINFC_CONVERSIONS")
    if _WORKSPACE not in wanted:
        found.append("-DINFC_SCRATCH_BYTES=0")
    return found


def place_bytes(plan: Plan, cpu: Cpu, *, threads: bool) -> int:
    """Bytes that a model takes when it is made: what runtime.c divides up."""
    header = 1024 if threads else 192
    tensor = 48 if cpu.pointer_bytes == 8 else 40
    staging = sum(aligned(t.bytes) for t in plan.tensors if t.place in ("input", "output"))
    return (
        header
        + aligned(len(plan.tensors) * tensor)
        + aligned(_most_operands(plan) * 16)
        + aligned(plan.arena_bytes)
        + staging
    )


def _most_operands(plan: Plan) -> int:
    return max((len(call.operands) for call in plan.calls), default=1)


def rendered(template: str, **values: object) -> str:
    """`templates/tvm/<template>`, filled in."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(template_folder()),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)


def template_folder() -> Path:
    """Where the C sources are."""
    from infc import templates

    return Path(next(iter(templates.__path__))) / "tvm"


def run_compiler(command: Sequence[str], folder: Path) -> None:
    """Run the C compiler in `folder`.

    Raises:
        CompilerError: with what it says.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompilerError(f"{Path(command[0]).name} fails:\n{done.stderr.strip()[-2000:]}")


def _write_weights(plan: Plan, scratch: Path) -> list[int]:
    """Write the constants, one after the other; their offsets."""
    import numpy as np

    offsets, at = [], 0
    with (scratch / "weights.bin").open("wb") as stream:
        for array in plan.constants:
            gap = -at % ALIGNMENT
            stream.write(bytes(gap))
            at += gap
            offsets.append(at)
            stream.write(np.ascontiguousarray(array).tobytes())
            at += array.nbytes
        if not at:
            stream.write(bytes(ALIGNMENT))
    (scratch / "weights.S").write_text(
        "    .section .rodata\n"
        "    .global infc_weights\n"
        f"    .balign {ALIGNMENT}\n"
        "infc_weights:\n"
        '    .incbin "weights.bin"\n'
        '    .section .note.GNU-stack,"",%progbits\n',
        encoding="utf-8",
    )
    return offsets


def _tables(plan: Plan, cpu: Cpu, offsets: Sequence[int], name: str, *, threads: bool) -> str:
    shapes: list[int] = []
    tensors = []
    for tensor in plan.tensors:
        code, bits = _type(tensor.dtype)
        at = offsets[tensor.at] if tensor.place == "constant" else tensor.at
        tensors.append(
            {
                "place": _PLACES[tensor.place],
                "code": code,
                "bits": bits,
                "rank": len(tensor.shape),
                "shape": len(shapes),
                "at": at,
                "bytes": tensor.bytes,
            }
        )
        shapes += tensor.shape
    operands: list[int] = []
    calls = []
    for call in plan.calls:
        calls.append({"kernel": call.kernel, "at": len(operands), "count": len(call.operands)})
        operands += call.operands
    return rendered(
        "model.c.j2",
        name=name,
        kernels=sorted(plan.kernels),
        shapes=shapes or [0],
        tensors=tensors,
        operands=operands or [0],
        most_operands=_most_operands(plan),
        calls=calls,
        copies=[{"source": c.source, "output": c.output} for c in plan.copies],
        arena_bytes=plan.arena_bytes,
        weight_bytes=sum(a.nbytes for a in plan.constants),
        place_bytes=place_bytes(plan, cpu, threads=threads),
        instructions=cpu.instructions,
        abilities=cpu.abilities,
    )


def _type(dtype: str) -> tuple[int, int]:
    """DLPack's code and bits of a NumPy type name."""
    if dtype == "bool":
        return _CODES["bool"], 8
    name = dtype.rstrip("0123456789")
    return _CODES[name], int(dtype[len(name) :])

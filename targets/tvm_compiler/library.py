"""A plan as a library: kernels, weights, tables and the code that walks them, and nothing of TVM.

    kernels.o   TVM's code generator          weights.S   .incbin of weights.bin
    model.c     the plan, as tables           runtime.c   templates/tvm, the same for every model

The library needs libc and, with threads, libpthread. It exports what `infc_model.h` declares.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.targets import BackEndError
from infc.targets.tvm_compiler.plan import ALIGNMENT, Plan

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
DTYPE_NAMES = {
    **{(0 << 8) + bits: f"int{bits}" for bits in (8, 16, 32, 64)},
    **{(1 << 8) + bits: f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{(2 << 8) + bits: f"float{bits}" for bits in (16, 32, 64)},
    (4 << 8) + 16: "bfloat16",
    (6 << 8) + 8: "bool",
}
"""Element types by DLPack's code and bits, as `infc_model_tensor` gives them."""
MAX_RANK = 16
_FLAGS = ("-std=c99", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall")


class CompilerError(Exception):
    """The C compiler refused, or there is none; the message is its own."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of a library's parts."""

    library: int
    weights: int
    arena: int


def compiler_for(cpu: Cpu) -> list[str]:
    """The command of a C compiler for the processor.

    Raises:
        CompilerError: there is none.
    """
    for name in ("cc", "gcc", "clang"):
        found = shutil.which(name)
        if found:
            return [found]
    raise CompilerError("no C compiler was found (cc, gcc, clang)")


def write_library(plan: Plan, cpu: Cpu, output: Path, scratch: Path, name: str) -> Sizes:
    """Write the shared library `output`; `name` is the model's, for a comment.

    Raises:
        CompilerError: the C compiler is missing or refuses.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    objects = [*write_sources(plan, cpu, scratch, name)]
    script = scratch / "exported.map"
    listed = " ".join(f"{symbol};" for symbol in EXPORTED)
    script.write_text(f"{{ global: {listed} local: *; }};\n", encoding="utf-8")
    options = ["-shared", "-s", "-Wl,-Bsymbolic", "-Wl,--build-id=none", "-Wl,-z,noexecstack"]
    run_compiler(
        [
            *compiler_for(cpu),
            *_FLAGS,
            *options,
            f"-Wl,--version-script={script}",
            *map(str, objects),
            "-lpthread",
            "-lm",
            "-o",
            str(output),
        ],
        scratch,
    )
    weights = (scratch / "weights.bin").stat().st_size
    return Sizes(output.stat().st_size, weights, plan.arena_bytes)


def write_sources(plan: Plan, cpu: Cpu, scratch: Path, name: str) -> list[Path]:
    """Write everything that a library is made of into `scratch`; what is to be compiled."""
    import tvm

    functions = {k: f.with_attr("global_symbol", k) for k, f in plan.kernels.items()}
    module = tvm.IRModule(functions)
    if functions:
        built = tvm.tirx.build(module, target=tvm.target.Target(cpu.target()))
        built.write_to_file(str(scratch / "kernels.o"), "o")
    offsets = _write_weights(plan, scratch)
    (scratch / "model.c").write_text(_tables(plan, cpu, offsets, name), encoding="utf-8")
    for file in ("runtime.c", "plan.h", "infc_model.h"):
        shutil.copyfile(template_folder() / file, scratch / file)
    made = [scratch / "model.c", scratch / "runtime.c", scratch / "weights.S"]
    return [*made, scratch / "kernels.o"] if functions else made


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


def _tables(plan: Plan, cpu: Cpu, offsets: Sequence[int], name: str) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

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
    environment = Environment(
        loader=FileSystemLoader(template_folder()),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    return environment.get_template("model.c.j2").render(
        name=name,
        kernels=sorted(plan.kernels),
        shapes=shapes or [0],
        tensors=tensors,
        operands=operands or [0],
        most_operands=max((len(c.operands) for c in plan.calls), default=1),
        calls=calls,
        copies=[{"source": c.source, "output": c.output} for c in plan.copies],
        arena_bytes=plan.arena_bytes,
        weight_bytes=sum(a.nbytes for a in plan.constants),
        instructions=cpu.instructions,
        abilities=cpu.abilities,
    )


def _type(dtype: str) -> tuple[int, int]:
    """DLPack's code and bits of a NumPy type name."""
    if dtype == "bool":
        return _CODES["bool"], 8
    name = dtype.rstrip("0123456789")
    return _CODES[name], int(dtype[len(name) :])


class Model:
    """A library that was opened; `run` takes and gives arrays by name."""

    def __init__(
        self, path: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int
    ) -> None:
        import ctypes

        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self._library = library = ctypes.CDLL(str(path))
        library.infc_model_create.argtypes = (ctypes.c_int, ctypes.POINTER(ctypes.c_void_p))
        library.infc_model_run.argtypes = (ctypes.c_void_p,) * 3
        library.infc_model_message.argtypes = (ctypes.c_void_p,)
        library.infc_model_message.restype = ctypes.c_char_p
        library.infc_model_tensor.argtypes = (
            *(ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.c_int64)),
            ctypes.POINTER(ctypes.c_int),
        )
        self._handle = ctypes.c_void_p()
        status = library.infc_model_create(threads, ctypes.byref(self._handle))
        if status:
            raise MemoryError(f"infc_model_create gives {status}")

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run once.

        Raises:
            BackEndError: a kernel refuses, or an input is of another type or shape.
        """
        import ctypes

        import numpy as np

        inputs = [np.asarray(feeds[name], order="C") for name in self._inputs]
        for i, (name, array) in enumerate(zip(self._inputs, inputs, strict=True)):
            wanted = self._type(0, i)
            if (array.dtype.name, array.shape) != wanted:
                raise BackEndError(
                    f"`{name}` is {array.dtype.name} {array.shape}, not {wanted[0]} {wanted[1]}"
                )
        answers = []
        for i in range(len(self._outputs)):
            dtype, shape = self._type(1, i)
            answers.append(np.empty(shape, np.dtype(dtype)))
        pointers = [
            (ctypes.c_void_p * max(1, len(arrays)))(*(a.ctypes.data for a in arrays))
            for arrays in (inputs, answers)
        ]
        if self._library.infc_model_run(self._handle, *pointers):
            raise BackEndError(self._library.infc_model_message(self._handle).decode())
        return dict(zip(self._outputs, answers, strict=True))

    def _type(self, output: int, number: int) -> tuple[str, tuple[int, ...]]:
        import ctypes

        shape = (ctypes.c_int64 * MAX_RANK)()
        code = ctypes.c_int()
        rank = self._library.infc_model_tensor(output, number, shape, ctypes.byref(code))
        return DTYPE_NAMES[code.value], tuple(shape[:rank])

"""What the loader templates are handed: the model's signature in the terms of C.

Every name is an identifier, unique among all arguments, and depends on nothing but the model, so
that the generated header is the same whatever the back end.

    x: float32 [batch, 1, 8, 8] -> y: float32 [batch, 10]
    digits_run(model, int64_t batch, const float* x, float* y)
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from infc.diagnostics import fail
from infc.formatting import format_affine
from infc.signature import DTYPES, TensorSpec

C_TYPES = {
    "float32": "float",
    "float64": "double",
    "float16": "uint16_t",
    "bfloat16": "uint16_t",
    "int8": "int8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "uint8": "uint8_t",
    "uint16": "uint16_t",
    "uint32": "uint32_t",
    "uint64": "uint64_t",
    "bool": "uint8_t",
}
"""The element type of an argument: half floats travel as their bits, booleans as 0 and 1."""

MAX_UNKNOWN_RANK = 8
"""The room an output of unknown rank gets for its shape."""

_WORDS = (
    # C, C++ and Java keywords and literals
    "abstract alignas alignof and and_eq asm assert auto bitand bitor bool boolean break byte case "
    "catch char char16_t char32_t char8_t class co_await co_return co_yield compl complex concept "
    "const const_cast consteval constexpr constinit continue decltype default delete do double "
    "dynamic_cast else enum explicit export extends extern false final finally float for friend "
    "goto if imaginary implements import inline instanceof int interface long mutable namespace "
    "native new noexcept not not_eq null nullptr operator or or_eq package private protected "
    "public record register reinterpret_cast requires restrict return sealed short signed sizeof "
    "static static_assert static_cast strictfp struct super switch synchronized template this "
    "thread_local throw throws transient true try typedef typeid typename typeof union unsigned "
    "using var virtual void volatile wchar_t while xor xor_eq yield permits "
    # macros of compilers and C headers that are spelled in lower case
    "errno far i386 linux near offsetof setjmp signals slots stderr stdin stdout unix "
    # arguments and locals of the generated functions
    "attempt device dims inputs model options outputs path r require resize run shape size std "
    "status version"
)
_RESERVED = frozenset(_WORDS.split())


@dataclass(frozen=True, slots=True)
class Dim:
    """A dynamic dimension of the inputs: an argument of `run`, before the tensors.

    `bounds` is (low, typical, high) where the user gave them.
    """

    name: str
    identifier: str
    bounds: tuple[int, int, int] | None = None

    @property
    def low(self) -> int:
        """The least value `run` takes."""
        return self.bounds[0] if self.bounds else 0

    @property
    def high(self) -> int:
        """The greatest value `run` takes."""
        return self.bounds[2] if self.bounds else 2**31 - 1

    @property
    def text(self) -> str:
        """For comments: `batch, 1 to 8`."""
        return f"{self.identifier}, {self.low} to {self.high}" if self.bounds else self.identifier


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output, as arguments of `run`.

    An axis is a number, a `Dim`, or None where only the run tells; `axes` itself is None where
    only the run tells the rank. `quantized`: (scale, zero point) of integers for real numbers.
    """

    role: Literal["input", "output"]
    name: str
    identifier: str
    dtype: str
    axes: tuple[int | Dim | None, ...] | None
    quantized: tuple[float, int] | None = None

    @property
    def c_type(self) -> str:
        """The C type of an element."""
        return C_TYPES[self.dtype]

    @property
    def item_bytes(self) -> int:
        """The size of an element."""
        return DTYPES[self.dtype]

    @property
    def is_known(self) -> bool:
        """Whether the arguments of `run` tell the shape, so that the caller can allocate."""
        return self.axes is not None and None not in self.axes

    @property
    def is_static(self) -> bool:
        """Whether the shape is a constant."""
        return self.axes is not None and all(isinstance(a, int) for a in self.axes)

    @property
    def rank(self) -> int:
        """The number of axes; where it is unknown, the room for them."""
        return MAX_UNKNOWN_RANK if self.axes is None else len(self.axes)

    @property
    def dims(self) -> tuple[Dim, ...]:
        """The distinct dynamic dimensions the shape depends on, in order of first appearance."""
        return tuple(dict.fromkeys(a for a in self.axes or () if isinstance(a, Dim)))

    @property
    def constant_shape(self) -> tuple[int, ...]:
        """The shape with -1 for what is not a constant."""
        return tuple(a if isinstance(a, int) else -1 for a in self.axes or ())

    @property
    def shape(self) -> tuple[str, ...]:
        """The shape in terms of the arguments; -1 for what only the run tells."""
        return tuple(
            a.identifier if isinstance(a, Dim) else str(-1 if a is None else a)
            for a in self.axes or ()
        )

    @property
    def count(self) -> int:
        """The number of elements of a static shape."""
        return math.prod(self.constant_shape)

    @property
    def count_expression(self) -> str:
        """The number of elements as a C expression of the dimensions."""
        constant = math.prod(a for a in self.axes or () if isinstance(a, int))
        factors = [f"(size_t){a.identifier}" for a in self.axes or () if isinstance(a, Dim)]
        return " * ".join([*factors, str(constant)] if constant != 1 else factors) or "1"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The parameters of the C function `run` that carry it."""
        if self.role == "input":
            return (f"const {self.c_type}* {self.identifier}",)
        out: tuple[str, ...] = (f"{self.c_type}* {self.identifier}",)
        if self.is_known:
            return out
        out += (
            f"size_t {self.identifier}_capacity",
            f"int64_t {self.identifier}_shape[{self.rank}]",
        )
        return out if self.axes is not None else (*out, f"int32_t* {self.identifier}_rank")

    @property
    def text(self) -> str:
        """For comments: `float32 [batch, 1, 8, 8]`, `uint8 [10], which stands for q * 0.5`."""
        if self.quantized is None:
            return self._type_and_shape
        row = dict(zip(("scale", "zero_point"), self.quantized, strict=True))
        return f"{self._type_and_shape}, which stands for {format_affine(row)}"

    @property
    def scale_literal(self) -> str:
        """The scale as a float32 literal of C and Java; "" where there is none."""
        if self.quantized is None:
            return ""
        text = f"{self.quantized[0]:.9g}"
        return f"{text}f" if set(text) & set(".e") else f"{text}.0f"

    @property
    def _type_and_shape(self) -> str:
        if self.axes is None:
            return f"{self.dtype} [rank and shape known after the run]"
        shape = ", ".join("?" if s == "-1" else s for s in self.shape)
        return f"{self.dtype} [{shape}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """A model as its loaders see it; `name` begins every C function."""

    name: str
    dims: tuple[Dim, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The inputs, then the outputs."""
        return self.inputs + self.outputs

    @property
    def is_known(self) -> bool:
        """Whether the caller can allocate every output before the run."""
        return all(t.is_known for t in self.outputs)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The parameters of the C function `run`."""
        return (
            f"{self.name}_model* model",
            *(f"int64_t {d.identifier}" for d in self.dims),
            *(a for t in self.tensors for a in t.arguments),
        )

    @property
    def upper(self) -> str:
        """What the macros begin with."""
        return self.name.upper()

    @property
    def namespace(self) -> str:
        """The C++ namespace."""
        return f"{self.name}_" if self.name in _RESERVED else self.name


def describe(name: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Signature:
    """Return the signature of the model `name`, a C identifier.

    Raises:
        InfcError: E704 for an element type that cannot cross the interface, and for an input
            whose rank is unknown.
    """
    for spec in (*inputs, *outputs):
        if spec.dtype not in C_TYPES:
            raise fail(
                "E704",
                f"`{spec.name}` holds elements of type `{spec.dtype}`",
                notes=["a loader can pass " + ", ".join(C_TYPES)],
            )
    taken = set(_RESERVED)
    tensor_ids = [
        _identifier(spec.name, f"{role}{i}", taken)
        for role, specs in (("input", inputs), ("output", outputs))
        for i, spec in enumerate(specs)
    ]
    dims: dict[str, Dim] = {}
    ins = []
    for spec, identifier in zip(inputs, tensor_ids, strict=False):
        if spec.shape is None:
            raise fail(
                "E704",
                f"the rank of input `{spec.name}` is unknown",
                help=f"give its shape: `--input {spec.name}=...`",
            )
        axes: list[int | Dim | None] = []
        for axis, size in enumerate(spec.shape):
            if isinstance(size, int):
                axes.append(size)
                continue
            key = size if size is not None else f"{spec.name}_dim{axis}"
            if key not in dims:
                bounds = (spec.bounds or {}).get(key)
                dims[key] = Dim(key, _identifier(key, f"dim{len(dims)}", taken), bounds)
            axes.append(dims[key])
        ins.append(Tensor("input", spec.name, identifier, spec.dtype, tuple(axes), spec.quantized))
    outs = tuple(
        Tensor(
            "output",
            spec.name,
            identifier,
            spec.dtype,
            None
            if spec.shape is None
            else tuple(s if isinstance(s, int) else dims.get(str(s)) for s in spec.shape),
            spec.quantized,
        )
        for spec, identifier in zip(outputs, tensor_ids[len(inputs) :], strict=True)
    )
    return Signature(name, tuple(dims.values()), tuple(ins), outs)


def _identifier(name: str, fallback: str, taken: set[str]) -> str:
    """`name` as a lower-case C identifier that is not in `taken`, which it joins.

    The identifiers that the header derives from it (`y_capacity`, `y_shape`, `y_rank`) are
    reserved with it.
    """
    base = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or fallback
    if base[0].isdigit():
        base = f"{fallback.rstrip('0123456789')}_{base}"
    candidate, number = base, 1
    while _family(candidate) & taken:
        number += 1
        candidate = f"{base}_{number}"
    taken |= _family(candidate)
    return candidate


def _family(identifier: str) -> set[str]:
    return {identifier, *(f"{identifier}_{s}" for s in ("capacity", "shape", "rank"))}

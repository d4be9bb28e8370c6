"""ONNX operators as TorchScript source: one lowering function for each, found by (domain, type).

    y = Op(a, b, attribute=...)   ->   v7 = torch.ops.aten.op(v3, self.c1, ...)

A lowering gets an `Op` (a node, its operands as source text, and what is known of them before
anything runs) and returns the expressions of its outputs. It runs without torch, so asking
whether a node is supported and lowering it are the same call. A lowering that cannot keep ONNX's
semantics for the attributes or types at hand calls `Op.refuse`.

What takes more than an expression is a TorchScript function in one of the `*_script` modules. Those
are never imported: `emission` takes the functions that a model needs from their source.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

FAMILIES = (
    "arithmetic",
    "activation",
    "casting",
    "control",
    "convolution",
    "detection",
    "indexing",
    "linear",
    "normalization",
    "pooling",
    "quantization",
    "recurrent",
    "reduction",
    "resizing",
    "sequence",
    "shape",
)
"""The modules of this package that hold lowerings."""

Lowering = Callable[["Op"], "str | Sequence[str]"]

_TABLE: dict[tuple[str, str], Lowering] = {}

DTYPES = {
    "FLOAT": "torch.float32",
    "DOUBLE": "torch.float64",
    "FLOAT16": "torch.float16",
    "BFLOAT16": "torch.bfloat16",
    "INT8": "torch.int8",
    "INT16": "torch.int16",
    "INT32": "torch.int32",
    "INT64": "torch.int64",
    "UINT8": "torch.uint8",
    "UINT16": "torch.uint16",
    "UINT32": "torch.uint32",
    "UINT64": "torch.uint64",
    "BOOL": "torch.bool",
}
"""Element types that TorchScript has, by their ONNX names."""

FLOATING = frozenset({"FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"})
WIDE_UNSIGNED = frozenset({"UINT16", "UINT32", "UINT64"})
"""torch stores and converts these, and has hardly any arithmetic for them."""


class Refused(Exception):  # noqa: N818
    """The node has no equivalent; the message is the reason."""


class Writer(Protocol):
    """What a lowering may write to and ask of; implemented in `emission`."""

    opset: int
    """Of the default domain."""

    def line(self, text: str) -> None:
        """Write a statement before the expression that the lowering returns."""
        ...

    def fresh(self, stem: str = "t") -> str:
        """Return a name that nothing else has."""
        ...

    def need(self, function: str) -> str:
        """Take a function of the `*_script` modules into the program; return its name."""
        ...

    def operand(self, value: ir.Value) -> str:
        """Return the source of `value`, registering a constant where it is one."""
        ...

    def constant(self, value: ir.Value | None) -> np.ndarray[Any, Any] | None:
        """Return what `value` is known to be, or None."""
        ...

    def packed(self, rows: ir.Value, scale: ir.Value, bias: ir.Value | None) -> str:
        """Register the weights of a quantised linear layer; return the source of them, packed.

        They are constants: `rows` (N, K), int8, `scale` and `bias` (N,), float32.
        """
        ...

    def block(self, graph: ir.Graph, operands: Sequence[str]) -> list[str]:
        """Write the nodes of a subgraph, indented by one step; return its outputs' names."""
        ...


@dataclass(frozen=True, slots=True)
class Op:
    """A node to lower: `version` is the opset of its domain."""

    node: ir.Node
    version: int
    writer: Writer

    def refuse(self, reason: str) -> NoReturn:
        """Give up on the node; `reason` ends up in E203."""
        raise Refused(reason)

    def has(self, index: int) -> bool:
        """Whether the optional input `index` is given."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        return value is not None and value.name != ""

    def x(self, index: int) -> str:
        """The source of input `index`."""
        value = self.node.inputs[index] if self.has(index) else None
        if value is None:
            self.refuse(f"input {index} is missing")
        return self.writer.operand(value)

    def or_none(self, index: int) -> str:
        """The source of input `index`, `None` where it is absent."""
        return self.x(index) if self.has(index) else "None"

    def all(self) -> list[str]:
        """The sources of all inputs."""
        return [self.x(i) for i in range(len(self.node.inputs))]

    def wants(self, index: int) -> bool:
        """Whether output `index` has a name: an unnamed one need not be computed."""
        return index < len(self.node.outputs) and bool(self.node.outputs[index].name)

    def const(self, index: int) -> np.ndarray[Any, Any] | None:
        """What input `index` is known to be before anything runs, or None."""
        return self.writer.constant(self.node.inputs[index]) if self.has(index) else None

    def call(self, function: str, *arguments: object) -> str:
        """A call of a function of the `*_script` modules; the arguments are source text."""
        return f"{self.writer.need(function)}({', '.join(str(a) for a in arguments)})"

    def let(self, expression: str, annotation: str = "") -> str:
        """Bind `expression` to a new name and return that."""
        name = self.writer.fresh()
        self.writer.line(f"{name}{f': {annotation}' if annotation else ''} = {expression}")
        return name

    def unpack(self, expression: str, count: int) -> list[str]:
        """Bind the `count` members of a tuple to new names."""
        names = [self.writer.fresh() for _ in range(count)]
        self.writer.line(f"{', '.join(names)} = {expression}")
        return names

    # attributes

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of attribute `name` as onnx_ir has it, or `default`."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.value

    def text(self, name: str, default: str = "") -> str:
        """A string attribute."""
        value = self.attribute(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """An integer attribute that stands for a truth value."""
        return bool(self.attribute(name, int(default)))

    def ints(
        self, name: str, index: int | None = None, default: Sequence[int] | None = None
    ) -> str:
        """A `list[int]` from attribute `name`, else from input `index`, else `default`."""
        known = self.known_ints(name, index, default)
        if known is not None:
            return int_list(known)
        if index is None or not self.has(index):
            self.refuse(f"neither attribute nor input gives `{name}`")
        return self.call("ints", self.x(index))

    def known_ints(
        self, name: str, index: int | None = None, default: Sequence[int] | None = None
    ) -> list[int] | None:
        """The same where it is known before anything runs, else None."""
        value = self.attribute(name) if name else None
        if value is not None:
            return [int(v) for v in value]
        if index is not None and self.has(index):
            array = self.const(index)
            return None if array is None else [int(v) for v in array.reshape(-1)]
        return None if default is None else list(default)

    def int_input(self, index: int, default: str) -> str:
        """An `int` from a one-element input."""
        if not self.has(index):
            return default
        array = self.const(index)
        return f"int({self.x(index)})" if array is None else str(int(array.reshape(-1)[0]))

    # types and shapes

    def dtype(self, index: int) -> str:
        """The ONNX name of the element type of input `index`."""
        return self.dtype_of(self.node.inputs[index])

    def dtype_of(self, value: ir.Value | None) -> str:
        """The ONNX name of the element type of `value`."""
        if value is None or value.dtype is None:
            self.refuse("the element type of an operand is not known")
        return value.dtype.name

    def output_dtype(self, index: int = 0) -> str:
        """The torch source of the element type of an output."""
        return torch_dtype(self, self.dtype_of(self.node.outputs[index]))

    def is_float(self, index: int = 0) -> bool:
        """Whether input `index` is of a floating type."""
        return self.dtype(index) in FLOATING

    def rank(self, index: int = 0) -> int | None:
        """The rank of input `index` where it is known."""
        shape = self.shape(index)
        return None if shape is None else len(shape)

    def known_rank(self, index: int = 0) -> int:
        """The rank of input `index`; refuses where it is not known."""
        rank = self.rank(index)
        return self.refuse(f"the rank of input {index} is not known") if rank is None else rank

    def shape(self, index: int = 0) -> list[int | None] | None:
        """The shape of input `index`, None for what is dynamic."""
        value = self.node.inputs[index]
        if value is None:
            return None
        known = self.writer.constant(value) if value.shape is None else None
        if known is not None:
            return list(known.shape)
        if value.shape is None:
            return None
        return [d if isinstance(d, int) else None for d in value.shape]


def lowers(*op_types: str, domain: str = "") -> Callable[[Lowering], Lowering]:
    """Enter a lowering into the table."""

    def enter(lowering: Lowering) -> Lowering:
        for op_type in op_types:
            _TABLE[domain, op_type] = lowering
        return lowering

    return enter


@cache
def table() -> Mapping[tuple[str, str], Lowering]:
    """All lowerings by (domain, operator type)."""
    for family in FAMILIES:
        import_module(f"{__name__}.{family}")
    return _TABLE


def torch_dtype(op: Op, name: str) -> str:
    """The torch source of the ONNX element type `name`."""
    if name not in DTYPES:
        op.refuse(f"TorchScript has no element type {name.lower()}")
    return DTYPES[name]


def int_list(values: Iterable[int]) -> str:
    """A literal `list[int]`; an empty one needs its type said."""
    texts = [str(max(int(v), -(2**63) + 1)) for v in values]  # -2**63 is not one literal
    return f"[{', '.join(texts)}]" if texts else "torch.jit.annotate(list[int], [])"


def number(value: float) -> str:
    """A literal float that reads back as the same value."""
    value = float(value)
    if math.isfinite(value):
        return repr(value)
    return f'float("{value}")'


def boolean(value: object) -> str:
    """A literal bool."""
    return "True" if value else "False"

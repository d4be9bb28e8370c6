"""An ONNX graph as the source of a TorchScript module.

    def forward(self, images):                     # one parameter for each graph input, in order
        v1 = torch.ops.aten.conv2d(images, self.c0, self.c1, [1, 1], [0, 0], [1, 1], 1)
        ...
        return (v8, v9)                            # always a tuple, in order

Subgraphs are nested blocks of the same function, because an ONNX subgraph sees the names around
it just as a Python block does. Every value of a tensor type is a `Tensor`, a shape included, and
shapes are read when the program runs: dynamic dimensions stay dynamic. Constants that a lowering
uses as numbers become literals; the others become attributes of the module.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.targets import Unsupported
from infc.targets.torchscript_lowering import (
    DTYPES,
    WIDE_UNSIGNED,
    Lowering,
    Op,
    Refused,
    table,
)
from infc.targets.torchscript_lowering.emission_inputs import parameter_names, refused

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

ANY_DTYPE = frozenset(
    {"Cast", "CastLike", "Concat", "Constant", "Expand", "Flatten", "Identity", "If"}
    | {"Loop", "Reshape", "Scan", "Shape", "Size", "Slice", "Split", "Squeeze", "Transpose"}
    | {"Unsqueeze"}
)
"""Operators that only move elements, which torch does for all its types."""

_INDENT = "    "


@dataclass(frozen=True, slots=True)
class Packed:
    """The weights of a quantised linear layer: (N, K) int8, and (N,) float32."""

    rows: ir.TensorProtocol
    scale: ir.TensorProtocol
    bias: ir.TensorProtocol | None


@dataclass(frozen=True, slots=True)
class Program:
    """TorchScript source: `functions` that `forward` calls, and the attributes it reads."""

    functions: str
    forward: str
    constants: Mapping[str, ir.TensorProtocol]
    packed: Mapping[str, Packed] = field(default_factory=dict)


@dataclass(slots=True)
class _Writer:
    """The source so far; see `Writer` in the package."""

    opset: int
    opsets: Mapping[str, int]
    values: dict[ir.Value, str] = field(default_factory=dict)
    constants: dict[str, ir.TensorProtocol] = field(default_factory=dict)
    packs: dict[str, Packed] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    unsupported: list[Unsupported] = field(default_factory=list)
    depth: int = 1
    counter: int = 0

    def line(self, text: str) -> None:
        self.lines.append(_INDENT * self.depth + text)

    def fresh(self, stem: str = "t") -> str:
        self.counter += 1
        return f"{stem}{self.counter}"

    def need(self, function: str) -> str:
        self.functions.add(function)
        return function

    def operand(self, value: ir.Value) -> str:
        if value not in self.values:
            tensor = _constant_tensor(value)
            if tensor is None:
                raise Refused(f"`{value.name}` comes from a node that is not supported")
            if tensor.dtype.name not in DTYPES:
                raise Refused(f"TorchScript has no element type {tensor.dtype.name.lower()}")
            name = f"c{len(self.constants)}"
            self.constants[name] = tensor
            self.values[value] = f"self.{name}"
        return self.values[value]

    def packed(self, rows: ir.Value, scale: ir.Value, bias: ir.Value | None) -> str:
        whole, step = _constant_tensor(rows), _constant_tensor(scale)
        last = None if bias is None else _constant_tensor(bias)
        if whole is None or step is None or (bias is not None and last is None):
            raise Refused("its weights are not constant")
        name = f"p{len(self.packs)}"
        self.packs[name] = Packed(whole, step, last)
        return f"self.{name}"

    def constant(self, value: ir.Value | None) -> np.ndarray[Any, Any] | None:
        tensor = None if value is None else _constant_tensor(value)
        return None if tensor is None or tensor.dtype.name == "STRING" else tensor.numpy()

    def block(self, graph: ir.Graph, operands: Sequence[str]) -> list[str]:
        self.values.update(zip(graph.inputs, operands, strict=True))
        self.depth += 1
        for node in graph:
            _lower(self, node)
        names = [self.values.get(v) or self._late(v) for v in graph.outputs]
        self.depth -= 1
        return names

    def _late(self, value: ir.Value) -> str:
        """An output that no node has read: a constant, or one of a node that was refused."""
        try:
            return self.operand(value)
        except Refused:
            if self.unsupported:
                return "None"
            raise


def emit(model: ir.Model) -> tuple[Program, list[Unsupported]]:
    """Return the program for `model`, and all nodes without a lowering; it is whole without any.

    The types of all values must have been inferred.
    """
    graph = model.graph
    opset = model.opset_imports.get("", 1)
    writer = _Writer(opset, model.opset_imports)
    writer.unsupported.extend(refused(graph))
    parameters = parameter_names([v.name or "" for v in graph.inputs], library())
    writer.depth = 0
    outputs = writer.block(graph, parameters)
    signature = ", ".join(["self", *(f"{name}: Tensor" for name in parameters)])
    result = ", ".join("Tensor" for _ in outputs)
    body = [f"def forward({signature}) -> tuple[{result}]:", *writer.lines]
    forward = "\n".join([*body, f"{_INDENT}return ({', '.join(outputs)},)", ""])
    program = Program(functions(writer.functions), forward, writer.constants, writer.packs)
    return program, writer.unsupported


def _lower(writer: _Writer, node: ir.Node) -> None:
    """Write one node, or note why it cannot be."""
    if (node.domain, node.op_type) == ("", "Constant") and _constant_tensor(node.outputs[0]):
        return
    state = len(writer.lines), writer.depth
    try:
        _write(writer, node, _lowering_of(node))
    except Refused as refusal:
        del writer.lines[state[0] :]
        writer.depth = state[1]
        if not str(refusal).endswith("comes from a node that is not supported"):
            writer.unsupported.append(
                Unsupported(_name(node), node.op_type, node.domain, str(refusal))
            )


def _lowering_of(node: ir.Node) -> Lowering:
    lowering = table().get((node.domain, node.op_type))
    if lowering is None:
        raise Refused("infc has no TorchScript lowering for this operator")
    for value in (*node.inputs, *node.outputs):
        kind = value.dtype.name if value is not None and value.dtype is not None else ""
        if kind and kind not in DTYPES:
            raise Refused(f"TorchScript has no element type {kind.lower()}")
        if kind in WIDE_UNSIGNED and node.op_type not in ANY_DTYPE:
            raise Refused(f"torch has no {node.op_type} for {kind.lower()}")
    return lowering


def _write(writer: _Writer, node: ir.Node, lowering: Lowering) -> None:
    version = writer.opsets.get(node.domain, writer.opset)
    result = lowering(Op(node, version, writer))
    expressions = [result] if isinstance(result, str) else result
    wanted = [i for i, value in enumerate(node.outputs) if value.name]
    if wanted and wanted[-1] >= len(expressions):
        raise Refused(f"output {wanted[-1]} is not supported")
    for value, expression in zip(node.outputs, expressions, strict=False):
        if re.fullmatch(r"[a-z]+\d+|self\.c\d+", expression) or not value.name:
            writer.values[value] = expression
            continue
        name = writer.fresh("v")
        writer.line(f"{name} = {expression}")
        writer.values[value] = name


def _name(node: ir.Node) -> str:
    """The node's name, else that of its first output, which is unique."""
    return node.name or next((str(v.name) for v in node.outputs if v.name), node.op_type)


def _constant_tensor(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor that `value` is an initializer or a Constant node of."""
    if value.const_value is not None and (value.is_initializer() or value.producer() is not None):
        return value.const_value
    node = value.producer()
    if node is None or node.op_type != "Constant" or node.domain != "":
        return None
    return _constant_of(node)


def _constant_of(node: ir.Node) -> ir.TensorProtocol | None:
    """Constant-1: `value`; -12 adds the number attributes; strings and sparse ones are refused."""
    import numpy as np
    import onnx_ir as ir

    tensor = node.attributes.get("value")
    if tensor is not None:
        return tensor.as_tensor()
    for name, dtype in (("value_float", np.float32), ("value_int", np.int64)):
        for key in (name, f"{name}s"):
            if key in node.attributes:
                return ir.tensor(np.array(node.attributes[key].value, dtype))
    return None


@cache
def library() -> Mapping[str, ast.FunctionDef]:
    """All functions of the `*_script` modules, which are read, never imported."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*_script.py")):
        for item in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(item, ast.FunctionDef):
                found[item.name] = item
    return found


def functions(names: set[str]) -> str:
    """The source of the functions `names` and of those they call, without docstrings."""
    have = library()
    todo, taken = sorted(names), set()
    while todo:
        name = todo.pop()
        if name in taken:
            continue
        taken.add(name)
        used = {n.id for n in ast.walk(have[name]) if isinstance(n, ast.Name)}
        todo.extend(sorted((used & have.keys()) - taken))
    return "\n".join(_source(have[name]) for name in have if name in taken)


def _source(function: ast.FunctionDef) -> str:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    bare = ast.FunctionDef(
        name=function.name,
        args=function.args,
        body=body,
        decorator_list=[],
        returns=function.returns,
    )
    return ast.unparse(ast.fix_missing_locations(bare)) + "\n"

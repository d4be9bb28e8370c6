"""Types and shapes of values that do not declare them, one node at a time.

ONNX's own inference functions (`OpSchema`, C++) are called for exactly those nodes that have an
output of unknown type or shape, with the types of the inputs and the small constants among them:
no model is serialised, no weight is touched, and a file that comes with its shapes costs nothing
(the whole-model call took 127 ms on a ViT whose shapes were all there). A dimension is known when
it is a number or a symbol that some graph input has. Inference only ever adds: a number replaces
a symbol or nothing, a symbol replaces nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import onnx
import onnx_ir as ir

from infc.passes.rewriting import bodies, const_tensor, dims, graphs, opset

DATA_BYTES = 1 << 12
"""Constants up to this size are shown to the inference functions: shapes, axes, pads."""

Signature = tuple[Any, ...]


class InferShapes(ir.passes.InPlacePass):
    """Fill in missing types and shapes. An instance remembers what it has tried in vain."""

    def __init__(self) -> None:
        super().__init__()
        self._tried: dict[ir.Node, Signature] = {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit the nodes in order; bodies are given the types of outer values they read."""
        symbols = input_symbols(model)
        modified = False
        for graph in graphs(model):
            for value in graph.initializers.values():
                _declare_initializer(value)
            for node in graph:
                modified |= self.infer(node, symbols, model)
        return ir.passes.PassResult(model, modified=modified)

    def infer(self, node: ir.Node, symbols: set[str], model: ir.Model) -> bool:
        """Fill in what `node` gives, where that is not known; whether anything was new."""
        if all(_is_known(v, symbols) for v in node.outputs):
            return False
        modified = self._infer(node, opset(model), model)
        return _name_rest(node, symbols) or modified

    def _infer(self, node: ir.Node, version: int, model: ir.Model) -> bool:
        if node.domain or not onnx.defs.has(node.op_type, ""):
            return False
        inputs = [v for v in (*node.inputs, *_outer(node)) if v is not None and v.name]
        signature = tuple((id(v), v.type, dims(v), id(v.const_value)) for v in inputs)
        if self._tried.get(node) == signature:
            return False
        self._tried[node] = signature
        types = {str(v.name): _type_proto(v) for v in inputs}
        if any(t is None for t in types.values()):
            return False
        data = {str(v.name): t for v in inputs if (t := _data(v)) is not None}
        try:
            schema = onnx.defs.get_schema(node.op_type, version, "")
            found = onnx.shape_inference.infer_node_outputs(
                schema,
                ir.serde.serialize_node(node),
                types,
                data,
                opset_imports=[
                    onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()
                ],
                ir_version=model.ir_version,
            )
        except Exception:
            # The schema's complaint about the node; the checker and the back ends say it better.
            return False
        modified = False
        for value in node.outputs:
            if value.name in found:
                modified |= _merge(value, found[value.name])
        return modified


def input_symbols(model: ir.Model) -> set[str]:
    """The symbols that the graph inputs have dimensions named by."""
    return {
        d.value
        for v in model.graph.inputs
        for d in v.shape or ()
        if isinstance(d, ir.SymbolicDim) and d.value is not None
    }


def _name_rest(node: ir.Node, symbols: set[str]) -> bool:
    """Name the one unknown dimension a Reshape gives, where its input has one symbol too.

    The elements stay as many: with equal products of the numbers, the two are the same. A graph
    output keeps the name that its author gave the dimension.
    """
    if node.op_type != "Reshape" or node.domain or node.outputs[0].is_graph_output():
        return False
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    if before is None or after is None:
        return False
    named = [d for d in before if not isinstance(d, int)]
    unknown = [i for i, d in enumerate(after) if not isinstance(d, int)]
    if len(named) != 1 or len(unknown) != 1 or named[0] not in symbols:
        return False
    if after[unknown[0]] in symbols or _product(before) != _product(after):
        return False
    merged = [named[0] if i == unknown[0] else d for i, d in enumerate(after)]
    node.outputs[0].shape = ir.Shape(merged)
    return True


def _product(shape: tuple[int | str | None, ...]) -> int:
    return math.prod(d for d in shape if isinstance(d, int))


def _declare_initializer(value: ir.Value) -> None:
    tensor = value.const_value
    if tensor is not None and value.shape is None:
        value.shape = ir.Shape(tensor.shape.numpy())
    if tensor is not None and value.type is None:
        value.type = ir.TensorType(tensor.dtype)


def _is_known(value: ir.Value, symbols: set[str]) -> bool:
    if not value.name:
        return True
    if value.type is None or value.shape is None:
        return value.type is not None and not isinstance(value.type, ir.TensorType)
    return all(dim >= 0 if isinstance(dim, int) else dim.value in symbols for dim in value.shape)


def _outer(node: ir.Node) -> Iterator[ir.Value]:
    """Values of outer graphs that the bodies of `node` read."""
    pending = bodies(node)
    inside = set()
    while pending:
        body = pending.pop()
        inside.add(body)
        for inner in body:
            for value in inner.inputs:
                if value is not None and value.graph not in inside:
                    yield value
            pending.extend(bodies(inner))


def _type_proto(value: ir.Value) -> onnx.TypeProto | None:
    if value.type is None:
        return None
    proto = onnx.TypeProto()
    ir.serde.serialize_type_into(proto, value.type)
    if value.shape is not None and isinstance(value.type, ir.TensorType):
        shape = proto.tensor_type.shape
        shape.SetInParent()
        for dim in dims(value) or ():
            entry = shape.dim.add()
            if isinstance(dim, int):
                entry.dim_value = dim
            elif isinstance(dim, str):
                entry.dim_param = dim
    return proto


def _data(value: ir.Value) -> onnx.TensorProto | None:
    tensor = const_tensor(value)
    if tensor is None or tensor.dtype == ir.DataType.STRING or tensor.nbytes > DATA_BYTES:
        return None
    return ir.serde.serialize_tensor(tensor)


def _merge(value: ir.Value, proto: onnx.TypeProto) -> bool:
    """Add to `value` what is new in `proto`; whether anything was."""
    modified = False
    if value.type is None:
        value.type = ir.serde.deserialize_type_proto_for_type(proto)
        modified = value.type is not None
    if not proto.HasField("tensor_type") or not proto.tensor_type.HasField("shape"):
        return modified
    new: list[int | str | None] = [
        d.dim_value if d.HasField("dim_value") else (d.dim_param or None)
        for d in proto.tensor_type.shape.dim
    ]
    old = dims(value)
    if old is None:
        value.shape = ir.Shape(new)
        return True
    if len(old) != len(new):
        return modified
    merged = [b if _is_better(a, b) else a for a, b in zip(old, new, strict=True)]
    if merged == list(old):
        return modified
    value.shape = ir.Shape(merged)
    return True


def _is_better(old: int | str | None, new: int | str | None) -> bool:
    if isinstance(new, int):
        return new > 0 and not isinstance(old, int)
    return new is not None and old is None

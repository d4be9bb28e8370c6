"""Graph inputs and outputs in the type that the graph computes in, without what converts them.

    x: float32 -> Cast(float16) -> op            ->   x: float16 -> op
    x: float32 -> QuantizeLinear(s, z) -> op     ->   x: uint8 -> op
    op -> DequantizeLinear(s, z) -> y: float32   ->   op -> y: uint8

At float16 and bfloat16 a Cast is put in where the graph itself computes in float32, so that the
caller always hands over 16 bits; integers only where the graph has nothing but integers to take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from infc.passes.rewriting import Edit, attribute, const_array, is_op
from infc.quantization import Range

FLOATS = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
LARGEST = {"float16": 65504.0, "bfloat16": 3.38e38}


@dataclass(frozen=True, slots=True)
class Boundary:
    """What became of the float32 inputs and outputs.

    `types`: the element type of those that have another one now, as numpy calls it; `quantized`:
    (scale, zero point) of the integers among them; `kept`: why the others stay float32.
    """

    types: Mapping[str, str]
    quantized: Mapping[str, tuple[float, int]]
    kept: Mapping[str, str]


def to_floats(model: ir.Model, to: str, ranges: Mapping[str, Range]) -> Boundary:
    """Give the float32 inputs and outputs of `model`, in place, the type `to`.

    Those whose values are known (`ranges`) to go beyond it stay.
    """
    types, kept, edit = {}, {}, Edit(model)
    for value in (*_inputs(model), *_outputs(model)):
        name = str(value.name)
        found = ranges.get(name)
        peak = max(-found.low, found.high) if found else 0.0
        if not peak <= LARGEST[to]:
            kept[name] = f"it reaches {peak:.3g}"
        elif value.is_graph_input():
            _narrow_input(model, edit, value, FLOATS[to])
            types[name] = to
        else:
            _narrow_output(model, edit, value, FLOATS[to])
            types[name] = to
    return Boundary(types, {}, kept)


def to_integers(model: ir.Model) -> Boundary:
    """Take Q off the inputs of `model` and DQ off its outputs, in place, where only they read."""
    types: dict[str, str] = {}
    quantized: dict[str, tuple[float, int]] = {}
    kept = {}
    edit = Edit(model)
    for value in _inputs(model):
        nodes = [node for node, index in value.uses() if index == 0]
        found = [_map_of(n) for n in nodes if is_op(n, "QuantizeLinear")]
        name = str(value.name)
        if not found or len(found) != len(value.uses()) or len(set(found)) > 1 or not found[0]:
            kept[name] = "it is also read in float"
            continue
        value.type = ir.TensorType(_integer_of(nodes[0]))
        for node in nodes:
            edit.forward(node.outputs[0], value)
        types[name], quantized[name] = value.type.dtype.numpy().name, found[0]
    for value in _outputs(model):
        last, name = _producer(value), str(value.name)
        source = last.inputs[0] if is_op(last, "DequantizeLinear") else None
        affine = _map_of(last) if source is not None else None
        if source is None or affine is None or not _is_inner(source):
            kept[name] = "it is computed in float"
            continue
        source.type, source.shape = ir.TensorType(_integer_of(last)), value.shape
        types[name], quantized[name] = source.type.dtype.numpy().name, affine
        _hand_over(model, edit, value, source)
    return Boundary(types, quantized, kept)


def _inputs(model: ir.Model) -> list[ir.Value]:
    weights = model.graph.initializers
    inputs = [v for v in model.graph.inputs if v.name not in weights]
    return [v for v in inputs if v.dtype == ir.DataType.FLOAT]


def _outputs(model: ir.Model) -> list[ir.Value]:
    """Those that a node gives, and each once."""
    found = dict.fromkeys(v for v in model.graph.outputs if v.producer() is not None)
    return [v for v in found if v.dtype == ir.DataType.FLOAT]


def _is_inner(value: ir.Value) -> bool:
    return value.producer() is not None and not value.is_graph_output()


def _map_of(node: ir.Node) -> tuple[float, int] | None:
    """(scale, zero point) of a Q or DQ for the whole tensor, None for one for each channel."""
    scale, zero = const_array(node.inputs[1]), 0
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        array = const_array(node.inputs[2])
        if array is None or array.size != 1:
            return None
        zero = int(array.reshape(-1)[0])
    if scale is None or scale.size != 1:
        return None
    return float(scale.reshape(-1)[0]), zero


def _integer_of(node: ir.Node) -> ir.DataType:
    """The integers of a Q or DQ: those of its zero point, uint8 without one."""
    zero = const_array(node.inputs[2]) if len(node.inputs) > 2 else None
    return ir.DataType.UINT8 if zero is None else ir.DataType.from_numpy(zero.dtype)


def _narrow_input(model: ir.Model, edit: Edit, value: ir.Value, to: ir.DataType) -> None:
    users = list(value.uses())
    value.type = ir.TensorType(to)
    wide: ir.Value | None = None
    for node, index in users:
        if is_op(node, "Cast") and attribute(node, "to") == to:
            edit.forward(node.outputs[0], value)
            continue
        if wide is None:
            wide = _cast(edit, value, ir.DataType.FLOAT)
            model.graph.insert_before(model.graph[0], _producer(wide))
        node.replace_input_with(index, wide)


def _narrow_output(model: ir.Model, edit: Edit, value: ir.Value, to: ir.DataType) -> None:
    node = _producer(value)
    source = node.inputs[0] if is_op(node, "Cast") else None
    if source is None or source.dtype != to or not _is_inner(source):
        source = _cast(edit, value, to)
        model.graph.insert_after(node, _producer(source))
    _hand_over(model, edit, value, source)


def _cast(edit: Edit, value: ir.Value, to: ir.DataType) -> ir.Value:
    name = edit.fresh(f"{value.name}_{to.name.lower()}")
    result = ir.Value(name=name, type=ir.TensorType(to), shape=value.shape)
    title = edit.fresh_node(f"{name}/cast")
    ir.Node("", "Cast", [value], [ir.AttrInt64("to", to)], outputs=[result], name=title)
    return result


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    if node is None:
        raise ValueError(f"no node gives `{value.name}`")
    return node


def _hand_over(model: ir.Model, edit: Edit, value: ir.Value, source: ir.Value) -> None:
    """Let `source` be the output that `value` was, under its name."""
    name = value.name
    value.name = edit.fresh(f"{name}_float32")
    source.name = name
    for i, output in enumerate(model.graph.outputs):
        if output is value:
            model.graph.outputs[i] = source
    node = _producer(value)
    if not value.uses() and len(node.outputs) == 1:
        model.graph.remove(node, safe=True)

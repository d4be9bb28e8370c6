"""Q and DQ moved so that what lies in memory between two kernels is bytes.

Q(DQ(x))  of one map          ->  x
move(DQ(x))                   ->  DQ(move(x))          move: Reshape, MaxPool, Concat of one map ...
Q(move(x)), read by it alone  ->  move(Q(x))
DQ(x), read by several        ->  a DQ for each, which their kernels compute in registers
Q of the type that the instructions do not take  ->  Q of the other, zero point moved by 128
Q(Clip(x)) where Q cuts off no less              ->  Q(x)
Q(Relu(Cast(i) * m + b), s)   ->  Q(Relu(Cast(i) * (m / s) + b / s), 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from infc.passes.activations import clip_bounds
from infc.passes.rewriting import (
    Edit,
    const_array,
    const_tensor,
    dims,
    dtype_of,
    is_op,
    kept,
    producer,
    sole_consumer,
)
from infc.targets.tvm_lowering.channels_last import DOMAIN
from infc.targets.tvm_lowering.quantized_values import TYPES, Affine, affine_of, moved, real_of

MOVERS = frozenset(
    """
    Concat DepthToSpace Expand Flatten Gather MaxPool Reshape Slice SpaceToDepth Split Squeeze
    Transpose Unsqueeze
    """.split()  # noqa: SIM905
)
"""Of floats or of bytes the same: they move values, or pick the largest."""
SCALED = 4
"""The number of operands, at least, of IntegerConv and IntegerMatMul that give float32."""
CUT = 1e-3
"""Steps of Q that a Clip may cut off more than Q does, and be dropped."""


def settle(model: ir.Model, activation: str) -> None:
    """Everything of the above but the last rule; `activation` is the type of bytes."""
    edit = Edit(model)
    for node in list(model.graph):
        if is_op(node, "QuantizeLinear"):
            _retype(node, activation, edit)
    for node in list(model.graph):
        if is_op(node, *MOVERS):
            _sink(node, edit)
    for node in reversed(list(model.graph)):
        if is_op(node, "QuantizeLinear") and node.graph is not None:
            _lift(node, edit)
    for node in list(model.graph):
        if is_op(node, "QuantizeLinear"):
            _cancel(node, edit)


def split_readers(model: ir.Model) -> None:
    """A DequantizeLinear for each reader of a dequantised activation."""
    edit = Edit(model)
    for node in list(model.graph):
        if real_of(node.outputs[0]) is None:
            continue
        uses = [use for use in node.outputs[0].uses() if use.node.graph is node.graph]
        for use in uses[1:]:
            copy = _dequantized(node, use.node, edit)
            use.node.replace_input_with(use.idx, copy)


def _dequantized(node: ir.Node, reader: ir.Node, edit: Edit) -> ir.Value:
    value = node.outputs[0]
    return edit.emit(
        "DequantizeLinear",
        list(node.inputs),
        kept(node),
        at=reader,
        hint=f"{value.name}_again",
        dtype=dtype_of(value),
        shape=dims(value),
    )


def _parameters(found: Affine, edit: Edit, at: ir.Node, hint: str) -> list[ir.Value]:
    return [
        edit.constant(np.asarray(found.scale, np.float32), f"{hint}_scale", at),
        edit.constant(np.asarray(found.zero, found.dtype), f"{hint}_zero_point", at),
    ]


def _retype(node: ir.Node, activation: str, edit: Edit) -> None:
    """Let `node` give bytes of the type `activation`, and its readers read those."""
    found, y = affine_of(node), node.outputs[0]
    if found is None or found.dtype == activation or y.is_graph_output():
        return
    if any(use.node.graph is not node.graph for use in y.uses()):
        return
    changed = found.as_type(activation)
    name = y.name or "value"
    real = dtype_of(node.inputs[0])
    made = edit.emit(
        "QuantizeLinear",
        [node.inputs[0], *_parameters(changed, edit, node, name)],
        at=node,
        hint=f"{name}_{activation}",
        dtype=TYPES[activation],
        shape=dims(y),
    )
    for reader in dict.fromkeys(use.node for use in y.uses()):
        theirs = affine_of(reader)
        if is_op(reader, "DequantizeLinear") and theirs is not None and reader.inputs[0] is y:
            own = theirs.as_type(activation)
            edit.replace(
                reader.outputs[0],
                "DequantizeLinear",
                [made, *_parameters(own, edit, reader, reader.outputs[0].name or name)],
            )
            continue
        back = moved(made, found.dtype, edit, reader)
        for i, value in enumerate(reader.inputs):
            if value is y:
                reader.replace_input_with(i, back)
    edit.erase(node)
    assert real is None or made.dtype is not None


def _data(node: ir.Node) -> Sequence[ir.Value | None]:
    """What a mover moves."""
    return node.inputs if node.op_type == "Concat" else node.inputs[:1]


def _moves_bytes(node: ir.Node) -> bool:
    if node.op_type == "MaxPool":
        return len(node.outputs) == 1 or not node.outputs[1].uses()
    return True


def _sink(node: ir.Node, edit: Edit) -> None:
    """Let `node` move bytes, and dequantise what it gives."""
    sources = [real_of(value) for value in _data(node)]
    found = [source for source in sources if source is not None]
    if not found or len(found) != len(sources) or not _moves_bytes(node):
        return
    maps = {source[1] for source in found}
    if len(maps) != 1:
        return
    (shared,) = maps
    inputs = [integers for integers, _ in found]
    rest = [] if node.op_type == "Concat" else list(node.inputs[1:])
    outputs = node.outputs[:1] if node.op_type == "MaxPool" else node.outputs
    bytes_ = []
    for y in outputs:
        value = ir.Value(
            name=edit.fresh(f"{y.name}_bytes"), type=ir.TensorType(TYPES[shared.dtype])
        )
        value.shape = y.shape
        bytes_.append(value)
    assert node.graph is not None
    made = ir.Node(
        "",
        node.op_type,
        [*inputs, *rest],
        list(kept(node).values()),
        outputs=bytes_,
        name=edit.fresh_node(f"{node.name}/bytes") if node.name else "",
    )
    node.graph.insert_before(node, made)
    for y, value in zip(outputs, bytes_, strict=True):
        parameters = _parameters(shared, edit, node, y.name or "value")
        _hand_over(y, value, parameters, edit, node)


def _hand_over(
    y: ir.Value, integers: ir.Value, parameters: list[ir.Value], edit: Edit, node: ir.Node
) -> None:
    """Let a DequantizeLinear of `integers` stand for `y`."""
    name, y.name = y.name, edit.fresh(f"{y.name}_moved")
    real = ir.Value(name=name, type=y.type, shape=y.shape)
    title = edit.fresh_node(f"{node.name}/DequantizeLinear") if node.name else ""
    made = ir.Node("", "DequantizeLinear", [integers, *parameters], outputs=[real], name=title)
    assert node.graph is not None
    node.graph.insert_after(node, made)
    y.replace_all_uses_with(real, replace_graph_outputs=True)
    edit.erase(node)


def _lift(node: ir.Node, edit: Edit) -> None:
    """Quantise before what only moves."""
    found, value = affine_of(node), node.inputs[0]
    while found is not None and value is not None:
        mover = producer(value, *MOVERS)
        if mover is None or len(mover.outputs) != 1 or sole_consumer(value) is not node:
            return
        if any(v is None or const_tensor(v) is not None for v in _data(mover)):
            return
        if mover.op_type == "MaxPool" and found.scale <= 0:
            return
        inputs = []
        for source in _data(mover):
            assert source is not None
            inputs.append(
                edit.emit(
                    "QuantizeLinear",
                    [source, *node.inputs[1:]],
                    kept(node),
                    at=mover,
                    hint=f"{source.name}_bytes",
                    dtype=TYPES[found.dtype],
                    shape=dims(source),
                )
            )
        rest = [] if mover.op_type == "Concat" else list(mover.inputs[1:])
        edit.replace(node.outputs[0], mover.op_type, [*inputs, *rest], kept(mover))
        for made in inputs:
            source_node = made.producer()
            if source_node is not None:
                _lift(source_node, edit)
        return


def _cancel(node: ir.Node, edit: Edit) -> None:
    """Q(DQ(x)) of one map is x."""
    source = real_of(node.inputs[0])
    if source is not None and source[1] == affine_of(node):
        edit.forward(node.outputs[0], source[0])


def fold_scales(model: ir.Model) -> None:
    """What Q does by itself, and what can be divided by its scale beforehand."""
    edit = Edit(model)
    for node in list(model.graph):
        found = affine_of(node) if is_op(node, "QuantizeLinear") else None
        if found is not None:
            _drop_clips(node, found, edit)
            _divide(node, found, edit)
    for node in list(model.graph):
        if is_op(node, "QuantizeLinear") and is_op(_source(node), "Transpose"):
            _lift(node, edit)


def _source(node: ir.Node) -> ir.Node | None:
    value = node.inputs[0]
    return value.producer() if value is not None else None


def _drop_clips(node: ir.Node, found: Affine, edit: Edit) -> None:
    """Leave out a Relu or Clip that cuts off no more than Q does."""
    least, greatest = (0, 255) if found.dtype == "uint8" else (-128, 127)
    while True:
        value = node.inputs[0]
        clip = producer(value, "Relu", "Clip")
        if clip is None or value is None or sole_consumer(value) is not node:
            return
        bounds = (0.0, np.inf) if clip.op_type == "Relu" else clip_bounds(clip)
        if bounds is None or bounds[0] > bounds[1]:
            return
        low = bounds[0] / found.scale + found.zero
        high = bounds[1] / found.scale + found.zero
        if low > least + CUT or high < greatest - CUT:
            return
        node.replace_input_with(0, clip.inputs[0])
        edit.erase(clip)


def _divide(node: ir.Node, found: Affine, edit: Edit) -> None:
    """Put the scale of Q into the factors of what it reads."""
    scaled = _factors(node.inputs[0], node)
    if not scaled or all(is_op(n, "DequantizeLinear") for n in scaled):
        return
    for source in scaled:
        for index in (1,) if is_op(source, "DequantizeLinear") else (3, 4):
            value = source.inputs[index]
            array = const_array(value)
            if value is None or array is None:
                return
            steps = (array.astype(np.float64) / found.scale).astype(np.float32)
            source.replace_input_with(index, edit.constant(steps, f"{value.name}_steps", source))
    one = _parameters(replace(found, scale=1.0), edit, node, node.outputs[0].name or "bytes")
    edit.replace(node.outputs[0], "QuantizeLinear", [node.inputs[0], *one])


def _factors(value: ir.Value | None, reader: ir.Node) -> list[ir.Node] | None:
    """The nodes whose factors `value` is proportional to; None where it is to none.

    Only `reader` reads it.
    """
    node = value.producer() if value is not None else None
    if value is None or node is None or sole_consumer(value) is not reader:
        return None
    if node.domain == DOMAIN:
        return [node] if len(node.inputs) > SCALED else None
    if is_op(node, "DequantizeLinear"):
        return [node] if real_of(value) is not None else None
    if is_op(node, "Relu", "LeakyRelu", "Transpose"):
        return _factors(node.inputs[0], node)
    if not is_op(node, "Add"):
        return None
    found: list[ir.Node] = []
    for operand in node.inputs:
        part = _factors(operand, node)
        if part is None:
            return None
        found += part
    return found

"""Q and DQ moved so that what lies in memory between two kernels is bytes.

Q(DQ(x))  of one map          ->  x
move(DQ(x))                   ->  DQ(move(x))          move: Reshape, MaxPool, Concat of one map ...
Q(move(x)), read by it alone  ->  move(Q(x))
DQ(x), read by several        ->  a DQ for each, which their kernels compute in registers
Q of the type that the instructions do not take  ->  Q of the other, zero point moved by 128
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    Edit,
    const_tensor,
    dims,
    dtype_of,
    is_op,
    kept,
    producer,
    sole_consumer,
)
from infc.targets.tvm_lowering.quantized_values import TYPES, Affine, affine_of, moved, real_of

MOVERS = frozenset(
    """
    Concat DepthToSpace Expand Flatten Gather MaxPool Reshape Slice SpaceToDepth Split Squeeze
    Transpose Unsqueeze
    """.split()  # noqa: SIM905
)
"""Of floats or of bytes the same: they move values, or pick the largest."""


def settle(model: ir.Model, activation: str) -> None:
    """All of the above but a DQ for each reader; `activation` is the type of bytes."""
    edit = Edit(model)
    for node in list(model.graph):
        if is_op(node, "QuantizeLinear"):
            _retype(node, activation, edit)
    for node in list(model.graph):
        if is_op(node, *MOVERS):
            _sink(node, edit)
    for node in reversed(list(model.graph)):
        if is_op(node, "QuantizeLinear") and node.graph is not None:
            lift(node, edit)
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


def parameters(found: Affine, edit: Edit, at: ir.Node, hint: str) -> list[ir.Value]:
    """The scale and the zero point, as initializers."""
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
        [node.inputs[0], *parameters(changed, edit, node, name)],
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
                [made, *parameters(own, edit, reader, reader.outputs[0].name or name)],
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
        own = parameters(shared, edit, node, y.name or "value")
        _hand_over(y, value, own, edit, node)


def _hand_over(
    y: ir.Value, integers: ir.Value, affine: list[ir.Value], edit: Edit, node: ir.Node
) -> None:
    """Let a DequantizeLinear of `integers` stand for `y`."""
    name, y.name = y.name, edit.fresh(f"{y.name}_moved")
    real = ir.Value(name=name, type=y.type, shape=y.shape)
    title = edit.fresh_node(f"{node.name}/DequantizeLinear") if node.name else ""
    made = ir.Node("", "DequantizeLinear", [integers, *affine], outputs=[real], name=title)
    assert node.graph is not None
    node.graph.insert_after(node, made)
    y.replace_all_uses_with(real, replace_graph_outputs=True)
    edit.erase(node)


def lift(node: ir.Node, edit: Edit) -> None:
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
                lift(source_node, edit)
        return


def _cancel(node: ir.Node, edit: Edit) -> None:
    """Q(DQ(x)) of one map is x."""
    source = real_of(node.inputs[0])
    if source is not None and source[1] == affine_of(node):
        edit.forward(node.outputs[0], source[0])

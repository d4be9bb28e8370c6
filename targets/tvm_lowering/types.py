"""bfloat16 is computed in float32, and rounded where a value leaves the graph or is cast.

    y = f(x: bfloat16)   ->   y = Cast(f(Cast(x, float32)), bfloat16)

with pairs of casts between one operator and the next taken out: TVM's own way, bfloat16 stored as
integers, fails over kernels with vectors. Operators that only move elements keep the type.
"""

from __future__ import annotations

import onnx_ir as ir

from infc.passes.rewriting import Edit, const_array, dtype_of, graphs

MOVES = frozenset(
    """
    Cast Concat Constant ConstantOfShape Expand Flatten Gather GatherElements GatherND Identity
    Pad Reshape Slice Split Squeeze Tile Transpose Unsqueeze
    """.split()  # noqa: SIM905
)
NARROW, WIDE = ir.DataType.BFLOAT16, ir.DataType.FLOAT


def widen_bfloat16(model: ir.Model) -> bool:
    """Write the casts; whether there was anything in bfloat16."""
    edit = Edit(model)
    changed = False
    for graph in graphs(model):
        for node in list(graph):
            if node.op_type not in MOVES and not node.domain:
                changed |= _widen(node, edit)
    for graph in graphs(model):
        for node in list(graph):
            _cancel(node, edit)
    return changed


def _widen(node: ir.Node, edit: Edit) -> bool:
    touched = False
    for index, value in enumerate(node.inputs):
        if value is None or dtype_of(value) != NARROW:
            continue
        node.replace_input_with(index, _widened(value, node, edit))
        touched = True
    for value in node.outputs:
        if value.dtype != NARROW or not (value.uses() or value.is_graph_output()):
            continue
        touched = True
        _narrow(node, value, edit)
    return touched


def _widened(value: ir.Value, node: ir.Node, edit: Edit) -> ir.Value:
    array = const_array(value)
    if array is not None:
        return edit.constant(array.astype(WIDE.numpy()), f"{value.name}_wide", node)
    cast = edit.emit("Cast", [value], {"to": int(WIDE)}, at=node, dtype=WIDE)
    cast.shape = value.shape
    return cast


def _narrow(node: ir.Node, value: ir.Value, edit: Edit) -> None:
    """Let `node` give float32, and a Cast after it what it gave."""
    cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(NARROW))], num_outputs=1)
    assert node.graph is not None
    node.graph.insert_after(node, cast)
    (result,) = cast.outputs
    name, value.name = value.name, edit.fresh(f"{value.name}_wide")
    value.replace_all_uses_with(result, replace_graph_outputs=True)
    cast.replace_input_with(0, value)
    result.name, result.type, result.shape = name, ir.TensorType(NARROW), value.shape
    value.type = ir.TensorType(WIDE)


def _cancel(node: ir.Node, edit: Edit) -> None:
    """Cast(Cast(x: float32, bfloat16), float32) is x, unrounded."""
    if node.op_type != "Cast" or node.domain or node.graph is None:
        return
    value = node.inputs[0]
    before = value.producer() if value is not None else None
    if before is None or before.op_type != "Cast" or dtype_of(value) != NARROW:
        return
    source = before.inputs[0]
    if source is not None and dtype_of(source) == WIDE == node.outputs[0].dtype:
        edit.forward(node.outputs[0], source)

"""Tensors without elements are constants: nothing computes them, whatever their operands are.

    y = f(x, e), y of no element      ->   y = the empty constant of its type
    Concat(x, e, z), e of no element  ->   Concat(x, z)

What is computed of empty constants alone is then folded, as every constant is.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import Edit, const_tensor, dtype_of, graphs, is_op
from infc.targets.mindspore_lite_lowering.formula import static_shape


def fix_empties(model: ir.Model) -> bool:
    """Put constants in the place of tensors without elements; whether there were any."""
    edit = Edit(model)
    changed = False
    for graph in graphs(model):
        for node in list(graph):
            if node.graph is None:
                continue
            for index, value in enumerate(node.inputs):
                if value is not None and _is_empty(value) and const_tensor(value) is None:
                    node.replace_input_with(index, _constant(value, edit, node))
                    changed = True
            changed |= _without_empty_parts(node) or _extreme_of_nothing(node, edit)
            changed |= _fixed_outputs(node, edit)
    return changed


def _is_empty(value: ir.Value) -> bool:
    shape = static_shape(value)
    return shape is not None and prod(shape) == 0 and dtype_of(value) is not None


def _constant(value: ir.Value, edit: Edit, at: ir.Node) -> ir.Value:
    dtype = dtype_of(value)
    assert dtype is not None
    shape = static_shape(value)
    assert shape is not None
    return edit.constant(ir.tensor(np.zeros(shape, dtype.numpy()), dtype=dtype), "empty", at)


def _without_empty_parts(node: ir.Node) -> bool:
    if not is_op(node, "Concat"):
        return False
    kept = [v for v in node.inputs if v is not None and not _is_empty(v)]
    if not kept or len(kept) == len(node.inputs):
        return False
    for index, value in enumerate(kept):
        node.replace_input_with(index, value)
    node.resize_inputs(len(kept))
    return True


def _extreme_of_nothing(node: ir.Node, edit: Edit) -> bool:
    """The greatest of no element is the least there is, and the other way round."""
    value, output = node.inputs[0] if node.inputs else None, node.outputs[0]
    shape, dtype = static_shape(output), output.dtype
    if not is_op(node, "ReduceMax", "ReduceMin") or value is None or not _is_empty(value):
        return False
    if shape is None or dtype is None or prod(shape) == 0:
        return False
    greatest = node.op_type == "ReduceMax"
    kind = dtype.numpy()
    if dtype == ir.DataType.BOOL:
        number: float | int = not greatest
    elif dtype.is_floating_point():
        number = float("-inf") if greatest else float("inf")
    else:
        number = np.iinfo(kind).min if greatest else np.iinfo(kind).max
    filled = edit.constant(ir.tensor(np.full(shape, number, kind), dtype=dtype), "extreme", node)
    return edit.forward(output, edit.emit("Identity", [filled], at=node))


def _fixed_outputs(node: ir.Node, edit: Edit) -> bool:
    """Nodes all of whose outputs are empty are replaced; `Identity` makes graph outputs."""
    read = [v for v in node.outputs if v.uses() or v.is_graph_output()]
    if not read or is_op(node, "Identity", "Constant") or not all(_is_empty(v) for v in read):
        return False
    if len(read) != 1:
        return False
    (value,) = read
    return edit.forward(value, edit.emit("Identity", [_constant(value, edit, node)], at=node))

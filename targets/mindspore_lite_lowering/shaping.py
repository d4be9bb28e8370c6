"""Operators that only lay out anew.

| operator | what MindSpore Lite 2.0.0 does with it |
|---|---|
| Flatten by the last axis or of booleans; Squeeze of what it has to count | refused |
| Transpose that changes nothing, in a graph of nothing else | no kernel left |
| Split without sizes that an input gives | wrong |
| SpaceToDepth with mode CRD | ignores the mode |
| Concat, Gather and Split along a negative axis | refused |
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    Edit,
    Rule,
    attribute,
    const_array,
    dtype_of,
    given,
    int_list,
    is_given,
    rank,
    static_dims,
)
from infc.targets.mindspore_lite_lowering.formula import Formula, required, set_attributes


def _flatten(node: ir.Node, edit: Edit) -> bool:
    x = required(node, 0)
    depth, shape = rank(x), static_dims(x)
    if depth is None:
        return False
    axis = attribute(node, "axis", 1)
    axis += depth if axis < 0 else 0
    f = Formula(node, edit)
    if shape is not None:
        return f.finish(f.reshape(x, (prod(shape[:axis]), prod(shape[axis:]))))
    if axis == 1:
        return f.finish(f.reshape(x, (0, -1)))
    if axis == 0:
        return f.finish(f.reshape(x, (1, -1)))
    return False


def _reshape(node: ir.Node, edit: Edit) -> bool:
    """A constant target where the output's shape is known: 0 and `allowzero` are settled."""
    shape, target = static_dims(node.outputs[0]), const_array(given(node, 1))
    if shape is None or 0 in shape:
        return False
    if shape == ():
        f = Formula(node, edit)
        return f.dtype != ir.DataType.BOOL and f.finish(f.reshape(required(node, 0), ()))
    changed = set_attributes(node, allowzero=None)
    wanted = np.array(shape, np.int64)
    if target is not None and np.array_equal(target, wanted):
        return changed
    node.replace_input_with(1, Formula(node, edit).ints(shape))
    return True


def _squeeze(node: ir.Node, edit: Edit) -> bool:
    """Squeeze and Unsqueeze by a Reshape, where the shapes are known."""
    shape = static_dims(node.outputs[0])
    f = Formula(node, edit)
    if shape is None or 0 in shape or (shape == () and f.dtype == ir.DataType.BOOL):
        return False
    return f.finish(f.reshape(required(node, 0), shape))


def _transpose(node: ir.Node, edit: Edit) -> bool:
    x = required(node, 0)
    depth, perm = rank(x), attribute(node, "perm")
    if depth is None:
        return False
    order = tuple(perm) if perm is not None else tuple(reversed(range(depth)))
    f = Formula(node, edit)
    if order == tuple(range(depth)):
        return f.finish(f.op("Identity", x))
    return set_attributes(node, perm=order)


def _positive_axis(node: ir.Node, edit: Edit) -> bool:
    depth = rank(given(node, 0))
    axis = attribute(node, "axis", 0)
    if depth is None:
        return False
    return set_attributes(node, axis=axis + depth if axis < 0 else axis)


def _split(node: ir.Node, edit: Edit) -> bool:
    sizes = int_list(node, "split", 1)
    shape = static_dims(given(node, 0))
    if shape is None:
        return _positive_axis(node, edit)
    axis = attribute(node, "axis", 0) % len(shape)
    if sizes is None:
        if given(node, 1) is not None:
            return False
        each = -(-shape[axis] // len(node.outputs))
        sizes = tuple(min(each, shape[axis] - each * i) for i in range(len(node.outputs)))
    f = Formula(node, edit)
    if len(sizes) == 1:
        return f.finish(f.op("Identity", required(node, 0)))
    if 0 in sizes or (axis == attribute(node, "axis", 0) and is_given(node, "split", 1)):
        return False
    edit.replace(node.outputs, "Split", [node.inputs[0], f.ints(sizes)], {"axis": axis})
    return True


def _expand(node: ir.Node, edit: Edit) -> bool:
    """The target is the output's shape: ONNX also broadcasts the other way."""
    x, shape = required(node, 0), static_dims(node.outputs[0])
    if shape is None:
        return False
    f = Formula(node, edit)
    if static_dims(x) == shape:
        return f.finish(f.op("Identity", x))
    target = const_array(given(node, 1))
    if target is not None and target.tolist() == list(shape):
        return False
    node.replace_input_with(1, f.ints(shape))
    return True


def _concat(node: ir.Node, edit: Edit) -> bool:
    if len(node.inputs) == 1:
        f = Formula(node, edit)
        return f.finish(f.op("Identity", required(node, 0)))
    return _positive_axis(node, edit)


def _tile(node: ir.Node, edit: Edit) -> bool:
    repeats = const_array(given(node, 1))
    if repeats is None or any(r != 1 for r in repeats.reshape(-1)):
        return False
    f = Formula(node, edit)
    return f.finish(f.op("Identity", required(node, 0)))


def _space_to_depth(node: ir.Node, edit: Edit) -> bool:
    """Mode CRD, which the converter takes for DCR, by a Transpose."""
    shape, block = static_dims(node.inputs[0]), attribute(node, "blocksize")
    if attribute(node, "mode", "DCR") != "CRD" or shape is None:
        return False
    n, c, h, w = shape
    f = Formula(node, edit)
    blocks = f.reshape(required(node, 0), (n, c, h // block, block, w // block, block))
    moved = f.transpose(blocks, (0, 1, 3, 5, 2, 4))
    return f.finish(f.reshape(moved, (n, c * block * block, h // block, w // block)))


def _shape(node: ir.Node, edit: Edit) -> bool:
    """Shape's `start` and `end`, which the converter ignores, as a Slice."""
    start, end = attribute(node, "start", 0), attribute(node, "end")
    if start == 0 and end is None:
        return False
    f = Formula(node, edit)
    whole = f.op("Shape", required(node, 0))
    return f.finish(f.slice(whole, 0, start, 2**31 - 1 if end is None else end))


def _size(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    whole = f.cast(f.op("Shape", required(node, 0)), ir.DataType.FLOAT)
    return f.finish(f.cast(f.reduce("ReduceProd", whole, None, keepdims=0), ir.DataType.INT64))


def _trilu(node: ir.Node, edit: Edit) -> bool:
    """The triangle is a constant condition of Where."""
    x = required(node, 0)
    shape, offset = static_dims(x), const_array(given(node, 1))
    if shape is None or (given(node, 1) is not None and offset is None):
        return False
    k = 0 if offset is None else int(offset.reshape(()))
    triangle = np.tri(shape[-2], shape[-1], k if not attribute(node, "upper", 1) else k - 1)
    kept = (triangle == 0) if attribute(node, "upper", 1) else (triangle != 0)
    f = Formula(node, edit)
    full = f.constant(np.broadcast_to(kept, shape))
    return f.finish(f.op("Where", full, x, f.constant(np.zeros(shape, f.dtype.numpy()))))


def _eye_like(node: ir.Node, edit: Edit) -> bool:
    """A constant, which the value of the input has no part in; it is lifted at the next round."""
    shape = static_dims(given(node, 0))
    if shape is None or node.outputs[0].is_graph_output():
        return False
    dtype = ir.DataType(attribute(node, "dtype", int(dtype_of(node.inputs[0]) or 1)))
    f = Formula(node, edit)
    eye = np.eye(shape[0], shape[1], attribute(node, "k", 0), dtype=dtype.numpy())
    return edit.forward(node.outputs[0], f.constant(eye))


RULES: dict[str, Rule] = {
    "Concat": _concat,
    "Expand": _expand,
    "EyeLike": _eye_like,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _squeeze,
}

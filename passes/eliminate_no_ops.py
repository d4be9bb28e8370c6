"""Nodes that give back their input: op(x) -> x.

    x + 0, x - 0, x * 1, x / 1, x ** 1, And(x, true), Or(x, false)
    Cast to its own type, and back after a cast that lost nothing; CastLike is a Cast
    Concat, Sum, Mean, Max, Min of one; Split into one; Tile by ones; Pad by zeros
    Slice of everything; Expand to the same shape; Dropout in inference; Resize by one
    pooling with a 1x1 window; a reduction over nothing or over dimensions of one
    DepthToSpace and SpaceToDepth with blocks of one

The output must have the input's type and, provably, its shape: x + zeros(2, 1) is a broadcast.
x + 0.0 turns -0.0 into 0.0, which only a division by it could tell: there it stays.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    FLOATS,
    Edit,
    attribute,
    broadcasts_into,
    const_array,
    dims,
    dtype_of,
    given,
    int_list,
    is_given,
    kept,
    normal_axes,
    producer,
    rank,
    rewrite,
    same_dims,
    static_dims,
)

INT32_MAX = 2**31 - 1


class EliminateNoOps(ir.passes.InPlacePass):
    """Remove nodes that give back their input."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node once."""
        return rewrite(model, _RULES)


def _neutral(node: ir.Node, edit: Edit) -> bool:
    """A binary node with its neutral element: on both sides where the operator commutes."""
    number, commutes = _NEUTRAL[node.op_type]
    for x, c in (node.inputs, reversed(node.inputs)) if commutes else (node.inputs,):
        array = const_array(c)
        if x is None or array is None or not bool(np.all(array == number)):
            continue
        if not broadcasts_into(array.shape, dims(x)) and array.ndim > 0:
            continue
        if node.op_type == "Add" and _divides(node.outputs[0]) and dtype_of(x) in FLOATS:
            continue
        return edit.forward(node.outputs[0], x)
    return False


_NEUTRAL: dict[str, tuple[float | bool, bool]] = {
    "Add": (0, True),
    "Sub": (0, False),
    "Mul": (1, True),
    "Div": (1, False),
    "Pow": (1, False),
    "And": (True, True),
    "Or": (False, True),
    "Xor": (False, True),
}


def _divides(value: ir.Value) -> bool:
    """Whether the sign of a zero in `value` may matter to who reads it."""
    return any(use.node.op_type in ("Div", "Reciprocal", "Pow") for use in value.uses())


_EXACT_IN = {
    # A cast from the key to one of these and on is the same as the direct cast.
    ir.DataType.FLOAT16: (ir.DataType.FLOAT, ir.DataType.DOUBLE),
    ir.DataType.BFLOAT16: (ir.DataType.FLOAT, ir.DataType.DOUBLE),
    ir.DataType.FLOAT: (ir.DataType.DOUBLE,),
    ir.DataType.INT8: (ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64),
    ir.DataType.INT16: (ir.DataType.INT32, ir.DataType.INT64),
    ir.DataType.INT32: (ir.DataType.INT64,),
    ir.DataType.UINT8: (
        ir.DataType.UINT16,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
        ir.DataType.INT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
    ),
    ir.DataType.BOOL: (
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
        ir.DataType.DOUBLE,
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.INT32,
        ir.DataType.INT64,
    ),
}
_CASTABLE = frozenset((*_EXACT_IN, *(t for wide in _EXACT_IN.values() for t in wide)))


def _cast(node: ir.Node, edit: Edit) -> bool:
    x = node.inputs[0]
    to = ir.DataType(attribute(node, "to"))
    if x is None:
        return False
    if dtype_of(x) == to:
        return edit.forward(node.outputs[0], x)
    first = producer(x, "Cast")
    source = first.inputs[0] if first is not None else None
    kind = dtype_of(source)
    if source is None or kind is None or dtype_of(x) not in _EXACT_IN.get(kind, ()):
        return False
    if kind == to:
        return edit.forward(node.outputs[0], source)
    if to not in _CASTABLE:
        return False
    edit.replace(node.outputs[0], "Cast", [source], {"to": int(to)})
    return True


def _cast_like(node: ir.Node, edit: Edit) -> bool:
    x, like = node.inputs
    to = dtype_of(like)
    if x is None or to is None:
        return False
    if dtype_of(x) == to:
        return edit.forward(node.outputs[0], x)
    edit.replace(node.outputs[0], "Cast", [x], {**kept(node), "to": int(to)})
    return True


def _alone(node: ir.Node, edit: Edit) -> bool:
    x = node.inputs[0]
    if len(node.inputs) != 1 or len(node.outputs) != 1 or x is None:
        return False
    return edit.forward(node.outputs[0], x)


def _split(node: ir.Node, edit: Edit) -> bool:
    x = node.inputs[0]
    return len(node.outputs) == 1 and x is not None and edit.forward(node.outputs[0], x)


def _tile(node: ir.Node, edit: Edit) -> bool:
    return _all_equal(node, "repeats", 1, 1) and _drop(node, edit)


def _pad(node: ir.Node, edit: Edit) -> bool:
    return _all_equal(node, "pads", 1, 0) and _drop(node, edit)


def _all_equal(node: ir.Node, name: str, index: int, number: int) -> bool:
    numbers = int_list(node, name, index)
    return numbers is not None and all(n == number for n in numbers)


def _drop(node: ir.Node, edit: Edit) -> bool:
    x = node.inputs[0]
    return x is not None and edit.forward(node.outputs[0], x)


def _slice(node: ir.Node, edit: Edit) -> bool:
    x = node.inputs[0]
    steps = int_list(node, "steps", 4)
    if steps is None and is_given(node, "steps", 4):
        return False
    if steps is not None and any(step != 1 for step in steps):
        return False
    if same_dims(dims(x), dims(node.outputs[0])):
        return _drop(node, edit)
    starts, ends = int_list(node, "starts", 1), int_list(node, "ends", 2)
    if starts is None or ends is None:
        return False
    shape = dims(x)
    axes = int_list(node, "axes", 3)
    if axes is None:
        if is_given(node, "axes", 3):
            return False
        axes = tuple(range(len(starts)))
    for axis, start, end in zip(axes, starts, ends, strict=False):
        size = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
        from_first = start == 0 or (isinstance(size, int) and start <= -size)
        to_last = end >= INT32_MAX or (isinstance(size, int) and end >= size)
        if not from_first or not to_last:
            return False
    return _drop(node, edit)


def _expand(node: ir.Node, edit: Edit) -> bool:
    x, shape = node.inputs
    source = producer(shape, "Shape")
    if source is not None and source.inputs[0] is x and not source.attributes:
        return _drop(node, edit)
    wanted = const_array(shape)
    if same_dims(dims(x), dims(node.outputs[0])):
        return _drop(node, edit)
    if wanted is not None and broadcasts_into([int(n) for n in wanted], dims(x)):
        return _drop(node, edit)
    return False


def _dropout(node: ir.Node, edit: Edit) -> bool:
    if any(mask.uses() or mask.is_graph_output() for mask in node.outputs[1:]):
        return False
    training = given(node, 2)
    if training is not None:
        flag = const_array(training)
        if flag is None or flag.any():
            return False
    return _drop(node, edit)


def _reduce(node: ir.Node, edit: Edit) -> bool:
    axes = int_list(node, "axes", 1)
    if axes is None and is_given(node, "axes", 1):
        return False
    if not axes and attribute(node, "noop_with_empty_axes", 0) == 1:
        return _drop(node, edit)
    shape = static_dims(node.inputs[0])
    if shape is None or attribute(node, "keepdims", 1) != 1:
        return False
    over = normal_axes(axes, len(shape)) if axes else tuple(range(len(shape)))
    return over is not None and all(shape[i] == 1 for i in over) and _drop(node, edit)


def _resize(node: ir.Node, edit: Edit) -> bool:
    mode = attribute(node, "coordinate_transformation_mode", "half_pixel")
    if mode in ("tf_crop_and_resize", "tf_half_pixel_for_nn"):
        return False
    x, out = static_dims(node.inputs[0]), static_dims(node.outputs[0])
    if given(node, 3) is not None:
        return x is not None and x == out and _drop(node, edit)
    old_form = node.op_type == "Upsample" or edit.opset < 11
    scales = const_array(given(node, 1 if old_form else 2))
    if scales is None and "scales" in node.attributes:
        scales = np.array(attribute(node, "scales"), np.float32)
    if scales is None or scales.size == 0 or not bool(np.all(scales == 1)):
        return False
    return _drop(node, edit)


def _pool(node: ir.Node, edit: Edit) -> bool:
    names = ("kernel_shape", "strides", "dilations")
    ones = all(n == 1 for name in names for n in attribute(node, name, ()))
    padded = any(attribute(node, "pads", ()))
    return len(node.outputs) == 1 and ones and not padded and _drop(node, edit)


def _global_pool(node: ir.Node, edit: Edit) -> bool:
    shape = dims(node.inputs[0])
    return shape is not None and all(n == 1 for n in shape[2:]) and _drop(node, edit)


def _blocks(node: ir.Node, edit: Edit) -> bool:
    return attribute(node, "blocksize") == 1 and rank(node.inputs[0]) == 4 and _drop(node, edit)


_RULES = {
    **dict.fromkeys(_NEUTRAL, _neutral),
    **dict.fromkeys(("Concat", "Sum", "Mean", "Max", "Min"), _alone),
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"), _reduce),
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    **dict.fromkeys(("GlobalMaxPool", "GlobalAveragePool"), _global_pool),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _blocks),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Split": _split,
    "Tile": _tile,
    "Pad": _pad,
    "Slice": _slice,
    "Expand": _expand,
    "Dropout": _dropout,
}

"""Resize as gathers with fixed indices, added up with fixed weights.

    y[..., i, ...] = sum over t:  x[..., index[i, t], ...] * weight[i, t]

along each axis in turn: nearest has one tap of weight 1, linear two, cubic four, and an antialiased
one as many as it shrinks by. TVM's own kernel computes the coordinates of each element anew, and
knows neither regions, nor `antialias`, nor scales that are not the ratio of the sizes. Beyond
`MAX_TAPS` the weights are a matrix. Source: ONNX Resize-19.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import Array, Edit, attribute, const_array, rank, static_dims
from infc.targets.mindspore_lite_lowering import resizing
from infc.targets.mindspore_lite_lowering.formula import Formula, required

MAX_TAPS = 8
TORN = 1e-4


def _resize(node: ir.Node, edit: Edit) -> bool:
    shape, target = static_dims(node.inputs[0]), static_dims(node.outputs[0])
    if shape is None or target is None:
        return False
    axes = resizing.axes_of(node, shape, target)
    if axes is None or (resizing.coordinates(node) == "align_corners" and _is_torn(axes)):
        return False
    f = Formula(node, edit)
    x = required(node, 0)
    cropped = resizing.coordinates(node) == "tf_crop_and_resize"
    for i, axis in enumerate(axes):
        if axis.size != axis.target or axis.scale != 1.0 or cropped:
            x = _along(f, node, x, i, axis)
    return f.finish(resizing.extrapolated(f, node, x, axes) if cropped else x)


def _is_torn(axes: Sequence[resizing.Axis]) -> bool:
    """Whether a scale gives no whole size: then ONNX's own reference keeps the fraction."""
    return any(abs(a.scale * a.size - a.target) > TORN for a in axes)


def _along(f: Formula, node: ir.Node, x: ir.Value, i: int, axis: resizing.Axis) -> ir.Value:
    if attribute(node, "mode", "nearest") == "nearest":
        mode = attribute(node, "nearest_mode", "round_prefer_floor")
        places = axis.places(resizing.coordinates(node))
        return f.gather(x, resizing.nearest(places, mode, axis.size), i)
    matrix = resizing.weights(axis, node)
    depth = rank(node.inputs[0]) or 0
    taps = int((matrix != 0).sum(axis=1).max())
    if taps > MAX_TAPS:
        order = [*(a for a in range(depth) if a != i), i]
        across = f.constant(matrix.T.astype(f.dtype.numpy()))
        moved = f.matmul(f.transpose(x, order), across)
        return f.transpose(moved, [order.index(a) for a in range(depth)])
    total: ir.Value | None = None
    for index, share in _taps(matrix, taps):
        column = share.astype(f.dtype.numpy()).reshape([-1] + [1] * (depth - 1 - i))
        term = f.mul(f.gather(x, index, i), f.constant(column))
        total = term if total is None else f.add(total, term)
    return x if total is None else total


def _taps(matrix: Array, count: int) -> list[tuple[Array, Array]]:
    """(indices, weights) of the first, second ... element of each row that is not zero."""
    order = np.argsort(matrix == 0, axis=1, kind="stable")[:, :count]
    shares = np.take_along_axis(matrix, order, axis=1)
    return [(order[:, t], shares[:, t]) for t in range(count)]


def _upsample(node: ir.Node, edit: Edit) -> bool:
    return const_array(node.inputs[1]) is not None and resizing.RULES["Upsample"](node, edit)


RULES = {"Resize": _resize, "Upsample": _upsample}

"""Channels through what moves them about: transposed, repeated, resized, put into space."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infc.passes.pruning.channels import Axis
from infc.passes.pruning.reshaping import entries_of, stated, write_shape
from infc.passes.pruning.tracking import Rule, Tracker
from infc.passes.rewriting import (
    attribute,
    const_array,
    const_tensor,
    dims,
    given,
    int_list,
    is_given,
    normal_axes,
    rank,
)


def _transpose(node: ir.Node, tracker: Tracker) -> bool:
    x = tracker.of(node, 0)
    order = attribute(node, "perm", tuple(range(len(x.axes)))[::-1])
    if not x.axes or sorted(order) != list(range(len(x.axes))):
        return False
    tracker.give(node, [x.axes[i] for i in order], zero=x.zero)
    return True


def _squeeze(node: ir.Node, tracker: Tracker) -> bool:
    x, shape = tracker.of(node, 0), dims(given(node, 0))
    if shape is None:
        return False
    axes = int_list(node, "axes", 1)
    if axes is None:
        if is_given(node, "axes", 1) or not all(isinstance(dim, int) for dim in shape):
            return False
        axes = tuple(i for i, dim in enumerate(shape) if dim == 1)
    gone = normal_axes(axes, len(shape))
    if gone is None:
        return False
    tracker.give(node, [a for i, a in enumerate(x.axes) if i not in gone], zero=x.zero)
    return True


def _unsqueeze(node: ir.Node, tracker: Tracker) -> bool:
    x, size = tracker.of(node, 0), rank(node.outputs[0])
    axes = int_list(node, "axes", 1)
    new = None if size is None or axes is None else normal_axes(axes, size)
    if size is None or new is None or len(x.axes) + len(new) != size:
        return False
    old = iter(x.axes)
    tracker.give(node, [None if i in new else next(old) for i in range(size)], zero=x.zero)
    return True


def _expand(node: ir.Node, tracker: Tracker) -> bool:
    x, shape, size = tracker.of(node, 0), dims(given(node, 0)), rank(node.outputs[0])
    entries = entries_of(given(node, 1))
    if shape is None or size is None or entries is None or len(entries) > size:
        return False
    front: list[Axis] = [None] * (size - len(shape))
    out = [*front, *x.axes]
    behind = size - len(entries)
    out[behind:] = stated(tracker, out[behind:], entries, [False] * len(entries))
    tracker.give(node, out, zero=x.zero)
    write_shape(node, 1, out[behind:], tracker)
    return True


def _tile(node: ir.Node, tracker: Tracker) -> bool:
    x, times = tracker.of(node, 0), const_array(given(node, 1))
    if not x.axes or times is None or times.size != len(x.axes):
        return False
    out = [
        None if axis is None else np.tile(axis, int(n))
        for axis, n in zip(x.axes, times.reshape(-1), strict=True)
    ]
    tracker.give(node, out, zero=x.zero)
    return True


def _resize(node: ir.Node, tracker: Tracker) -> bool:
    """Resize and Upsample: along axes that keep their size; `sizes` states that size."""
    x, old, new = tracker.of(node, 0), dims(given(node, 0)), dims(node.outputs[0])
    if old is None or new is None or len(old) != len(new) or "axes" in node.attributes:
        return False
    if attribute(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return False
    sizes = given(node, 3)
    for index in (2, 3):
        value = given(node, index)
        if value is not None and const_tensor(value) is None and index == 3:
            return False
    same = [a if d == n else None for a, d, n in zip(x.axes, old, new, strict=True)]
    tracker.channels.fix(*(a for a, s in zip(x.axes, same, strict=True) if s is None))
    tracker.give(node, same, zero=x.zero)
    if sizes is not None:
        write_shape(node, 3, same, tracker)
    return True


def _depth_to_space(node: ir.Node, tracker: Tracker) -> bool:
    """A channel of the output is made of blocksize^2 of the input's."""
    x, block = tracker.of(node, 0), int(attribute(node, "blocksize", 1)) ** 2
    if len(x.axes) != 4:
        return False
    tracker.channels.fix(*x.axes[2:])
    axis = x.axes[1]
    if axis is not None:
        last = attribute(node, "mode", "DCR") == "CRD"
        rows = axis.reshape(-1, block) if last else axis.reshape(block, -1).T
        axis = tracker.channels.fold(rows)
    out: list[Axis] = [x.axes[0], axis if axis is not None and len(axis) > 1 else None, None, None]
    if out[1] is None:
        tracker.channels.fix(axis)
    tracker.give(node, out, zero=x.zero)
    return True


def _space_to_depth(node: ir.Node, tracker: Tracker) -> bool:
    """Every channel of the input is blocksize^2 of the output's."""
    x, block = tracker.of(node, 0), int(attribute(node, "blocksize", 1)) ** 2
    if len(x.axes) != 4:
        return False
    tracker.channels.fix(*x.axes[2:])
    axis = x.axes[1]
    tracker.give(
        node, [x.axes[0], None if axis is None else np.tile(axis, block), None, None], zero=x.zero
    )
    return True


def _shape(node: ir.Node, tracker: Tracker) -> bool:
    """Shape: where no reader picks the size of an axis that may shrink."""
    x = tracker.of(node, 0)
    if "start" in node.attributes or "end" in node.attributes:
        return False
    if not x.axes:
        return True
    for use in node.outputs[0].uses():
        indices = const_array(given(use.node, 1)) if use.node.op_type == "Gather" else None
        if indices is None or use.idx != 0 or use.node.graph is not node.graph:
            return False
        tracker.channels.fix(*(x.axes[int(i)] for i in indices.reshape(-1)))
    return not node.outputs[0].is_graph_output()


RULES: dict[str, Rule] = {
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Resize": _resize,
    "Shape": _shape,
    "SpaceToDepth": _space_to_depth,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": _resize,
}

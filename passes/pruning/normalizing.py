"""Channels through normalisation, reduction and pooling.

What is computed of all channels together (a mean, a variance) changes when one of them is removed,
also where that one is zero: such channels are averaged.
"""

from __future__ import annotations

import onnx_ir as ir

from infc.passes.pruning.tracking import Rule, Tracker
from infc.passes.rewriting import attribute, dims, given, int_list, is_given, normal_axes, rank

SUMS = frozenset(("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"))
"""A channel that is zero adds nothing."""
MEANS = frozenset(("ReduceMean",))
OTHERS = frozenset(("ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp"))


def _batch(node: ir.Node, tracker: Tracker) -> bool:
    """BatchNormalization: scale, bias, mean and variance (C,)."""
    x = tracker.of(node, 0)
    if attribute(node, "training_mode", 0) or len(x.axes) < 2 or len(node.outputs) > 1:
        return False
    rows = [tracker.of(node, index).axes for index in range(1, 5)]
    if any(len(row) != 1 for row in rows):
        return False
    out = tracker.channels.tie(x.axes[1], *(row[0] for row in rows))
    tracker.mask(node, 1, 2)
    tracker.give(node, [x.axes[0], out, *x.axes[2:]], zero=True)
    return True


def _instance(node: ir.Node, tracker: Tracker) -> bool:
    """InstanceNormalization: scale and bias (C,); the mean is over what comes after them."""
    x = tracker.of(node, 0)
    if len(x.axes) < 3:
        return False
    out = tracker.channels.tie(x.axes[1], tracker.of(node, 1).axes[0], tracker.of(node, 2).axes[0])
    tracker.channels.average(*x.axes[2:])
    tracker.mask(node, 1, 2)
    zero = all(axis is None for axis in x.axes[2:])
    tracker.give(node, [x.axes[0], out, *x.axes[2:]], zero=zero)
    return True


def _group(node: ir.Node, tracker: Tracker) -> bool:
    """GroupNormalization: as many channels of each group; scale and bias (C,) from opset 21."""
    x, groups = tracker.of(node, 0), int(attribute(node, "num_groups", 1))
    if len(x.axes) < 3:
        return False
    channels, out = tracker.channels, x.axes[1]
    if out is not None:
        scale = dims(given(node, 1))
        if scale == (len(out),):
            vectors = [tracker.of(node, index).axes[0] for index in (1, 2)]
            out = channels.tie(out, *vectors)
    if out is not None and groups > 0 and len(out) % groups == 0:
        channels.fold(out.reshape(groups, -1).T)
        channels.average(out)
    elif out is not None:
        return False
    tracker.give(node, [x.axes[0], out, *x.axes[2:]])
    return True


def _layer(node: ir.Node, tracker: Tracker) -> bool:
    """LayerNormalization and RMSNormalization: over the dimensions from `axis` on."""
    x = tracker.of(node, 0)
    if not x.axes or len(node.outputs) > 1:
        return False
    first = int(attribute(node, "axis", -1)) % len(x.axes)
    inside = list(x.axes[first:])
    tracker.channels.average(*inside)
    for index in range(1, len(node.inputs)):
        if node.inputs[index] is None:
            continue
        found, shape = tracker.of(node, index), dims(node.inputs[index])
        if shape is None or len(shape) > len(inside):
            return False
        start = len(inside) - len(shape)
        for place, (axis, size) in enumerate(zip(found.axes, shape, strict=True), start):
            if size != 1:
                inside[place] = tracker.channels.tie(inside[place], axis)
    tracker.give(node, [*x.axes[:first], *inside])
    return True


def _along(node: ir.Node, tracker: Tracker) -> bool:
    """Softmax and others that look at all of one axis: nothing is removed along that."""
    x = tracker.of(node, 0)
    last = attribute(node, "axis", -1 if node.op_type == "LpNormalization" else None)
    if not x.axes or last is None:
        return False  # the default depends on the opset
    axis = int(last) % len(x.axes)
    tracker.channels.fix(x.axes[axis])
    tracker.give(node, [a if i != axis else None for i, a in enumerate(x.axes)])
    return True


def _reduce(node: ir.Node, tracker: Tracker) -> bool:
    x, size = tracker.of(node, 0), rank(node.inputs[0])
    if not x.axes or size is None:
        return False
    axes = int_list(node, "axes", 1)
    if axes is None:
        if is_given(node, "axes", 1) or attribute(node, "noop_with_empty_axes", 0):
            return False
        axes = tuple(range(size))
    reduced = normal_axes(axes, size)
    if reduced is None:
        return False
    for axis in reduced:
        if node.op_type in OTHERS:
            tracker.channels.fix(x.axes[axis])
        elif node.op_type in MEANS or not x.zero:
            tracker.channels.average(x.axes[axis])
    keep = bool(attribute(node, "keepdims", 1))
    out = [None if i in reduced else a for i, a in enumerate(x.axes) if keep or i not in reduced]
    zero = x.zero and node.op_type not in ("ReduceLogSum", "ReduceLogSumExp")
    zero = zero and all(x.axes[axis] is None for axis in reduced)
    tracker.give(node, out, zero=zero)
    return True


def _pool(node: ir.Node, tracker: Tracker) -> bool:
    """The pools and what else looks at each channel's plane alone; indices count all channels."""
    x = tracker.of(node, 0)
    size = rank(node.outputs[0])
    if len(x.axes) < 2 or size is None or any(v.uses() for v in node.outputs[1:]):
        return False
    if any(v.is_graph_output() for v in node.outputs[1:]):
        return False
    tracker.channels.fix(*x.axes[2:])
    tracker.give(node, [x.axes[0], x.axes[1], *[None] * (size - 2)], zero=x.zero)
    return True


def _planes(node: ir.Node, tracker: Tracker) -> bool:
    """MeanVarianceNormalization: over the batch and the plane of each channel, by default."""
    x = tracker.of(node, 0)
    axes = normal_axes(attribute(node, "axes", (0, 2, 3)), len(x.axes))
    if axes is None:
        return False
    tracker.channels.average(*(x.axes[axis] for axis in axes))
    tracker.give(node, x.axes, zero=x.zero and all(x.axes[axis] is None for axis in axes))
    return True


RULES: dict[str, Rule] = {
    "BatchNormalization": _batch,
    "InstanceNormalization": _instance,
    "GroupNormalization": _group,
    "LayerNormalization": _layer,
    "RMSNormalization": _layer,
    "MeanVarianceNormalization": _planes,
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization"), _along),
    **dict.fromkeys(SUMS | MEANS | OTHERS, _reduce),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _pool),
}

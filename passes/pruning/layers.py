"""Channels through the layers that have weights: where they are computed, and where they end."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infc.passes.pruning.channels import Axis
from infc.passes.pruning.elementwise import broadcast
from infc.passes.pruning.tracking import Kept, Rule, Tracked, Tracker
from infc.passes.rewriting import Edit, attribute, dims, given, rank


def _axis(tracked: Tracked, index: int) -> Axis:
    return tracked.axes[index] if tracked.axes else None


def _spatial(x: Tracked, tracker: Tracker, count: int) -> list[Axis]:
    """Nothing is followed along the axes that a window moves over."""
    tracker.channels.fix(*x.axes[2:])
    return [None] * count


def _conv(node: ir.Node, tracker: Tracker) -> bool:
    """Conv: w (O, I/group, k...)."""
    shape, kernel = dims(given(node, 0)), tracker.use(node, 1)
    if shape is None or kernel is None or not isinstance(shape[1], int):
        return False
    x, w, group = tracker.of(node, 0), tracker.of(node, 1), int(attribute(node, "group", 1))
    tracker.channels.fix(*w.axes[2:])
    out = _grouped(node, tracker, x, (w.axes[1], w.axes[0]), shape[1], group)
    return _finish(node, tracker, x, out, axis=0)


def _conv_transpose(node: ir.Node, tracker: Tracker) -> bool:
    """ConvTranspose: w (I, O/group, k...)."""
    shape, kernel = dims(given(node, 0)), tracker.use(node, 1)
    if shape is None or kernel is None or not isinstance(shape[1], int):
        return False
    x, w, group = tracker.of(node, 0), tracker.of(node, 1), int(attribute(node, "group", 1))
    tracker.channels.fix(*w.axes[2:])
    channels = tracker.channels
    entering, leaving = _axis(x, 1), w.axes[1]
    if group == 1:
        channels.tie(entering, w.axes[0])
        return _finish(node, tracker, x, leaving, axis=1)
    if group != shape[1]:
        inner = channels.tie(entering, w.axes[0])
        if inner is not None:
            channels.fold(inner.reshape(group, -1).T)
        out = None if leaving is None else np.tile(leaving, group)
        return _finish(node, tracker, x, out, axis=1)
    inner = channels.tie(entering, w.axes[0])
    channels.fix(leaving)
    times = 1 if leaving is None else len(leaving)
    _regroup(node, tracker, inner)
    out = None if inner is None else np.repeat(inner, times)
    return _finish(node, tracker, x, out, axis=0)


def _grouped(
    node: ir.Node,
    tracker: Tracker,
    x: Tracked,
    weights: tuple[Axis, Axis],
    count: int,
    group: int,
) -> Axis:
    """Tie x (count,) to the weights' axes (I/group,) and (O,); returns the output's channels."""
    channels, entering = tracker.channels, _axis(x, 1)
    inner, outer = weights
    if group == 1:
        channels.tie(entering, inner)
        return outer
    if group == count:  # depthwise: an output goes with its input
        if entering is None or outer is None:
            channels.fix(entering, outer)
            return None
        tied = channels.tie(np.repeat(entering, len(outer) // group), outer)
        _regroup(node, tracker, entering)
        return tied
    if entering is None or inner is None:
        channels.fix(entering, inner)
    else:
        channels.tie(entering, np.tile(inner, group))
    # Every group keeps as many outputs.
    if outer is not None:
        channels.fold(outer.reshape(group, -1).T)
    return outer


def _regroup(node: ir.Node, tracker: Tracker, entering: Axis) -> None:
    """A depthwise convolution has as many groups as channels."""
    if entering is None:
        return
    axis = entering

    def fix(edit: Edit, kept: Kept) -> None:
        node.attributes["group"] = ir.AttrInt64("group", int(kept(axis).sum()))

    tracker.later(fix)


def _finish(node: ir.Node, tracker: Tracker, x: Tracked, out: Axis, axis: int) -> bool:
    """The bias, the output, and that the channels along `axis` of the weights are a layer's."""
    if given(node, 2) is not None:
        bias = _axis(tracker.of(node, 2), 0)
        tracker.channels.tie(out, bias)
        tracker.mask(node, 2)
    if out is not None:
        tracker.produces(node, 1, axis)
    tracker.mask(node, 1)
    size = rank(node.outputs[0])
    if size is None:
        tracker.channels.fix(out)
        return False
    zero = given(node, 2) is None or tracker.use(node, 2) is not None
    _fix_batch(x, tracker)
    tracker.give(node, [None, out, *_spatial(x, tracker, size - 2)], zero=zero)
    return True


def _fix_batch(x: Tracked, tracker: Tracker) -> None:
    if x.axes:
        tracker.channels.fix(x.axes[0])


def _gemm(node: ir.Node, tracker: Tracker) -> bool:
    """Gemm: a (M, K), b (K, N) or (N, K) where transB, c broadcast to (M, N)."""
    if attribute(node, "transA", 0) or tracker.use(node, 1) is None:
        return False
    a, b = tracker.of(node, 0), tracker.of(node, 1)
    turned = bool(attribute(node, "transB", 0))
    inner, outer = (b.axes[1], b.axes[0]) if turned else (b.axes[0], b.axes[1])
    tracker.channels.tie(_axis(a, 1), inner)
    shape = dims(given(node, 2))
    zero = True
    if given(node, 2) is not None:
        c = tracker.of(node, 2)
        wide = shape is not None and len(shape) > 0 and shape[-1] != 1
        if wide:
            outer = tracker.channels.tie(outer, c.axes[-1])
        tracker.channels.fix(*c.axes[:-1])
        zero = wide and tracker.use(node, 2) is not None
        if zero:
            tracker.mask(node, 2)
    tracker.produces(node, 1, 0 if turned else 1)
    tracker.give(node, [_axis(a, 0), outer], zero=zero and _axis(a, 0) is None)
    return True


def _matmul(node: ir.Node, tracker: Tracker) -> bool:
    """MatMul of a (..., M, K) and b (..., K, N), constant or not."""
    left_dims, right_dims = dims(given(node, 0)), dims(given(node, 1))
    if left_dims is None or right_dims is None or min(len(left_dims), len(right_dims)) < 2:
        return False
    a, b = tracker.of(node, 0), tracker.of(node, 1)
    weights = [index for index in (0, 1) if tracker.use(node, index) is not None]
    for index in weights:
        tracker.mask(node, index)
    inner = tracker.channels.tie(a.axes[-1], b.axes[-2])
    if not weights and not a.zero and not b.zero:
        tracker.channels.average(inner)
    for index, axis in ((0, -2), (1, -1)):
        if index in weights:
            tracker.produces(node, index, axis)
    size = max(len(left_dims), len(right_dims)) - 2
    rows = [(a.axes[:-2], left_dims[:-2]), (b.axes[:-2], right_dims[:-2])]
    batch = broadcast(tracker, rows, size)
    left, right = a.axes[-2], b.axes[-1]
    zero = (left is None or a.zero or 0 in weights) and (right is None or b.zero or 1 in weights)
    zero = zero and all(axis is None for axis in batch)
    tracker.give(node, [*batch, left, right], zero=zero)
    return True


def _recurrent(node: ir.Node, tracker: Tracker) -> bool:
    """LSTM, GRU, RNN: x (S, B, I) meets w (directions, gates, I); the states stay as they are."""
    if tracker.use(node, 1) is None:
        return False
    x, w = tracker.of(node, 0), tracker.of(node, 1)
    entering, inner = _axis(x, 2), w.axes[2]
    tracker.channels.fix(*x.axes[:2], *w.axes[:2])
    for index in range(2, len(node.inputs)):
        tracker.channels.fix(*tracker.of(node, index).axes)
    tracker.channels.tie(entering, inner)
    tracker.mask(node, 1)
    return True


RULES: dict[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}

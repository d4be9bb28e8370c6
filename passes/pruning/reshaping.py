"""Channels through Reshape and Flatten.

    (N, C, H, W) -> (N, C H W)       a channel becomes H W places that go together
    (N, S, h d)  -> (N, S, h, d)     places that are one column of (h, d) go together: every head
                                     keeps as many
    (N, g k, ..) -> (N, g, k, ..)    the same, and so a shuffle of channels

Shapes are split into blocks of equal size from both ends. Where one axis is made of several, the
one is followed that ties nothing further, else the longest, the last of several.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from infc.passes.pruning.channels import Axis, Channels, Places
from infc.passes.pruning.tracking import Kept, Rule, Tracker
from infc.passes.rewriting import Dim, Edit, attribute, const_array, dims, given, producer

MOST_PLACES = 1 << 22
"""A block of more elements is not followed."""


def reshaped(
    channels: Channels, axes: Sequence[Axis], old: Sequence[Dim], new: Sequence[Dim]
) -> list[Axis]:
    """The axes of (old...) seen as (new...), in row-major order."""
    out: list[Axis] = [None] * len(new)
    start, end = _equal_ends(old, new)
    for i in range(start):
        out[i] = axes[i]
    for i in range(1, end + 1):
        out[-i] = axes[-i]
    for (a, b), (c, d) in _blocks(old, new, start, end):
        out[c:d] = _block(channels, axes[a:b], old[a:b], new[c:d])
    return out


def _equal_ends(old: Sequence[Dim], new: Sequence[Dim]) -> tuple[int, int]:
    """How many dimensions are the same at the front, and at the back."""
    most = min(len(old), len(new))
    start = 0
    while start < most and old[start] is not None and old[start] == new[start]:
        start += 1
    end = 0
    while end < most - start and old[-1 - end] is not None and old[-1 - end] == new[-1 - end]:
        end += 1
    # One unknown dimension at the front of both is the same where the rest is of one size.
    rest = old[start + 1 : len(old) - end], new[start + 1 : len(new) - end]
    if len(old) - end > start and len(new) - end > start and not _known(old[start], new[start]):
        sizes = [math.prod(d for d in r if isinstance(d, int)) for r in rest]
        if all(isinstance(d, int) for r in rest for d in r) and sizes[0] == sizes[1]:
            start += 1
    return start, end


def _known(*found: Dim) -> bool:
    return any(isinstance(dim, int) for dim in found)


def _blocks(
    old: Sequence[Dim], new: Sequence[Dim], start: int, end: int
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The shortest runs of dimensions of equal size; all that is left where a size is unknown."""
    stop_old, stop_new = len(old) - end, len(new) - end
    middle = [*old[start:stop_old], *new[start:stop_new]]
    if not all(isinstance(dim, int) for dim in middle):
        return [((start, stop_old), (start, stop_new))]
    found, i, j = [], start, start
    while i < stop_old or j < stop_new:
        a, c, left, right = i, j, 1, 1
        while (left != right or (a == i and c == j)) and (i < stop_old or j < stop_new):
            if j >= stop_new or (i < stop_old and left <= right):
                left, i = left * int(old[i] or 0), i + 1
            else:
                right, j = right * int(new[j] or 0), j + 1
        found.append(((a, i), (c, j)))
    return found


def _block(
    channels: Channels, axes: Sequence[Axis], old: Sequence[Dim], new: Sequence[Dim]
) -> list[Axis]:
    tracked = [i for i, axis in enumerate(axes) if axis is not None]
    none: list[Axis] = [None] * len(new)
    sizes = [dim for dim in (*old, *new) if isinstance(dim, int)]
    if not tracked or not new:
        channels.fix(*axes)
        return none
    known = len(sizes) == len(old) + len(new)
    places = math.prod(int(dim or 0) for dim in old if isinstance(dim, int))
    if len(tracked) > 1 or not known or places > MOST_PLACES:
        channels.fix(*axes)
        return none
    (place,) = tracked
    shape = [int(dim) for dim in old if isinstance(dim, int)]
    along = [-1 if i == place else 1 for i in range(len(shape))]
    axis = axes[place]
    if axis is None:
        return none
    flat = np.broadcast_to(axis.reshape(along), shape).reshape(-1)
    wanted = [int(dim) for dim in new if isinstance(dim, int)]
    rows = [np.moveaxis(flat.reshape(wanted), i, 0).reshape(n, -1) for i, n in enumerate(wanted)]
    best = min(range(len(wanted)), key=lambda i: (not _uniform(channels, rows[i]), -wanted[i], -i))
    if wanted[best] == 1:
        channels.fix(axis)
        return none
    wide = rows[best].shape[1] > 1
    none[best] = channels.fold(np.unique(rows[best], axis=1) if wide else rows[best])
    return none


def _uniform(channels: Channels, rows: Places) -> bool:
    """Whether what would be tied is one channel already."""
    roots = channels.roots(rows)
    return bool((roots == roots[:, :1]).all()) and rows.shape[0] > 1


def _reshape(node: ir.Node, tracker: Tracker) -> bool:
    old, new = dims(given(node, 0)), dims(node.outputs[0])
    entries = entries_of(given(node, 1))
    if old is None or new is None or entries is None or len(entries) != len(new):
        return False
    x = tracker.of(node, 0)
    if all(axis is None for axis in x.axes):
        return True
    out = reshaped(tracker.channels, x.axes, old, new)
    copies = not attribute(node, "allowzero", 0)
    same = [copies and i < len(x.axes) and x.axes[i] is axis for i, axis in enumerate(out)]
    out = stated(tracker, out, entries, same)
    tracker.give(node, out, zero=x.zero)
    write_shape(node, 1, out, tracker)
    return True


def stated(
    tracker: Tracker, axes: Sequence[Axis], entries: Sequence[int | None], same: Sequence[bool]
) -> list[Axis]:
    """The `axes` whose size a shape of `entries` states, or leaves to the runtime.

    0 is the size of what is reshaped, and that only where it is the `same` axis.
    """
    out: list[Axis] = []
    for axis, entry, copied in zip(axes, entries, same, strict=True):
        fits = entry is not None and entry >= -1 and (entry != 0 or copied)
        if not fits:
            tracker.channels.fix(axis)
        out.append(axis if fits else None)
    return out


def entries_of(value: ir.Value | None) -> list[int | None] | None:
    """What a shape is made of; None for an entry that is computed."""
    array = const_array(value)
    if array is not None:
        return [int(n) for n in array.reshape(-1)]
    node = producer(value, "Concat")
    if node is None:
        return None
    found: list[int | None] = []
    for part in node.inputs:
        size, constant = dims(part), const_array(part)
        if constant is not None:
            found += [int(n) for n in constant.reshape(-1)]
        elif size is not None and len(size) == 1 and isinstance(size[0], int):
            found += [None] * size[0]
        else:
            return None
    return found


def write_shape(node: ir.Node, index: int, axes: Sequence[Axis], tracker: Tracker) -> None:
    """Have the sizes of `axes` written into the shape that `node` is told, where it states them."""

    def fix(edit: Edit, kept: Kept) -> None:
        sizes = [None if axis is None else int(kept(axis).sum()) for axis in axes]
        before = node.inputs[index]
        after = _written(before, sizes, edit, node)
        if after is not before:
            node.replace_input_with(index, after)

    if any(axis is not None for axis in axes):
        tracker.later(fix)


def _written(
    value: ir.Value | None, sizes: Sequence[int | None], edit: Edit, at: ir.Node
) -> ir.Value | None:
    """`value`, or what states `sizes` where it states a number above 1."""
    array = const_array(value)
    if array is not None and value is not None:
        old = [int(n) for n in array.reshape(-1)]
        new = [n if s is None or n <= 1 else s for n, s in zip(old, sizes, strict=True)]
        return value if new == old else edit.ints(new, f"{value.name}_pruned", at)
    node = producer(value, "Concat")
    if node is None or value is None:
        return value
    parts, place = [], 0
    for part in node.inputs:
        constant, size = const_array(part), dims(part)
        count = int(constant.size) if constant is not None else int((size or (0,))[0] or 0)
        parts.append(
            part if constant is None else _written(part, sizes[place : place + count], edit, at)
        )
        place += count
    if all(a is b for a, b in zip(parts, node.inputs, strict=True)):
        return value
    return edit.emit(
        "Concat",
        parts,
        {"axis": 0},
        at=at,
        hint=f"{value.name}_pruned",
        dtype=ir.DataType.INT64,
        shape=[len(sizes)],
    )


def _flatten(node: ir.Node, tracker: Tracker) -> bool:
    old, new = dims(given(node, 0)), dims(node.outputs[0])
    if old is None or new is None or len(new) != 2:
        return False
    x = tracker.of(node, 0)
    tracker.give(node, reshaped(tracker.channels, x.axes, old, new), zero=x.zero)
    return True


RULES: dict[str, Rule] = {"Reshape": _reshape, "Flatten": _flatten}

"""Slices of slices, and slices that together are the whole.

    Slice(Slice(x, axes A), axes B)                  ->  Slice(x, axes A and B)
    Slice(x, 0..a), Slice(x, a..b), Slice(x, b..)    ->  Split(x, [a, b - a, ...])
    Concat(Split(x))                                 ->  x
    Squeeze(ReduceMean(x, axes, keepdims=1), axes)   ->  ReduceMean(x, axes, keepdims=0)
    Unsqueeze(ReduceMean(x, axes, keepdims=0), axes) ->  ReduceMean(x, axes, keepdims=1)

Bounds and axes are constants and steps are one. Slices of one axis are added up where their bounds
count from the front; the parts of a Split lie along a dimension of known size, none left out.
Slice-1 and Split-2 hold their lists as attributes, Slice-10 and Split-13 as inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from infc.passes.rewriting import (
    Edit,
    attribute,
    dims,
    int_list,
    is_given,
    is_op,
    kept,
    normal_axes,
    producer,
    rank,
    rewrite,
    sole_consumer,
)
from infc.passes.transposition import REDUCTIONS

END = 2**31 - 1
"""An `end` from here on means "to the end"."""


class MergeSlices(ir.passes.InPlacePass):
    """Merge slices into one Slice or one Split, and undo a Split by Concat."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node once."""
        return rewrite(model, {"Slice": _slice, "Concat": _concat, **_KEEPDIMS})


@dataclass(frozen=True, slots=True)
class Cut:
    """What a Slice keeps of one axis: from `start` to `end`, in steps of one."""

    axis: int
    start: int
    end: int


def _cuts(node: ir.Node) -> tuple[Cut, ...] | None:
    """The cuts of a Slice with constant bounds and steps of one, axes from the front."""
    starts, ends = int_list(node, "starts", 1), int_list(node, "ends", 2)
    steps, axes = int_list(node, "steps", 4), int_list(node, "axes", 3)
    if starts is None or ends is None or len(starts) != len(ends):
        return None
    if is_given(node, "steps", 4) and (steps is None or any(step != 1 for step in steps)):
        return None
    if axes is None:
        if is_given(node, "axes", 3):
            return None
        axes = tuple(range(len(starts)))
    if any(axis < 0 for axis in axes):
        into = rank(node.inputs[0])
        found = None if into is None else normal_axes(axes, into)
        if found is None:
            return None
        axes = found
    return tuple(Cut(*cut) for cut in zip(axes, starts, ends, strict=True))


def _slice(node: ir.Node, edit: Edit) -> bool:
    cuts = _cuts(node)
    x = node.inputs[0]
    if cuts is None or x is None:
        return False
    if len(cuts) == 1 and _split(node, x, cuts[0], edit):
        return True
    inner = producer(x, "Slice")
    first = _cuts(inner) if inner is not None else None
    if inner is None or first is None or sole_consumer(x) is not node:
        return False
    merged = {cut.axis: cut for cut in first}
    for cut in cuts:
        before = merged.get(cut.axis)
        both = cut if before is None else _added(before, cut)
        if both is None:
            return False
        merged[cut.axis] = both
    _emit_slice(node, inner.inputs[0], [merged[axis] for axis in sorted(merged)], edit)
    return True


def _added(first: Cut, second: Cut) -> Cut | None:
    """The cut that `second` makes of what `first` left, where all bounds are from the front."""
    if min(first.start, first.end, second.start, second.end) < 0:
        return None
    end = min(first.end, first.start + second.end if second.end < END else END)
    return Cut(first.axis, first.start + second.start, end)


def _emit_slice(node: ir.Node, x: ir.Value | None, cuts: list[Cut], edit: Edit) -> None:
    y = node.outputs[0]
    lists = {
        "starts": [cut.start for cut in cuts],
        "ends": [cut.end for cut in cuts],
        "axes": [cut.axis for cut in cuts],
    }
    if edit.opset < 10:
        edit.replace(y, "Slice", [x], lists)
        return
    values = [edit.ints(numbers, f"{y.name}_{name}", node) for name, numbers in lists.items()]
    edit.replace(y, "Slice", [x, *values])


def _split(node: ir.Node, x: ir.Value, cut: Cut, edit: Edit) -> bool:
    """Replace all slices of x by one Split, where they are its parts."""
    if len(x.uses()) < 2:
        return False
    shape = dims(x)
    size = shape[cut.axis] if shape is not None and cut.axis < len(shape) else None
    if not isinstance(size, int):
        return False
    parts: list[tuple[int, int, ir.Node]] = []
    for use in x.uses():
        if use.node.graph is not node.graph or use.idx != 0 or not is_op(use.node, "Slice"):
            continue
        cuts = _cuts(use.node)
        if cuts is None or len(cuts) != 1 or cuts[0].axis != cut.axis:
            continue
        start, end = _bound(cuts[0].start, size), _bound(cuts[0].end, size)
        parts.append((start, end, use.node))
    parts.sort(key=lambda part: part[:2])
    position = 0
    for start, end, _ in parts:
        if start != position or end <= start:
            return False
        position = end
    if position != size or len(parts) < 2:
        return False
    outputs = [part.outputs[0] for _, _, part in parts]
    sizes = [end - start for start, end, _ in parts]
    among = {part for _, _, part in parts}
    first = next(n for n in node.graph or () if n in among)
    if edit.opset < 13:
        edit.replace(outputs, "Split", [x], {"axis": cut.axis, "split": sizes}, at=first)
    else:
        value = edit.ints(sizes, f"{x.name}_split", node)
        edit.replace(outputs, "Split", [x, value], {"axis": cut.axis}, at=first)
    for _, _, part in parts:
        edit.erase(part)
    return True


def _bound(position: int, size: int) -> int:
    return min(max(position + size if position < 0 else position, 0), size)


def _concat(node: ir.Node, edit: Edit) -> bool:
    """Concat of all parts of a Split, in order and along its axis."""
    split = producer(node.inputs[0], "Split")
    if split is None or list(split.outputs) != list(node.inputs):
        return False
    x = split.inputs[0]
    into = rank(x)
    if x is None or into is None:
        return False
    axes = normal_axes([attribute(node, "axis")], into)
    if axes is None or axes != normal_axes([attribute(split, "axis", 0)], into):
        return False
    return edit.forward(node.outputs[0], x)


def _keepdims(node: ir.Node, edit: Edit) -> bool:
    """Let a reduction keep or drop the dimensions that a node after it puts back or drops."""
    x = node.inputs[0]
    reduction = producer(x, *REDUCTIONS)
    into = rank(reduction.inputs[0]) if reduction is not None else None
    if reduction is None or x is None or into is None or sole_consumer(x) is not node:
        return False
    over, changed = int_list(reduction, "axes", 1), int_list(node, "axes", 1)
    drops = node.op_type == "Squeeze"
    if not over or changed is None or bool(attribute(reduction, "keepdims", 1)) != drops:
        return False
    a, b = normal_axes(over, into), normal_axes(changed, into)
    if a is None or b is None or sorted(a) != sorted(b):
        return False
    attributes = {**kept(reduction, "keepdims"), "keepdims": int(not drops)}
    edit.replace(node.outputs[0], reduction.op_type, list(reduction.inputs), attributes)
    return True


_KEEPDIMS = {"Squeeze": _keepdims, "Unsqueeze": _keepdims}

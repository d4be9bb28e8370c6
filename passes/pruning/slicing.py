"""Channels through what joins and parts them: concatenated, split, sliced, picked, padded."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infc.passes.pruning.channels import Axis, Places
from infc.passes.pruning.tracking import Kept, Rule, Tracker
from infc.passes.rewriting import (
    Edit,
    attribute,
    const_array,
    dims,
    given,
    int_list,
    is_given,
    normal_axes,
    rank,
)


def _concat(node: ir.Node, tracker: Tracker) -> bool:
    size = rank(node.outputs[0])
    parts = [tracker.of(node, index) for index in range(len(node.inputs))]
    if size is None or any(len(part.axes) != size for part in parts):
        return False
    along = int(attribute(node, "axis", 0)) % size
    out: list[Axis] = []
    for axis in range(size):
        axes = [part.axes[axis] for part in parts]
        out.append(
            _joined(node, axes, axis, tracker) if axis == along else tracker.channels.tie(*axes)
        )
    tracker.give(node, out, zero=all(p.zero for p in parts if any(a is not None for a in p.axes)))
    return True


def _joined(node: ir.Node, axes: list[Axis], along: int, tracker: Tracker) -> Axis:
    """The channels of all inputs, one after the other; None where one has no known number."""
    if all(axis is None for axis in axes):
        return None
    pieces = []
    for axis, shape in zip(axes, map(dims, node.inputs), strict=True):
        length, piece = shape[along] if shape is not None else None, axis
        if piece is None and isinstance(length, int):
            piece = tracker.channels.fresh(length)
            tracker.channels.fix(piece)
        pieces.append(piece)
    if any(piece is None for piece in pieces):
        tracker.channels.fix(*pieces)
        return None
    return np.concatenate([piece for piece in pieces if piece is not None])


def _split(node: ir.Node, tracker: Tracker) -> bool:
    x = tracker.of(node, 0)
    if not x.axes:
        return False
    along = int(attribute(node, "axis", 0)) % len(x.axes)
    axis, sizes = x.axes[along], []
    for value in node.outputs:
        shape = dims(value)
        sizes.append(shape[along] if shape is not None and len(shape) == len(x.axes) else None)
    numbers = [size for size in sizes if isinstance(size, int)]
    if axis is not None and (len(numbers) < len(sizes) or sum(numbers) != len(axis)):
        return False
    start, parts = 0, []
    for output in range(len(node.outputs)):
        piece: Axis = None
        if axis is not None:
            piece, start = axis[start : start + numbers[output]], start + numbers[output]
        out = [piece if i == along else a for i, a in enumerate(x.axes)]
        tracker.give(node, out, zero=x.zero, output=output)
        parts.append(piece)
    _write_split(node, parts, tracker)
    return True


def _write_split(node: ir.Node, parts: list[Axis], tracker: Tracker) -> None:
    axes = [part for part in parts if part is not None]
    if len(axes) < len(parts):
        return

    def fix(edit: Edit, kept: Kept) -> None:
        sizes = [int(kept(axis).sum()) for axis in axes]
        if sizes == [len(axis) for axis in axes]:
            return
        if "split" in node.attributes or edit.opset < 13:
            node.attributes["split"] = ir.AttrInt64s("split", sizes)
            return
        node.attributes.pop("num_outputs", None)
        value = edit.ints(sizes, f"{node.outputs[0].name}_split", node)
        if len(node.inputs) < 2:
            node.resize_inputs(2)
        node.replace_input_with(1, value)

    tracker.later(fix)


def _slice(node: ir.Node, tracker: Tracker) -> bool:
    x, shape = tracker.of(node, 0), dims(given(node, 0))
    starts, ends = int_list(node, "starts", 1), int_list(node, "ends", 2)
    if shape is None or starts is None or ends is None:
        return False
    axes = int_list(node, "axes", 3)
    if axes is None and is_given(node, "axes", 3):
        return False
    steps = int_list(node, "steps", 4) or (1,) * len(starts)
    places = normal_axes(axes or range(len(starts)), len(shape))
    if places is None or len({len(starts), len(ends), len(places), len(steps)}) > 1:
        return False
    out, moved = list(x.axes), {}
    for number, (place, step) in enumerate(zip(places, steps, strict=True)):
        axis = x.axes[place]
        if axis is None:
            continue
        if step != 1:
            tracker.channels.fix(axis)
            out[place] = None
            continue
        first, last, _ = slice(starts[number], ends[number]).indices(len(axis))
        moved[number] = (axis, first, max(first, last))
        out[place] = axis[first : max(first, last)]
    tracker.give(node, out, zero=x.zero)
    _write_slice(node, (starts, ends), moved, tracker)
    return True


def _write_slice(
    node: ir.Node,
    bounds: tuple[tuple[int, ...], tuple[int, ...]],
    moved: dict[int, tuple[Places, int, int]],
    tracker: Tracker,
) -> None:
    def fix(edit: Edit, kept: Kept) -> None:
        starts, ends = list(bounds[0]), list(bounds[1])
        for number, (axis, first, last) in moved.items():
            stays = kept(axis)
            starts[number] = int(stays[:first].sum())
            ends[number] = int(stays[:last].sum())
        if (tuple(starts), tuple(ends)) == bounds:
            return
        for index, name, numbers in ((1, "starts", starts), (2, "ends", ends)):
            if name in node.attributes:
                node.attributes[name] = ir.AttrInt64s(name, numbers)
            else:
                value = edit.ints(numbers, f"{node.outputs[0].name}_{name}", node)
                node.replace_input_with(index, value)

    if moved:
        tracker.later(fix)


def _gather(node: ir.Node, tracker: Tracker) -> bool:
    """Gather: along other axes as it is, along its own by constant indices."""
    x, size = tracker.of(node, 0), rank(given(node, 1))
    if not x.axes or size is None:
        return False
    along = int(attribute(node, "axis", 0)) % len(x.axes)
    axis, indices = x.axes[along], const_array(given(node, 1))
    picked: list[Axis] = [None] * size
    if axis is not None and tracker.use(node, 0) is None and indices is not None and size == 1:
        wanted = np.where(indices < 0, indices + len(axis), indices)
        picked = [axis[wanted]]
        _write_indices(node, axis, wanted, tracker)
    else:
        tracker.channels.fix(axis)
    tracker.mask(node, 0)
    out = [*x.axes[:along], *picked, *x.axes[along + 1 :]]
    tracker.give(node, out, zero=x.zero or tracker.use(node, 0) is not None)
    return True


def _write_indices(
    node: ir.Node,
    axis: Places,
    wanted: Places,
    tracker: Tracker,
) -> None:
    def fix(edit: Edit, kept: Kept) -> None:
        stays = kept(axis)
        if stays.all():
            return
        places = np.cumsum(stays) - 1
        node.replace_input_with(
            1, edit.ints(places[wanted[stays[wanted]]], f"{node.outputs[0].name}_indices", node)
        )

    tracker.later(fix)


def _pad(node: ir.Node, tracker: Tracker) -> bool:
    """Pad: constant padding along channels adds channels, which are whatever theirs is tied to."""
    x = tracker.of(node, 0)
    pads = int_list(node, "pads", 1)
    if not x.axes or pads is None or given(node, 3) is not None or len(pads) != 2 * len(x.axes):
        return False
    constant = attribute(node, "mode", "constant") == "constant"
    out, moved = list(x.axes), {}
    for place, axis in enumerate(x.axes):
        before, after = pads[place], pads[place + len(x.axes)]
        if axis is None or (before, after) == (0, 0):
            continue
        if not constant or min(before, after) < 0:
            tracker.channels.fix(axis)
            out[place] = None
            continue
        moved[place] = tracker.channels.fresh(before), tracker.channels.fresh(after)
        out[place] = np.concatenate([moved[place][0], axis, moved[place][1]])
    filled = const_array(given(node, 2))
    zeros = given(node, 2) is None or (filled is not None and not filled.any())
    tracker.give(node, out, zero=x.zero and zeros and not attribute(node, "value", 0.0))

    def fix(edit: Edit, kept: Kept) -> None:
        new = list(pads)
        for place, (before, after) in moved.items():
            new[place] = int(kept(before).sum())
            new[place + len(x.axes)] = int(kept(after).sum())
        if tuple(new) == pads:
            return
        if "pads" in node.attributes:
            node.attributes["pads"] = ir.AttrInt64s("pads", new)
        else:
            node.replace_input_with(1, edit.ints(new, f"{node.outputs[0].name}_pads", node))

    if moved:
        tracker.later(fix)
    return True


RULES: dict[str, Rule] = {
    "Concat": _concat,
    "Gather": _gather,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
}

"""Channels through what moves them about: transposed, joined, split, picked, padded, repeated."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infc.passes.pruning.channels import Axis, Places
from infc.passes.pruning.reshaping import entries_of, stated, write_shape
from infc.passes.pruning.tracking import Kept, Rule, Tracker
from infc.passes.rewriting import (
    Edit,
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


def _concat(node: ir.Node, tracker: Tracker) -> bool:
    size = rank(node.outputs[0])
    parts = [tracker.of(node, index) for index in range(len(node.inputs))]
    shapes = [dims(value) for value in node.inputs]
    if size is None or any(len(part.axes) != size for part in parts):
        return False
    along = int(attribute(node, "axis", 0)) % size
    out: list[Axis] = []
    for axis in range(size):
        if axis != along:
            out.append(tracker.channels.tie(*(part.axes[axis] for part in parts)))
            continue
        if all(part.axes[axis] is None for part in parts):
            out.append(None)
            continue
        pieces = []
        for part, shape in zip(parts, shapes, strict=True):
            length = shape[axis] if shape is not None else None
            piece = part.axes[axis]
            if piece is None and isinstance(length, int):
                piece = tracker.channels.fresh(length)
                tracker.channels.fix(piece)
            pieces.append(piece)
        if any(piece is None for piece in pieces):
            tracker.channels.fix(*pieces)
            out.append(None)
        else:
            out.append(np.concatenate([piece for piece in pieces if piece is not None]))
    tracker.give(node, out, zero=all(p.zero for p in parts if any(a is not None for a in p.axes)))
    return True


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
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Gather": _gather,
    "Pad": _pad,
    "Resize": _resize,
    "Shape": _shape,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": _resize,
}

"""Slice and Pad, with bounds and pads that are constant.

| operator | what MindSpore Lite 2.0.0 does with it |
|---|---|
| Slice without axes or steps, of booleans | refused |
| Slice backwards by more than one | wrong |
| Slice to a bound beyond int32 | the bound is cut to its low bits |
| Pad with `edge` | pads with zeros |
| Pad with `wrap`, with axes, with negative pads, of integers | refused |
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    Edit,
    attribute,
    const_array,
    given,
    int_list,
    rank,
    static_dims,
)
from infc.targets.mindspore_lite_lowering.formula import Formula, required

INT32_MAX = 2**31 - 1
FURTHEST = -(2**31) + 1
"""What the bounds of a Slice are clamped to, which no dimension reaches."""


def _slice(node: ir.Node, edit: Edit) -> bool:
    """Every bound, axis and step written out; backwards by strides, by its indices."""
    x = required(node, 0)
    f = Formula(node, edit)
    if f.dtype == ir.DataType.BOOL:
        sliced = f.op("Slice", f.cast(x, ir.DataType.FLOAT), *node.inputs[1:])
        return f.finish(f.cast(sliced, ir.DataType.BOOL))
    bounds = [const_array(given(node, i)) for i in (1, 2)]
    if bounds[0] is None or bounds[1] is None:
        return False
    starts, ends = (tuple(int(i) for i in b.reshape(-1)) for b in bounds if b is not None)
    axes = _listed(node, 3, range(len(starts)))
    steps = _listed(node, 4, [1] * len(starts))
    depth, shape = rank(x), static_dims(x)
    if axes is None or steps is None or depth is None:
        return False
    axes = tuple(a % depth for a in axes)
    if any(s <= 0 and s != -1 for s in steps) and shape is not None:
        return _gathered(f, x, shape, list(zip(starts, ends, axes, steps, strict=True)))
    wanted = [_clamped(starts), _clamped(ends), axes, steps]
    present = [const_array(given(node, i)) for i in range(1, 5)]
    if all(p is not None and p.tolist() == list(w) for p, w in zip(present, wanted, strict=True)):
        return False
    return f.finish(f.op("Slice", x, *(f.ints(w) for w in wanted)))


def _gathered(
    f: Formula, x: ir.Value, shape: Sequence[int], rows: Sequence[tuple[int, int, int, int]]
) -> bool:
    """Each axis picked by its indices."""
    for start, end, axis, step in rows:
        indices = np.arange(shape[axis])[slice(*_python_slice(start, end, step, shape[axis]))]
        if indices.size == 0:
            return False
        x = f.gather(x, indices, axis)
    return f.finish(x)


def _python_slice(
    start: int, end: int, step: int, length: int
) -> tuple[int | None, int | None, int]:
    """ONNX's bounds as Python's: an end before the first element has no number in Python."""
    if step < 0:
        return min(start, length - 1), None if end < -length else end, step
    return start, end, step


def _clamped(bounds: Sequence[int]) -> tuple[int, ...]:
    return tuple(max(FURTHEST, min(INT32_MAX, b)) for b in bounds)


def _listed(node: ir.Node, index: int, otherwise: Sequence[int]) -> tuple[int, ...] | None:
    """A constant list of integers, `otherwise` where it is left out, None where it is computed."""
    if given(node, index) is None:
        return tuple(otherwise)
    array = const_array(given(node, index))
    return None if array is None else tuple(int(i) for i in array.reshape(-1))


def _pad(node: ir.Node, edit: Edit) -> bool:
    x = required(node, 0)
    depth, shape = rank(x), static_dims(x)
    pads = int_list(node, "pads", 1)
    if pads is None or depth is None:
        return False
    axes = _listed(node, 3, range(depth))
    if axes is None or len(pads) != 2 * len(axes):
        return False
    before, after = [0] * depth, [0] * depth
    for i, axis in enumerate(axes):
        before[axis % depth], after[axis % depth] = pads[i], pads[len(axes) + i]
    f = Formula(node, edit)
    mode = attribute(node, "mode", "constant")
    if not any(before) and not any(after):
        return f.finish(f.op("Identity", x))
    if any(p < 0 for p in (*before, *after)):
        return _cropped(f, x, before, after, mode)
    if mode == "constant":
        return _padded(node, f, x, before, after)
    if shape is None:
        return False
    for axis in range(depth):
        if before[axis] or after[axis]:
            places = np.pad(np.arange(shape[axis]), (before[axis], after[axis]), mode)
            x = f.gather(x, places, axis)
    return f.finish(x)


def _cropped(
    f: Formula, x: ir.Value, before: Sequence[int], after: Sequence[int], mode: str
) -> bool:
    """Negative pads as slices, before the others are padded."""
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        if low < 0 or high < 0:
            end = high if high < 0 else INT32_MAX
            x = f.slice(x, axis, max(0, -low), end)
    rest = [max(0, p) for p in (*before, *after)]
    return f.finish(f.op("Pad", x, f.ints(rest), given(f.node, 2), mode=mode))


def _padded(
    node: ir.Node, f: Formula, x: ir.Value, before: Sequence[int], after: Sequence[int]
) -> bool:
    """With a constant: as it is for floats, joined to blocks of it for others."""
    fill = const_array(given(node, 2))
    if given(node, 2) is not None and fill is None:
        return False
    if f.dtype == ir.DataType.FLOAT:
        if given(node, 3) is None and len(node.inputs) < 4:
            return False
        return f.finish(f.op("Pad", x, f.ints([*before, *after]), given(node, 2)))
    shape = list(static_dims(x) or ())
    if len(shape) != len(before):
        return False
    number = np.zeros((), f.dtype.numpy()) if fill is None else fill.reshape(())
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        blocks = []
        for count in (low, high):
            size = [count if a == axis else d for a, d in enumerate(shape)]
            blocks.append(f.constant(np.full(size, number)) if count else None)
        parts = [v for v in (blocks[0], x, blocks[1]) if v is not None]
        x = f.concat(parts, axis)
        shape[axis] += low + high
    return f.finish(x)


RULES = {"Pad": _pad, "Slice": _slice}

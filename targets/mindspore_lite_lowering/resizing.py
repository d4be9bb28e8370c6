"""Resize as the linear map that it is along each axis.

    y = M x,  M (out, in):  nearest one 1 in each row, linear two numbers, cubic four

MindSpore Lite 2.0.0 takes `nearest_mode` for granted, derives the scale from the sizes where the
model gives another one, and has no cubic kernel: linear by the ratio of the sizes and nearest by
asymmetric flooring are left to it, on the last two of four dimensions, and everything else of
known size becomes a Gather (nearest) or a MatMul with M along each axis that changes.

Source: ONNX Resize-19 (coordinates, `nearest_mode`, `cubic_coeff_a`, `exclude_outside`,
`antialias`, `extrapolation_value`, `axes`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import Array, Edit, attribute, const_array, given, rank, static_dims
from infc.targets.mindspore_lite_lowering.formula import Formula, required, set_attributes

NATIVE_LINEAR = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
MAX_WEIGHTS = 1 << 24


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its sizes before and after, the scale, and the region of interest."""

    size: int
    target: int
    scale: float
    start: float = 0.0
    end: float = 1.0

    def places(self, mode: str) -> Array:
        """Where each output element lies, in coordinates of the input.

        In float32, as ONNX Runtime has it: that decides what is rounded down.
        """
        x = np.arange(self.target, dtype=np.float32)
        scale, size = np.float32(self.scale), np.float32(self.size)
        last = np.float32(max(self.target - 1, 1))
        if mode == "align_corners":
            return x * (size - 1) / last
        if mode == "asymmetric":
            return x / scale
        if mode == "tf_crop_and_resize":
            if self.target == 1:
                return np.float32(0.5 * (self.start + self.end)) * (size - 1) + 0 * x
            span = np.float32(self.end - self.start) * (size - 1)
            return np.float32(self.start) * (size - 1) + x * span / last
        if mode == "pytorch_half_pixel" and self.target == 1:
            return np.zeros_like(x)
        half: Array = (x + np.float32(0.5)) / scale - np.float32(0.5)
        if mode == "half_pixel_symmetric":
            adjustment = np.float32(self.target) / (scale * size)
            return size / 2 * (1 - adjustment) + half
        return half


def nearest(places: Array, mode: str, size: int) -> Array:
    """The indices that `places` are rounded to."""
    rounded: dict[str, Callable[[], Array]] = {
        "floor": lambda: np.floor(places),
        "ceil": lambda: np.ceil(places),
        "round_prefer_floor": lambda: np.ceil(places - 0.5),
        "round_prefer_ceil": lambda: np.floor(places + 0.5),
    }
    return np.clip(rounded[mode](), 0, size - 1).astype(np.int64)


def _linear_kernel(x: Array) -> Array:
    hat: Array = np.maximum(0.0, 1.0 - np.abs(x))
    return hat


def _cubic_kernel(x: Array, a: float) -> Array:
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def weights(axis: Axis, node: ir.Node) -> Array:
    """M, (target, size), float32."""
    cubic = attribute(node, "mode", "nearest") == "cubic"
    a = attribute(node, "cubic_coeff_a", -0.75)
    shrink = min(1.0, axis.scale) if attribute(node, "antialias", 0) else 1.0
    reach = (2 if cubic else 1) / shrink
    places = axis.places(coordinates(node))
    matrix = np.zeros((axis.target, axis.size))
    outside = attribute(node, "exclude_outside", 0)
    for row, place in enumerate(places):
        taps = np.arange(floor(place - reach) + 1, ceil(place + reach))
        distance = (taps - place) * shrink
        share = _cubic_kernel(distance, a) if cubic else _linear_kernel(distance)
        if outside:
            share = np.where((taps < 0) | (taps >= axis.size), 0.0, share)
        if outside or shrink != 1.0:
            share = share / share.sum()
        np.add.at(matrix[row], np.clip(taps, 0, axis.size - 1), share)
    return matrix.astype(np.float32)


def coordinates(node: ir.Node) -> str:
    """`coordinate_transformation_mode`."""
    return str(attribute(node, "coordinate_transformation_mode", "half_pixel"))


def axes_of(node: ir.Node, shape: Sequence[int], target: Sequence[int]) -> list[Axis] | None:
    """Every axis of the input; None where the scales are computed."""
    named = [a % len(shape) for a in attribute(node, "axes", range(len(shape)))]
    scales, roi = const_array(given(node, 2)), const_array(given(node, 1))
    if given(node, 2) is not None and scales is None:
        return None
    by_axis = {} if scales is None or not scales.size else dict(zip(named, scales, strict=True))
    cropped = coordinates(node) == "tf_crop_and_resize"
    if cropped and (roi is None or roi.size != 2 * len(named)):
        return None
    regions = {}
    if cropped and roi is not None:
        ends = roi.reshape(2, -1)
        regions = {a: (float(ends[0, i]), float(ends[1, i])) for i, a in enumerate(named)}
    uniform = _uniform_scale(node, shape, named)
    out = []
    for i, (size, wanted) in enumerate(zip(shape, target, strict=True)):
        scale = float(by_axis.get(i, uniform if i in named and uniform else wanted / size))
        out.append(Axis(size, wanted, scale, *regions.get(i, ())))
    return out


def _uniform_scale(node: ir.Node, shape: Sequence[int], named: Sequence[int]) -> float | None:
    """The one scale of `keep_aspect_ratio_policy`."""
    policy = attribute(node, "keep_aspect_ratio_policy", "stretch")
    sizes = const_array(given(node, 3))
    if policy == "stretch" or sizes is None:
        return None
    ratios = [float(s) / shape[a] for s, a in zip(sizes, named, strict=True)]
    return min(ratios) if policy == "not_larger" else max(ratios)


def _resize(node: ir.Node, edit: Edit) -> bool:
    shape, target = static_dims(node.inputs[0]), static_dims(node.outputs[0])
    if shape is None or target is None:
        return False
    axes = axes_of(node, shape, target)
    if axes is None:
        return False
    f = Formula(node, edit)
    x = required(node, 0)
    if _is_native(node, axes):
        if given(node, 2) is None and const_array(given(node, 3)) is not None:
            return set_attributes(node, axes=None)
        return f.finish(f.op("Resize", x, None, None, f.ints(target), **_native_attributes(node)))
    if sum(a.size * a.target for a in axes if a.size != a.target) > MAX_WEIGHTS:
        return False
    cropped = coordinates(node) == "tf_crop_and_resize"
    for i, axis in enumerate(axes):
        if axis.size == axis.target and axis.scale == 1.0 and not cropped:
            continue
        x = _along(f, node, x, i, axis)
    return f.finish(extrapolated(f, node, x, axes) if cropped else x)


def _native_attributes(node: ir.Node) -> dict[str, str]:
    names = ("mode", "coordinate_transformation_mode", "nearest_mode")
    return {n: attribute(node, n) for n in names if n in node.attributes}


def _is_native(node: ir.Node, axes: Sequence[Axis]) -> bool:
    """Whether the runtime's own kernel computes this; measured over the sizes in the tests."""
    if len(axes) != 4 or any(a.size != a.target for a in axes[:2]):
        return False
    if any(abs(a.scale * a.size - a.target) > 1e-6 or a.target == 1 for a in axes[2:]):
        return False
    if attribute(node, "antialias", 0) or attribute(node, "exclude_outside", 0):
        return False
    mode = attribute(node, "mode", "nearest")
    if mode == "linear":
        return coordinates(node) in NATIVE_LINEAR
    whole = all(a.target % a.size == 0 for a in axes[2:])
    flooring = attribute(node, "nearest_mode", "round_prefer_floor") == "floor"
    return mode == "nearest" and whole and flooring and coordinates(node) == "asymmetric"


def _along(f: Formula, node: ir.Node, x: ir.Value, i: int, axis: Axis) -> ir.Value:
    if attribute(node, "mode", "nearest") == "nearest":
        mode = attribute(node, "nearest_mode", "round_prefer_floor")
        return f.gather(x, nearest(axis.places(coordinates(node)), mode, axis.size), i)
    matrix = f.constant(weights(axis, node).T)
    depth = rank(node.inputs[0]) or 0
    order = [*(a for a in range(depth) if a != i), i]
    moved = f.matmul(f.transpose(x, order), matrix)
    return f.transpose(moved, [order.index(a) for a in range(depth)])


def extrapolated(f: Formula, node: ir.Node, x: ir.Value, axes: Sequence[Axis]) -> ir.Value:
    """What lies outside the input takes `extrapolation_value`."""
    inside = np.ones([1] * len(axes), np.bool_)
    for i, axis in enumerate(axes):
        places = axis.places("tf_crop_and_resize")
        valid = (places >= 0) & (places <= axis.size - 1)
        inside = inside & valid.reshape([-1 if k == i else 1 for k in range(len(axes))])
    value = attribute(node, "extrapolation_value", 0.0)
    return f.op("Where", f.constant(inside), x, f.constant(np.full_like(inside, value, np.float32)))


def _upsample(node: ir.Node, edit: Edit) -> bool:
    """Upsample-9 is Resize by asymmetric coordinates, flooring."""
    f = Formula(node, edit)
    attributes = {
        "mode": attribute(node, "mode", "nearest"),
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    return f.finish(f.op("Resize", required(node, 0), None, node.inputs[1], **attributes))


RULES = {"Resize": _resize, "Upsample": _upsample}

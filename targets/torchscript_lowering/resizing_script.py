"""Resampling, axis by axis. TorchScript: read as source, never imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def scaled_sizes(shape: list[int], axes: list[int], scales: list[float]) -> list[int]:
    """Return floor(size * scale) for each axis, in float32 as ONNX Runtime does."""
    out = [0 for _ in axes]
    for i, axis in enumerate(axes):
        size = torch.mul(torch.tensor(float(shape[axis])), torch.tensor(scales[i]))
        out[i] = int(torch.floor(size.to(torch.float32)))
    return out


def whole_sizes(shape: list[int], axes: list[int], scales: list[float]) -> list[int]:
    """Return size * scale for each axis; fails where one is not whole (see `resizing`)."""
    for i, axis in enumerate(axes):
        length = float(shape[axis]) * scales[i]
        assert length == float(int(length)), "align_corners with a scale that gives no whole length"
    return scaled_sizes(shape, axes, scales)


def scales_to(shape: list[int], axes: list[int], sizes: list[int]) -> list[float]:
    """Return size / old size for each axis."""
    return [float(sizes[i]) / float(max(shape[axes[i]], 1)) for i in range(len(axes))]


def kept_sizes(
    shape: list[int], axes: list[int], sizes: list[int], policy: str
) -> tuple[list[int], list[float]]:
    """Return sizes and scales of one factor: the least (not_larger) or the greatest of all."""
    scales = scales_to(shape, axes, sizes)
    factor = scales[0]
    for scale in scales:
        factor = min(factor, scale) if policy == "not_larger" else max(factor, scale)
    kept = [int(float(shape[a]) * factor + 0.5) for a in axes]
    return kept, [factor for _ in axes]


def coordinates(out: int, size: int, scale: float, mode: str, start: float, end: float) -> Tensor:
    """Return where each of `out` elements lies among `size`, float32 (Resize-19)."""
    at = torch.arange(out, dtype=torch.float32)
    if mode == "asymmetric":
        return torch.div(at, scale)
    if mode == "align_corners":
        if out == 1:
            return torch.zeros_like(at)
        return torch.div(torch.mul(at, float(size - 1)), float(out - 1))
    if mode == "tf_crop_and_resize":
        if out == 1:
            return torch.full_like(at, 0.5 * (start + end) * float(size - 1))
        step = (end - start) * float(size - 1) / float(out - 1)
        return torch.add(torch.mul(at, step), start * float(size - 1))
    half = torch.div(torch.add(at, 0.5), scale)
    if mode == "tf_half_pixel_for_nn":
        return half
    if mode == "pytorch_half_pixel" and out == 1:
        return torch.zeros_like(at)
    half = torch.sub(half, 0.5)
    if mode == "half_pixel_symmetric":
        adjustment = float(out) / (scale * float(size))
        return torch.add(half, float(size) / 2.0 * (1.0 - adjustment))
    return half


def nearest_index(at: Tensor, rounding: str) -> Tensor:
    """Return the index that `rounding` picks."""
    if rounding == "floor":
        return torch.floor(at)
    if rounding == "ceil":
        return torch.ceil(at)
    if rounding == "round_prefer_ceil":
        return torch.floor(torch.add(at, 0.5))
    return torch.ceil(torch.sub(at, 0.5))


def kernel_weight(distance: Tensor, mode: str, a: float) -> Tensor:
    """Return the linear or cubic (Keys, coefficient a) kernel at a distance >= 0."""
    if mode == "linear":
        return torch.clamp(torch.sub(1.0, distance), min=0.0)
    d = distance
    near = ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    far = ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    zero = torch.zeros_like(d)
    return torch.where(torch.le(d, 1.0), near, torch.where(torch.lt(d, 2.0), far, zero))


def axis_weights(
    at: Tensor, size: int, scale: float, mode: str, a: float, exclude: bool, antialias: bool
) -> Tensor:
    """Return the interpolation matrix, (out, size); antialias widens the kernel by 1 / scale."""
    shrink = min(scale, 1.0) if antialias else 1.0
    radius = 1.0 if mode == "linear" else 2.0
    reach = int(torch.ceil(torch.tensor(radius / shrink))) + 1
    taps = torch.arange(1 - reach, reach + 1, dtype=torch.float32)
    index = torch.add(torch.floor(at).unsqueeze(1), taps.unsqueeze(0))
    distance = torch.abs(torch.sub(index, at.unsqueeze(1)))
    weight = kernel_weight(torch.mul(distance, shrink), mode, a)
    if exclude:
        outside = torch.logical_or(torch.lt(index, 0.0), torch.gt(index, float(size - 1)))
        weight = torch.where(outside, torch.zeros_like(weight), weight)
    if exclude or antialias:
        weight = torch.div(weight, torch.sum(weight, [1], True))
    inside = torch.clamp(index, 0.0, float(size - 1)).to(torch.int64)
    matrix = torch.zeros([at.shape[0], size], dtype=torch.float32)
    return torch.scatter_add(matrix, 1, inside, weight)


def resize(
    x: Tensor,
    axes: list[int],
    sizes: list[int],
    scales: list[float],
    mode: str,
    transform: str,
    rounding: str,
    a: float,
    exclude: bool,
    antialias: bool,
    roi: list[float] | None,
    fill: float,
) -> Tensor:
    """Resize-19. `roi`: starts, then ends, for each axis; outside of it is `fill`."""
    y = (
        x
        if mode == "nearest"
        else x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    )
    for i, axis in enumerate(axes):
        size, out, scale = x.shape[axis], sizes[i], scales[i]
        start, end = 0.0, 1.0
        if roi is not None:
            start, end = roi[i], roi[len(axes) + i]
        if out != size or scale != 1.0 or start != 0.0 or end != 1.0:
            at = coordinates(out, size, scale, transform, start, end)
            if mode == "nearest":
                index = torch.clamp(nearest_index(at, rounding), 0.0, float(size - 1))
                y = torch.index_select(y, axis, index.to(torch.int64))
            else:
                matrix = axis_weights(at, size, scale, mode, a, exclude, antialias).to(y.dtype)
                last = torch.matmul(torch.transpose(y, axis, -1), torch.t(matrix))
                y = torch.transpose(last, axis, -1)
            if roi is not None:
                outside = torch.logical_or(torch.lt(at, 0.0), torch.gt(at, float(size - 1)))
                form = [1 for _ in range(y.dim())]
                form[axis] = -1
                y = torch.where(outside.reshape(form), torch.full_like(y, fill), y)
    if not x.is_floating_point():
        y = torch.round(y) if mode != "nearest" else y
    return y.to(x.dtype)

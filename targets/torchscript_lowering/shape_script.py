"""Shapes. TorchScript: read as source, never imported."""

# ruff: noqa: C416 - what they ask for is not in the language.
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def reshape(x: Tensor, shape: list[int], allow_zero: bool) -> Tensor:
    """Reshape-14: 0 keeps the dimension unless `allow_zero`."""
    dims = [d for d in shape]
    if not allow_zero:
        for i, d in enumerate(shape):
            if d == 0:
                dims[i] = x.shape[i]
    return torch.reshape(x, dims)


def reverse_axes(x: Tensor) -> Tensor:
    """Transpose-13 without `perm`."""
    return x.permute([x.dim() - 1 - i for i in range(x.dim())])


def positive(axes: list[int], rank: int) -> list[int]:
    """Return the axes with negative ones counted from the end of `rank`."""
    out = [0 for _ in axes]
    for i, axis in enumerate(axes):
        out[i] = axis + rank if axis < 0 else axis
    return out


def unsqueeze(x: Tensor, axes: list[int]) -> Tensor:
    """Unsqueeze-13: the axes count in the result."""
    at = positive(axes, x.dim() + len(axes))
    at.sort()
    for axis in at:
        x = torch.unsqueeze(x, axis)
    return x


def expand(x: Tensor, shape: list[int]) -> Tensor:
    """Expand-13: `shape` and x broadcast each other."""
    rank = max(x.dim(), len(shape))
    dims = [1 for _ in range(rank)]
    for i, size in enumerate(x.shape):
        dims[rank - x.dim() + i] = size
    for i, size in enumerate(shape):
        if size != 1:
            dims[rank - len(shape) + i] = size
    return x.expand(dims)


def integer_range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Range-11 for integers."""
    first, last, step = int(start), int(limit), int(delta)
    if (last - first) * step <= 0:
        last = first
        step = 1
    return torch.arange(first, last, step, dtype=start.dtype)


def float_range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Range-11 for floats: start + i delta."""
    first, last, step = float(start), float(limit), float(delta)
    count = max(int(torch.ceil(torch.tensor((last - first) / step, dtype=torch.float64))), 0)
    steps = torch.arange(count, dtype=torch.float64)
    return torch.add(torch.mul(steps, step), first).to(start.dtype)


def eye_like(x: Tensor, k: int, dtype: int) -> Tensor:
    """EyeLike-9: ones where column - row = k."""
    rows = torch.arange(x.shape[0]).unsqueeze(1)
    columns = torch.arange(x.shape[1]).unsqueeze(0)
    return torch.eq(torch.sub(columns, rows), k).to(dtype)


def depth_to_space(x: Tensor, block: int) -> Tensor:
    """DepthToSpace-13, mode DCR."""
    n, c, h, w = x.shape
    y = x.reshape([n, block, block, c // (block * block), h, w])
    y = y.permute([0, 3, 4, 1, 5, 2])
    return y.reshape([n, c // (block * block), h * block, w * block])


def space_to_depth(x: Tensor, block: int) -> Tensor:
    """SpaceToDepth-13."""
    n, c, h, w = x.shape
    y = x.reshape([n, c, h // block, block, w // block, block])
    y = y.permute([0, 3, 5, 1, 2, 4])
    return y.reshape([n, c * block * block, h // block, w // block])


def center_crop_pad(x: Tensor, shape: list[int], axes: list[int] | None) -> Tensor:
    """CenterCropPad-18: the odd element of a crop or a padding is at the end."""
    at = [i for i in range(x.dim())]
    if axes is not None:
        at = axes
    for i, axis in enumerate(at):
        size, want = x.shape[axis], shape[i]
        if size > want:
            x = x.narrow(axis, (size - want) // 2, want)
        elif size < want:
            y = axis if axis >= 0 else axis + x.dim()
            pads = [0 for _ in range(2 * x.dim())]
            before = (want - size) // 2
            pads[2 * (x.dim() - 1 - y)] = before
            pads[2 * (x.dim() - 1 - y) + 1] = want - size - before
            x = torch.constant_pad_nd(x, pads, 0)
    return x

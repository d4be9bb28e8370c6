"""Normalisations. TorchScript: read as source, never imported."""

# ruff: noqa: C416 - what they ask for is not in the language.
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def axes_from(rank: int, axis: int) -> list[int]:
    """Return the axes from `axis` on."""
    return [i for i in range(axis + rank if axis < 0 else axis, rank)]


def single(x: Tensor) -> Tensor:
    """Return x in float32, or as it is where it is double."""
    return x if x.dtype == torch.float64 else x.to(torch.float32)


def layer_normal(
    x: Tensor, scale: Tensor, axis: int, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return LayerNormalization-17 without its bias, the mean, and 1 / the deviation."""
    wide = single(x)
    axes = axes_from(x.dim(), axis)
    mean = torch.mean(wide, axes, True)
    centred = torch.sub(wide, mean)
    variance = torch.mean(torch.mul(centred, centred), axes, True)
    inverse = torch.rsqrt(torch.add(variance, epsilon))
    return torch.mul(torch.mul(centred, inverse).to(x.dtype), scale), mean, inverse


def rms_normal(x: Tensor, scale: Tensor, axis: int, epsilon: float) -> Tensor:
    """RMSNormalization-23."""
    wide = single(x)
    square = torch.mean(torch.mul(wide, wide), axes_from(x.dim(), axis), True)
    normal = torch.mul(wide, torch.rsqrt(torch.add(square, epsilon)))
    return torch.mul(normal.to(x.dtype), scale)


def group_normal(x: Tensor, groups: int, scale: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """GroupNormalization-18: one scale and one bias for each group."""
    y = torch.group_norm(x, groups, None, None, epsilon, False)
    split = y.reshape([x.shape[0], groups, -1])
    split = torch.add(torch.mul(split, scale.reshape([1, -1, 1])), bias.reshape([1, -1, 1]))
    return split.reshape(x.shape)


def lp_normal(x: Tensor, axis: int, p: float) -> Tensor:
    """LpNormalization-22."""
    if p == 1.0:
        norm = torch.sum(torch.abs(x), [axis], True)
    else:
        norm = torch.sqrt(torch.sum(torch.mul(x, x), [axis], True))
    return torch.where(torch.eq(norm, 0), torch.zeros_like(x), torch.div(x, norm))


def local_response(x: Tensor, size: int, alpha: float, beta: float, bias: float) -> Tensor:
    """LRN-13: the window reaches floor((size-1)/2) channels back and ceil((size-1)/2) on."""
    n, c = x.shape[0], x.shape[1]
    squares = torch.mul(x, x).reshape([n, 1, c, -1])
    padded = torch.constant_pad_nd(squares, [0, 0, (size - 1) // 2, size // 2], 0)
    mean = torch.ops.aten.avg_pool2d(padded, [size, 1], [1, 1], [0, 0], False, True)
    return torch.div(x, torch.pow(torch.add(torch.mul(mean, alpha), bias), beta).reshape(x.shape))

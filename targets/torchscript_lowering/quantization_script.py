"""Quantised tensors. TorchScript: read as source, never imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def spread(values: Tensor, shape: list[int], axis: int, block: int) -> Tensor:
    """Return a scale or zero point shaped to broadcast against a tensor of `shape`.

    A vector goes along `axis`; with a block size each value serves that many elements of it.
    """
    at = axis + len(shape) if axis < 0 else axis
    if values.numel() == 1:
        return values.reshape([])
    if block > 0:
        return torch.repeat_interleave(values, block, at).narrow(at, 0, shape[at])
    form = [1 for _ in shape]
    form[at] = -1
    return values.reshape(form)


def dynamic_quantize(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """DynamicQuantizeLinear-11: uint8 values, scale and zero point."""
    low = torch.clamp(torch.amin(x), max=0.0)
    high = torch.clamp(torch.amax(x), min=0.0)
    scale = torch.div(torch.sub(high, low), 255.0)
    safe = torch.where(torch.eq(scale, 0), torch.ones_like(scale), scale)
    zero = torch.clamp(torch.round(torch.div(torch.neg(low), safe)), 0, 255)
    q = torch.clamp(torch.add(torch.round(torch.div(x, safe)), zero), 0, 255)
    return q.to(torch.uint8), scale, zero.to(torch.uint8)


def as_rows(values: Tensor) -> Tensor:
    """Return a vector as a column, which broadcasts over the rows of a matrix."""
    return values.reshape([-1, 1]) if values.numel() > 1 else values.reshape([])


def minus_row_zeros(a: Tensor, zero: Tensor) -> Tensor:
    """Return a - zero, where `zero` is a scalar or has one value for each row of a."""
    return torch.sub(a, as_rows(zero).to(a.dtype))


def channel_scale(scale: Tensor, rank: int) -> Tensor:
    """Return scales, one or for each channel, shaped for (N, C, ...), in double."""
    shape = [1 for _ in range(rank)]
    shape[1] = -1
    return scale.to(torch.float64).reshape(shape)

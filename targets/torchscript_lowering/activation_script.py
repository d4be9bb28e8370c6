"""Activations that take more than an expression. TorchScript: read as source, never imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def shrink(x: Tensor, lambd: float, bias: float) -> Tensor:
    """Return x + bias where x < -lambd, x - bias where x > lambd, else 0."""
    zero = torch.zeros_like(x)
    above = torch.where(torch.gt(x, lambd), torch.sub(x, bias).to(x.dtype), zero)
    return torch.where(torch.lt(x, -lambd), torch.add(x, bias).to(x.dtype), above)


def rows_from(x: Tensor, axis: int) -> Tensor:
    """Return x as a matrix: the dimensions before `axis` by those from it on (Flatten-13)."""
    at = axis + x.dim() if axis < 0 else axis
    rows, columns = 1, 1
    for i, size in enumerate(x.shape):
        if i < at:
            rows = rows * size
        else:
            columns = columns * size
    return x.reshape([rows, columns])


def hardmax(x: Tensor, axis: int) -> Tensor:
    """Return 1 at the first maximum along `axis`, 0 elsewhere."""
    first = torch.argmax(x, axis, True)
    return torch.zeros_like(x).scatter(axis, first, 1.0)

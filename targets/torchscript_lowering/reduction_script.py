"""Reductions. TorchScript: read as source, never imported."""

# ruff: noqa: C416 - what they ask for is not in the language.
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from infc.targets.torchscript_lowering.shape_script import positive


def reduced_axes(axes: list[int], rank: int, noop: bool) -> list[int]:
    """Return `axes`; all of them where none are given, unless `noop`."""
    if len(axes) > 0 or noop:
        return axes
    return [i for i in range(rank)]


def sum_over(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Return the sum, of x's type; x itself over no axes."""
    if len(axes) == 0:
        return x
    return torch.sum(x, axes, keep, dtype=x.dtype)


def mean_over(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Return the mean; of integers, divided toward zero."""
    if len(axes) == 0:
        return x
    if x.is_floating_point():
        return torch.mean(x, axes, keep)
    count = 1
    for axis in axes:
        count = count * x.shape[axis]
    return torch.div(torch.sum(x, axes, keep), count, rounding_mode="trunc").to(x.dtype)


def extreme_over(x: Tensor, axes: list[int], keep: bool, largest: bool) -> Tensor:
    """Return the maximum or minimum; the identity of it where there are no elements."""
    if len(axes) == 0:
        return x
    for axis in axes:
        if x.shape[axis] == 0:
            x = torch.constant_pad_nd(x, end_pad(x, axis), extreme_identity(x, largest))
    if largest:
        return torch.amax(x, axes, keep)
    return torch.amin(x, axes, keep)


def end_pad(x: Tensor, axis: int) -> list[int]:
    """Return torch's pads that add one element at the end of `axis`."""
    at = axis + x.dim() if axis < 0 else axis
    pads = [0 for _ in range(2 * x.dim())]
    pads[2 * (x.dim() - 1 - at) + 1] = 1
    return pads


def extreme_identity(x: Tensor, largest: bool) -> float:
    """Return what changes no maximum (or minimum) of x's type."""
    if x.is_floating_point():
        return float("-inf") if largest else float("inf")
    if x.dtype == torch.bool:
        return 0.0 if largest else 1.0
    if x.dtype == torch.uint8:
        return 0.0 if largest else 255.0
    if x.dtype == torch.int8:
        return -128.0 if largest else 127.0
    if x.dtype == torch.int32:
        return -2147483648.0 if largest else 2147483647.0
    # The greatest int64 is no double; the nearest one below it stays in range.
    return -9223372036854775808.0 if largest else 9223372036854774784.0


def product_over(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Return the product, of x's type."""
    at = positive(axes, x.dim())
    at.sort(reverse=True)
    for axis in at:
        x = torch.prod(x, axis, keep, dtype=x.dtype)
    return x


def log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Return log(sum(exp(x))); x itself over no axes."""
    if len(axes) == 0:
        return x
    return torch.logsumexp(x, axes, keep)


def shifted(x: Tensor, axis: int, fill: float) -> Tensor:
    """Return x moved one step along `axis`, `fill` first."""
    size = x.shape[axis]
    first = torch.full_like(x.narrow(axis, 0, min(size, 1)), fill)
    return torch.cat([first, x.narrow(axis, 0, max(size - 1, 0))], axis)


def cumulative_sum(x: Tensor, axis: int, exclusive: bool, reverse: bool) -> Tensor:
    """CumSum-14."""
    y = torch.flip(x, [axis]) if reverse else x
    y = shifted(y, axis, 0.0) if exclusive else y
    y = torch.cumsum(y, axis, dtype=x.dtype)
    return torch.flip(y, [axis]) if reverse else y


def cumulative_product(x: Tensor, axis: int, exclusive: bool, reverse: bool) -> Tensor:
    """CumProd-26."""
    y = torch.flip(x, [axis]) if reverse else x
    y = shifted(y, axis, 1.0) if exclusive else y
    y = torch.cumprod(y, axis, dtype=x.dtype)
    return torch.flip(y, [axis]) if reverse else y

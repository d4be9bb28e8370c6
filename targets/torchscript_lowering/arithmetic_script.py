"""Arithmetic that takes more than an expression. TorchScript: read as source, never imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def integer_power(base: Tensor, exponent: Tensor) -> Tensor:
    """Return base ** exponent, truncated; a negative exponent gives 0 but for +-1."""
    wide = exponent.to(torch.int64)
    exact = torch.pow(base.to(torch.int64), torch.clamp(wide, min=0))
    rough = torch.pow(base.to(torch.float64), wide.to(torch.float64)).to(torch.int64)
    return torch.where(torch.lt(wide, 0), rough, exact).to(base.dtype)


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Div-14 where the type is not known before: integers divide toward zero."""
    if a.is_floating_point():
        return torch.div(a, b)
    return torch.div(a, b, rounding_mode="trunc")


def ints(values: Tensor) -> list[int]:
    """Return the elements of a tensor of integers."""
    flat: list[int] = values.to(torch.int64).reshape([-1]).tolist()
    return flat


def floats(values: Tensor) -> list[float]:
    """Return the elements of a tensor of floats."""
    flat: list[float] = values.to(torch.float64).reshape([-1]).tolist()
    return flat

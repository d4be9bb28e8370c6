"""Control flow and sequences. TorchScript: read as source, never imported."""

# ruff: noqa: C416 - what they ask for is not in the language.
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def stack(parts: list[Tensor], axis: int, shape: list[int], dtype: int) -> Tensor:
    """Return the parts along a new axis; no elements of `shape` where there are no parts."""
    if len(parts) > 0:
        return torch.stack(parts, axis)
    return torch.unsqueeze(torch.empty(shape, dtype=dtype), 0).narrow(0, 0, 0)


def inserted(items: list[Tensor], item: Tensor, position: int) -> list[Tensor]:
    """SequenceInsert-11: a new sequence."""
    out = [t for t in items]
    at = position + len(items) if position < 0 else position
    out.insert(at, item)
    return out


def erased(items: list[Tensor], position: int) -> list[Tensor]:
    """SequenceErase-11: a new sequence."""
    at = position + len(items) if position < 0 else position
    return [t for i, t in enumerate(items) if i != at]


def split_in(x: Tensor, part: int, axis: int, keep: bool) -> list[Tensor]:
    """SplitToSequence-24 into parts of one size, the last one smaller."""
    parts: list[Tensor] = torch.split(x, part, axis)
    if keep:
        return parts
    return [torch.squeeze(t, axis) for t in parts]

"""Shapes and axes, as far as they are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from infc.passes.rewriting.constants import const_tensor

Dim = int | str | None


def dims(value: ir.Value | None) -> tuple[Dim, ...] | None:
    """The shape: an int, a symbol, or None for each dimension; None where the rank is unknown.

    A declared dimension of zero or less is unknown: old exporters write it for "any".
    """
    if value is None:
        return None
    tensor = const_tensor(value) if value.shape is None else None
    shape = value.shape if tensor is None else tensor.shape
    if shape is None:
        return None
    known: list[Dim] = []
    for dim in shape:
        if isinstance(dim, int):
            known.append(dim if dim > 0 or value.is_initializer() else None)
        else:
            known.append(dim.value)
    return tuple(known)


def rank(value: ir.Value | None) -> int | None:
    """The number of dimensions, where it is known."""
    shape = dims(value)
    return None if shape is None else len(shape)


def static_dims(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape where every dimension is a known number."""
    shape = dims(value)
    if shape is None:
        return None
    numbers = tuple(dim for dim in shape if isinstance(dim, int))
    return numbers if len(numbers) == len(shape) else None


def same_dims(a: Sequence[Dim] | None, b: Sequence[Dim] | None) -> bool:
    """Whether two shapes are provably equal: the same numbers and the same symbols."""
    return a is not None and b is not None and None not in a and tuple(a) == tuple(b)


def broadcasts_into(small: Sequence[Dim] | None, big: Sequence[Dim] | None) -> bool:
    """Whether broadcasting `small` with `big` provably gives the shape `big`."""
    if small is None or big is None or len(small) > len(big):
        return False
    tail = big[len(big) - len(small) :]
    return all(s == 1 or (s is not None and s == b) for s, b in zip(small, tail, strict=True))


def normal_axes(axes: Iterable[int], rank: int) -> tuple[int, ...] | None:
    """Axes counted from the front; None where one is out of range or twice there."""
    found = [axis + rank if axis < 0 else axis for axis in axes]
    if any(not 0 <= axis < rank for axis in found) or len(set(found)) != len(found):
        return None
    return tuple(found)

"""Channels taken out of a graph, or set to zero in it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from infc.passes.pruning.channels import Axis
from infc.passes.pruning.tracking import Tracker, Use
from infc.passes.remove_unused import RemoveUnused
from infc.passes.rewriting import (
    LAZY_BYTES,
    Array,
    Edit,
    const_tensor,
    elements,
)

Mask = npt.NDArray[np.bool_]


def remove(model: ir.Model, tracker: Tracker, gone: Mask) -> int:
    """Take the channels that are `gone` out of weights, shapes and what states them.

    Returns how many constants became smaller.
    """
    edit = Edit(model)

    def kept(axis: npt.NDArray[np.int64]) -> Mask:
        return ~gone[axis]

    for fix in tracker.fixes:
        fix(edit, kept)
    made: dict[tuple[int, tuple[bytes | None, ...]], ir.Value] = {}
    count = 0
    for use in tracker.uses:
        masks = [None if a is None or not gone[a].any() else ~gone[a] for a in use.axes]
        if all(mask is None for mask in masks):
            continue
        count += 1
        key = id(use.value), tuple(None if m is None else m.tobytes() for m in masks)
        if key not in made:
            made[key] = _smaller(edit, use, masks)
        for node, index in use.readers:
            node.replace_input_with(index, made[key])
    for value, tracked in tracker.values.items():
        _shrink(value, tracked.axes, gone)
    RemoveUnused()(model)
    return count


def _smaller(edit: Edit, use: Use, masks: list[Mask | None]) -> ir.Value:
    tensor = const_tensor(use.value)
    if tensor is None:
        raise ValueError(f"`{use.value.name}` is not a constant")
    source = tensor
    places = [None if m is None else np.flatnonzero(m) for m in masks]
    shape = [n if p is None else len(p) for n, p in zip(source.shape.numpy(), places, strict=True)]

    def taken() -> Array:
        array = elements(source)
        for axis, place in enumerate(places):
            if place is not None:
                array = np.take(array, place, axis=axis)
        return np.ascontiguousarray(array)

    smaller: ir.TensorProtocol = (
        ir.LazyTensor(
            lambda: ir.tensor(taken(), dtype=source.dtype),
            dtype=source.dtype,
            shape=ir.Shape(shape),
        )
        if source.nbytes > LAZY_BYTES
        else ir.tensor(taken(), dtype=source.dtype)
    )
    return edit.constant(smaller, f"{use.value.name}_pruned", use.readers[0][0])


def _shrink(value: ir.Value, axes: list[Axis], gone: Mask) -> None:
    if value.shape is None:
        return
    sizes = list(value.shape)
    for place, axis in enumerate(axes):
        if axis is not None:
            sizes[place] = int((~gone[axis]).sum())
    value.shape = ir.Shape(sizes)


def silence(model: ir.Model, tracker: Tracker, gone: Mask) -> None:
    """Set the weights to zero that compute or read the channels that are `gone`; no size changes.

    Removing them is the same, save for what is averaged over them.
    """
    edit = Edit(model)
    for use in tracker.uses:
        axes = [a for a in use.axes if a is not None and gone[a].any()]
        if not use.masked or not axes:
            continue
        tensor = const_tensor(use.value)
        if tensor is None:
            continue
        array = elements(tensor).copy()
        for place, axis in enumerate(use.axes):
            if axis is not None:
                np.moveaxis(array, place, 0)[gone[axis]] = 0
        value = edit.constant(
            ir.tensor(array, dtype=tensor.dtype), f"{use.value.name}_silent", use.readers[0][0]
        )
        for node, index in use.readers:
            node.replace_input_with(index, value)

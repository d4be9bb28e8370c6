"""Constant operators that pick elements: Gather, GatherElements, GatherND, Slice.

As `constant_kernels`, which lists them: the output, or None where the operands are not valid.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infc.passes.reference import Arrays
from infc.passes.rewriting import Array, attribute


def ints(node: ir.Node, inputs: Arrays, name: str, index: int) -> list[int] | None:
    """Axes and the like, from the attribute or the input."""
    if name in node.attributes:
        return [int(i) for i in attribute(node, name)]
    array = inputs[index] if index < len(inputs) else None
    return None if array is None else [int(i) for i in array.reshape(-1)]


def gather(node: ir.Node, inputs: Arrays) -> Array | None:
    """Slices of x along `axis`; an index out of range is left to the runtime."""
    x, indices = inputs[0], inputs[1]
    if x is None or indices is None:
        return None
    axis = attribute(node, "axis", 0)
    size = x.shape[axis]
    if indices.size and not (-size <= indices.min() and indices.max() < size):
        return None
    return np.asarray(np.take(x, indices, axis))


def gather_elements(node: ir.Node, inputs: Arrays) -> Array | None:
    """The reference evaluator fails here where an axis is longer than 64 (`numpy.choose`)."""
    x, indices = inputs[0], inputs[1]
    if x is None or indices is None:
        return None
    axis = attribute(node, "axis", 0)
    size = x.shape[axis]
    if not ((indices >= -size) & (indices < size)).all():
        return None
    cut = [slice(n) for n in indices.shape]
    cut[axis] = slice(None)
    return np.take_along_axis(x[tuple(cut)], indices, axis)


def gather_nd(node: ir.Node, inputs: Arrays) -> Array | None:
    """Elements or slices of x by index tuples, `batch_dims` 0."""
    x, indices = inputs[0], inputs[1]
    if x is None or indices is None or attribute(node, "batch_dims", 0):
        return None
    return np.asarray(x[tuple(np.moveaxis(indices, -1, 0))])


def slice_(node: ir.Node, inputs: Arrays) -> Array | None:
    """Slice, with the clamping of ONNX, also backwards."""
    x, starts = inputs[0], ints(node, inputs, "starts", 1)
    ends, axes = ints(node, inputs, "ends", 2), ints(node, inputs, "axes", 3)
    if x is None or starts is None or ends is None:
        return None
    steps = ints(node, inputs, "steps", 4) or [1] * len(starts)
    cut = [slice(None)] * x.ndim
    for axis, start, end, step in zip(
        range(len(starts)) if axes is None else axes, starts, ends, steps, strict=True
    ):
        size = x.shape[axis]
        # As ONNX clamps: an `end` below -size with a negative step means "through the first".
        first = start + size if start < 0 else start
        last = end + size if end < 0 else end
        if step > 0:
            cut[axis] = slice(min(max(first, 0), size), min(max(last, 0), size), step)
        else:
            last = min(max(last, -1), size - 1)
            cut[axis] = slice(min(max(first, 0), size - 1), None if last < 0 else last, step)
    return x[tuple(cut)]

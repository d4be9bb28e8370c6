"""What constant operators compute: numpy for the frequent ones, ONNX's reference for the rest.

A kernel takes the node and its input arrays and returns the output arrays, or None where it is
not sure. The kernels here give bit for bit what `onnx.reference` gives (a test compares them);
they exist because importing and running the reference evaluator costs milliseconds per node.
Attributes of older opsets and inputs of newer ones are both understood (Unsqueeze-11 and -13).
Outputs that only repeat an input (Expand, ConstantOfShape) are broadcast views without memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from infc.passes.indexing_kernels import gather, gather_elements, gather_nd, ints, slice_
from infc.passes.reference import Arrays, reference_outputs
from infc.passes.rewriting import Array, attribute

Kernel = Callable[[ir.Node, Arrays], Array | None]


def run(node: ir.Node, inputs: Arrays, opset: int) -> list[Array] | None:
    """The outputs of a deterministic standard node; None where they cannot be computed."""
    kernel = KERNELS.get(node.op_type)
    if kernel is not None and len(node.outputs) == 1:
        with np.errstate(all="ignore"):
            output = kernel(node, inputs)
        return None if output is None else [output]
    return reference_outputs(node, inputs, opset)


def _identity(node: ir.Node, inputs: Arrays) -> Array | None:
    return inputs[0]


def _shape(node: ir.Node, inputs: Arrays) -> Array | None:
    x = inputs[0]
    if x is None:
        return None
    end = attribute(node, "end")
    return np.array(x.shape[slice(attribute(node, "start", 0), end)], np.int64)


def _size(node: ir.Node, inputs: Arrays) -> Array | None:
    return None if inputs[0] is None else np.array(inputs[0].size, np.int64)


def _cast(node: ir.Node, inputs: Arrays) -> Array | None:
    to = ir.DataType(attribute(node, "to"))
    return _converted(inputs[0], to.numpy()) if to in _CASTABLE else None


def _cast_like(node: ir.Node, inputs: Arrays) -> Array | None:
    return None if inputs[1] is None else _converted(inputs[0], inputs[1].dtype)


def _converted(x: Array | None, target: np.dtype[Any]) -> Array | None:
    """Between bool, integers of 8 bits and more, and IEEE floats; the rest is not attempted."""
    if x is None or not {x.dtype, target} <= _CASTABLE_NUMPY:
        return None
    if x.dtype.kind == "f" and target.kind in "iu":
        limits = np.iinfo(target)
        whole = np.trunc(x.astype(np.float64))
        if not ((whole >= limits.min) & (whole <= limits.max)).all():
            return None  # undefined in ONNX, and different from one processor to the next
        if target.itemsize == 8 and (np.abs(whole) >= 2.0**63).any():
            return None
    return x.astype(target)


_CASTABLE = frozenset(
    (
        ir.DataType.BOOL,
        ir.DataType.INT8,
        ir.DataType.INT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
        ir.DataType.UINT8,
        ir.DataType.UINT16,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
        ir.DataType.FLOAT16,
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
    )
)
_CASTABLE_NUMPY = frozenset(t.numpy() for t in _CASTABLE)


def _reshape(node: ir.Node, inputs: Arrays) -> Array | None:
    x, wanted = inputs[0], ints(node, inputs, "shape", 1)
    if x is None or wanted is None:
        return None
    if not attribute(node, "allowzero", 0):
        if any(n == 0 and i >= x.ndim for i, n in enumerate(wanted)):
            return None
        wanted = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    return x.reshape(wanted)


def _flatten(node: ir.Node, inputs: Arrays) -> Array | None:
    x, axis = inputs[0], attribute(node, "axis", 1)
    if x is None:
        return None
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _squeeze(node: ir.Node, inputs: Arrays) -> Array | None:
    x, axes = inputs[0], ints(node, inputs, "axes", 1)
    if x is None:
        return None
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(node: ir.Node, inputs: Arrays) -> Array | None:
    x, axes = inputs[0], ints(node, inputs, "axes", 1)
    return None if x is None or axes is None else np.expand_dims(x, tuple(axes))


def _transpose(node: ir.Node, inputs: Arrays) -> Array | None:
    x = inputs[0]
    return None if x is None else x.transpose(attribute(node, "perm"))


def _concat(node: ir.Node, inputs: Arrays) -> Array | None:
    arrays = [a for a in inputs if a is not None]
    return np.concatenate(arrays, attribute(node, "axis", 1))


def _cumsum(node: ir.Node, inputs: Arrays) -> Array | None:
    x, axis = inputs[0], inputs[1]
    if (
        x is None
        or axis is None
        or attribute(node, "exclusive", 0)
        or attribute(node, "reverse", 0)
    ):
        return None
    return np.cumsum(x, int(axis.reshape(())), dtype=x.dtype)


def _expand(node: ir.Node, inputs: Arrays) -> Array | None:
    x, shape = inputs[0], ints(node, inputs, "shape", 1)
    if x is None or shape is None:
        return None
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape)))


def _constant_of_shape(node: ir.Node, inputs: Arrays) -> Array | None:
    if inputs[0] is None:
        return None
    value = attribute(node, "value")
    fill = np.zeros((), np.float32) if value is None else value.numpy().reshape(())
    return np.broadcast_to(fill, tuple(int(n) for n in inputs[0]))


def _range(node: ir.Node, inputs: Arrays) -> Array | None:
    """Of whole numbers only: whether other steps are added up or multiplied is not specified."""
    if any(a is None or a.dtype.kind not in "iuf" for a in inputs):
        return None
    dtype = inputs[0].dtype if inputs[0] is not None else None
    bounds = [a.reshape(()).item() for a in inputs if a is not None]
    if dtype is None or any(not math.isfinite(v) or v != int(v) for v in bounds):
        return None
    start, limit, delta = (int(v) for v in bounds)
    if not delta or max(0, -(-(limit - start) // delta)) > MAX_RANGE:
        return None
    exact = _WHOLE[dtype.itemsize] if dtype.kind == "f" else math.inf
    if max(abs(start), abs(limit)) > exact:
        return None
    return np.arange(start, limit, delta, dtype=None if dtype.kind == "f" else dtype).astype(dtype)


_WHOLE = {2: 1 << 11, 4: 1 << 24, 8: 1 << 53}
"""Whole numbers up to here are exact, by the bytes of the float."""

MAX_RANGE = 1 << 20


def _where(node: ir.Node, inputs: Arrays) -> Array | None:
    condition, x, y = inputs
    if condition is None or x is None or y is None:
        return None
    return np.where(condition, x, y)


def _binary(function: Callable[[Any, Any], Any]) -> Kernel:
    def kernel(node: ir.Node, inputs: Arrays) -> Array | None:
        a, b = inputs
        if a is None or b is None or a.dtype != b.dtype:
            return None
        return np.asarray(function(a, b))

    return kernel


def _divide(a: Array, b: Array) -> Array:
    """Integers round toward zero, as in C."""
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    if not b.all():
        raise ZeroDivisionError
    if a.dtype.kind == "u":
        return np.asarray(a // b)
    floor = a // b
    return np.asarray(floor + ((floor * b != a) & ((a < 0) != (b < 0))).astype(a.dtype))


def _unary(function: Callable[[Any], Any]) -> Kernel:
    def kernel(node: ir.Node, inputs: Arrays) -> Array | None:
        return None if inputs[0] is None else np.asarray(function(inputs[0]))

    return kernel


KERNELS: dict[str, Kernel] = {
    "Abs": _unary(np.abs),
    "Add": _binary(np.add),
    "And": _binary(np.logical_and),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": _unary(np.ceil),
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Cos": _unary(np.cos),
    "CumSum": _cumsum,
    "Div": _binary(_divide),
    "Equal": _binary(np.equal),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _unary(np.floor),
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Greater": _binary(np.greater),
    "GreaterOrEqual": _binary(np.greater_equal),
    "Identity": _identity,
    "Less": _binary(np.less),
    "LessOrEqual": _binary(np.less_equal),
    "Mul": _binary(np.multiply),
    "Neg": _unary(np.negative),
    "Not": _unary(np.logical_not),
    "Or": _binary(np.logical_or),
    "Range": _range,
    "Reciprocal": _unary(np.reciprocal),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sin": _unary(np.sin),
    "Size": _size,
    "Slice": slice_,
    "Sqrt": _unary(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
    "Xor": _binary(np.logical_xor),
}

"""What QuantizeLinear and DequantizeLinear say: maps, weights, and zero points said otherwise.

    x (uint8, zero point z)  =  x - 128 (int8, zero point z - 128)

Source: ONNX QuantizeLinear-13, DequantizeLinear-13, DequantizeLinear-21 (blocks, which are left).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    Array,
    Edit,
    attribute,
    const_array,
    const_tensor,
    dims,
    dtype_of,
    elements,
    given,
    is_op,
)

BYTES = {ir.DataType.UINT8: "uint8", ir.DataType.INT8: "int8"}
TYPES = {name: dtype for dtype, name in BYTES.items()}
SMALL_INTEGERS = (*BYTES, ir.DataType.INT4, ir.DataType.UINT4)
LEAST, GREATEST = -128, 127


@dataclass(frozen=True, slots=True)
class Affine:
    """The map of a tensor: real = (integer - zero) * scale; `dtype` is uint8 or int8."""

    dtype: str
    scale: float
    zero: int

    def as_type(self, dtype: str) -> Affine:
        """The same map of integers moved into the range of the other type."""
        if dtype == self.dtype:
            return self
        return Affine(dtype, self.scale, self.zero + (128 if dtype == "uint8" else -128))


@dataclass(frozen=True, slots=True)
class Weights:
    """`integers` int8, zero point taken off; `scale` () or (channels,) float32 along `axis`."""

    integers: Array
    scale: Array
    axis: int


def affine_of(node: ir.Node | None) -> Affine | None:
    """The map that a QuantizeLinear or DequantizeLinear of bytes has, one for all elements."""
    if not is_op(node, "QuantizeLinear", "DequantizeLinear") or node is None:
        return None
    if attribute(node, "block_size", 0):
        return None
    integers = node.inputs[0] if node.op_type == "DequantizeLinear" else node.outputs[0]
    scale, zero = const_array(given(node, 1)), given(node, 2)
    offset = const_array(zero)
    name = BYTES.get(dtype_of(integers) or dtype_of(zero) or ir.DataType.UINT8)
    if scale is None or scale.size != 1 or scale.dtype != np.float32 or name is None:
        return None
    if zero is not None and (offset is None or offset.size != 1):
        return None
    return Affine(name, float(scale.reshape(())), 0 if offset is None else int(offset.reshape(())))


def real_of(value: ir.Value | None) -> tuple[ir.Value, Affine] | None:
    """The integers behind a dequantised activation, and their map."""
    node = value.producer() if value is not None else None
    if node is None or not is_op(node, "DequantizeLinear") or const_tensor(node.inputs[0]):
        return None
    found, integers = affine_of(node), node.inputs[0]
    return None if found is None or integers is None else (integers, found)


def weights_of(value: ir.Value | None) -> Weights | None:
    """The integers behind dequantised weights; None where int8 cannot hold them."""
    node = value.producer() if value is not None else None
    if node is None or not is_op(node, "DequantizeLinear") or attribute(node, "block_size", 0):
        return None
    tensor, scale = const_tensor(node.inputs[0]), const_array(given(node, 1))
    zero = given(node, 2)
    offset = const_array(zero)
    if tensor is None or scale is None or (zero is not None and offset is None):
        return None
    if tensor.dtype not in SMALL_INTEGERS or scale.dtype != np.float32:
        return None
    axis = attribute(node, "axis", 1)
    rank = len(tensor.shape)
    axis = axis + rank if axis < 0 else axis
    if scale.size > 1 and (scale.ndim != 1 or axis >= rank or scale.size != tensor.shape[axis]):
        return None
    integers = without_zero(elements(tensor), offset, axis)
    if integers is None:
        return None
    return Weights(integers, scale.reshape(() if scale.size == 1 else -1), axis)


def without_zero(array: Array, zero: Array | None, axis: int) -> Array | None:
    """`array` less its zero points, as int8; None where that does not fit."""
    wide = array.astype(np.int16)
    if zero is not None and np.any(zero.astype(np.int16)):
        spread = zero.astype(np.int16)
        if zero.size > 1:
            spread = spread.reshape([-1 if i == axis else 1 for i in range(wide.ndim)])
        wide = wide - spread
    if wide.size and (wide.min() < LEAST or wide.max() > GREATEST):
        return None
    return wide.astype(np.int8)


def _bias_steps(value: ir.Value | None, scale: Array) -> Array | None:
    """The int32 behind a dequantised bias whose scale is `scale`, input x weight; (channels,)."""
    node = value.producer() if value is not None else None
    if node is None or not is_op(node, "DequantizeLinear"):
        return None
    array, own, zero = (const_array(given(node, i)) for i in range(3))
    if array is None or own is None or array.dtype != np.int32 or array.ndim != 1:
        return None
    if own.size not in (1, array.size) or (zero is not None and np.any(zero)):
        return None
    if not np.allclose(own, scale, rtol=1e-5, atol=0):
        return None
    return array


def moved(value: ir.Value, dtype: str, edit: Edit, at: ir.Node) -> ir.Value:
    """The bytes of `value` in the range of the other type: 128 more or less."""
    if BYTES.get(dtype_of(value) or ir.DataType.UNDEFINED) == dtype:
        return value
    shape = dims(value)
    offset = np.asarray(128 if dtype == "uint8" else -128, np.int16)
    wide = edit.emit(
        "Cast",
        [value],
        {"to": int(ir.DataType.INT16)},
        at=at,
        dtype=ir.DataType.INT16,
        shape=shape,
    )
    constant = edit.constant(offset, f"{value.name}_offset", at)
    shifted = edit.emit("Add", [wide, constant], at=at, dtype=ir.DataType.INT16, shape=shape)
    kind = TYPES[dtype]
    return edit.emit("Cast", [shifted], {"to": int(kind)}, at=at, dtype=kind, shape=shape)


def bias_of(
    value: ir.Value | None, scale: Array, outputs: int, factor: float = 1.0
) -> tuple[Array, Array | None] | None:
    """What a bias adds to the sums, (outputs,) int64, and to what they are scaled to, float32.

    None where it is no constant vector.
    """
    nothing = np.zeros(outputs, np.int64)
    if value is None:
        return nothing, None
    steps = _bias_steps(value, scale) if factor == 1.0 else None
    if steps is not None and steps.size == outputs:
        return steps.astype(np.int64), None
    array = _float_constant(value)
    if array is None or array.size not in (1, outputs) or array.size != max(array.shape, default=1):
        return None
    real = np.broadcast_to(array.reshape(-1) * np.float32(factor), (outputs,))
    return nothing, np.ascontiguousarray(real)


def _float_constant(value: ir.Value) -> Array | None:
    """The elements of a float32 constant, also one behind a DequantizeLinear."""
    node = value.producer()
    if node is None or not is_op(node, "DequantizeLinear"):
        array = const_array(value)
        return array if array is not None and array.dtype == np.float32 else None
    integers, scale = const_array(given(node, 0)), const_array(given(node, 1))
    zero = const_array(given(node, 2))
    if integers is None or scale is None or integers.ndim != 1 or scale.dtype != np.float32:
        return None
    steps = integers.astype(np.float32) - (0 if zero is None else zero.astype(np.float32))
    return np.asarray(steps * scale.reshape(-1), np.float32)

"""Quantisation that TensorRT has no integers for, computed in float32 as ONNX defines it.

    QuantizeLinear(x, s, z)      = Clip(Round(x / s) + z, low, high)     uint8, or z other than 0
    DequantizeLinear(q, s, z)    = (q - z) * s
    DynamicQuantizeLinear(x)     = the same, with s and z of the least and greatest of x
    ConvInteger(x, w, zx, zw)    = Conv(x - zx, w - zw)
    MatMulInteger(a, b, za, zb)  = MatMul(a - za, b - zb)
    QLinearConv, QLinearMatMul   = theirs between DequantizeLinear and QuantizeLinear

TensorRT's own are symmetric int8 with constant scales: those stay. Sums of products are exact up
to 2 ** 24, 258 products of the largest 8 bits; beyond that they round as float32 does.
Source: ONNX operators QuantizeLinear, DynamicQuantizeLinear, ConvInteger, MatMulInteger; the
restrictions of QuantizeLinear in onnx-tensorrt's docs/operators.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    WEIGHT_BYTES,
    Edit,
    attribute,
    const_array,
    const_tensor,
    dims,
    dtype_of,
    given,
    rank,
)
from infc.targets.mindspore_lite_lowering.formula import Formula
from infc.targets.tensorrt_lowering.types import SATURATED

LIMITS = {ir.DataType.UINT8: (0.0, 255.0), ir.DataType.INT8: (-128.0, 127.0)}


def _quantize(node: ir.Node, edit: Edit) -> bool:
    point = given(node, 2)
    dtype = dtype_of(point) if point is not None else ir.DataType.UINT8
    plain = not attribute(node, "block_size", 0) and not attribute(node, "output_dtype", 0)
    if dtype not in LIMITS or not plain or _is_native(node):
        return False
    if dtype_of(node.inputs[0]) != ir.DataType.FLOAT:
        return False
    f = Formula(node, edit)
    scale = _along(f, given(node, 1))
    zero = None if point is None else _along(f, point)
    if scale is None or (point is not None and zero is None):
        return False
    steps = f.op("Round", f.div(node.inputs[0], scale))
    if zero is not None:
        steps = f.add(steps, zero)
    return f.finish(f.cast(_saturated(f, steps, dtype), dtype))


def _saturated(f: Formula, steps: ir.Value, dtype: ir.DataType) -> ir.Value:
    """Whole numbers within the limits of `dtype`, in float32."""
    clipped = f.op("Clip", steps, *LIMITS[dtype])
    clipped.type, clipped.shape = ir.TensorType(ir.DataType.FLOAT), steps.shape
    node = clipped.producer()
    assert node is not None
    node.meta[SATURATED] = True
    return clipped


def _dequantize(node: ir.Node, edit: Edit) -> bool:
    quantized = node.inputs[0]
    dtype = dtype_of(quantized)
    if dtype not in (*LIMITS, ir.DataType.INT32) or attribute(node, "block_size", 0):
        return False
    if dtype == ir.DataType.INT8 and _is_native(node):
        return False
    if dtype_of(given(node, 1)) != ir.DataType.FLOAT or quantized is None:
        return False
    f = Formula(node, edit)
    f.dtype = ir.DataType.FLOAT
    scale = _along(f, given(node, 1))
    point = given(node, 2)
    zero = None if point is None else _along(f, point)
    if scale is None or (point is not None and zero is None):
        return False
    wide = _known(f, quantized) or _real(f, quantized)
    return f.finish(f.mul(wide if zero is None else f.sub(wide, zero), scale))


def _is_native(node: ir.Node) -> bool:
    """Symmetric int8 with a constant scale."""
    point, scale = given(node, 2), given(node, 1)
    if const_tensor(scale) is None:
        return False
    if point is None:
        return node.op_type == "DequantizeLinear"
    array = const_array(point)
    return dtype_of(point) == ir.DataType.INT8 and array is not None and not np.any(array)


def _known(f: Formula, value: ir.Value) -> ir.Value | None:
    """A constant in float32; None for what is no constant."""
    tensor = const_tensor(value)
    if tensor is None or tensor.nbytes > WEIGHT_BYTES:
        return None
    return f.constant(tensor.numpy().astype(np.float32))


def _real(f: Formula, value: ir.Value) -> ir.Value:
    """`value` in float32: what it was before it became an integer, where that is known."""
    before = value.producer()
    if before is not None and before.op_type == "Cast" and dtype_of(value) in LIMITS:
        source = before.inputs[0]
        clip = source.producer() if source is not None else None
        if source is not None and clip is not None and clip.meta.get(SATURATED):
            return source
    return f.cast(value, ir.DataType.FLOAT)


def _along(f: Formula, value: ir.Value | None) -> ir.Value | None:
    """A scale or a zero point in float32, shaped to broadcast along the node's axis."""
    size = rank(value)
    if value is None or size is None or size > 1:
        return None
    floating = dtype_of(value) == ir.DataType.FLOAT
    real = value if floating else _known(f, value) or _real(f, value)
    if size == 0 or dims(value) == (1,):
        return real
    total = rank(f.node.inputs[0])
    if total is None:
        return None
    axis = attribute(f.node, "axis", 1) % total
    return f.reshape(real, [-1 if i == axis else 1 for i in range(total)])


def _dynamic(node: ir.Node, edit: Edit) -> bool:
    x = given(node, 0)
    if x is None or dtype_of(x) != ir.DataType.FLOAT:
        return False
    f = Formula(node, edit)
    low = f.min(f.reduce("ReduceMin", x, None, keepdims=0), 0.0)
    high = f.max(f.reduce("ReduceMax", x, None, keepdims=0), 0.0)
    span = f.div(f.sub(high, low), 255.0)
    # A tensor of zeros has the scale 0, by which nothing can be divided: any other does.
    scale = f.add(span, f.cast(f.equal(span, 0.0), ir.DataType.FLOAT))
    byte = ir.DataType.UINT8
    zero = _saturated(f, f.op("Round", f.div(f.neg(low), scale)), byte)
    q = _saturated(f, f.add(f.op("Round", f.div(x, scale)), zero), byte)
    results = [f.cast(q, byte), span, f.cast(zero, byte)]
    types = (byte, ir.DataType.FLOAT, byte)
    for old, new, dtype in zip(list(node.outputs), results, types, strict=False):
        new.type, new.shape = ir.TensorType(dtype), old.shape
        if old.uses() or old.is_graph_output():
            edit.forward(old, new)
    return True


def _centred(f: Formula, index: int, point: int, *, last: bool) -> ir.Value | None:
    """Input `index` less its zero point, in float32.

    A zero point of one dimension is one for each row (`last` False) or column (`last`) of a
    matrix, or for each output channel of a weight.
    """
    value, zero = given(f.node, index), given(f.node, point)
    if value is None:
        return None
    real = _known(f, value) or _real(f, value)
    if zero is None:
        return real
    offset = _known(f, zero) or _real(f, zero)
    if rank(zero) == 1 and dims(zero) != (1,):
        total = rank(value)
        if total is None:
            return None
        axis = total - 1 if last else (0 if f.node.op_type == "ConvInteger" else total - 2)
        offset = f.reshape(offset, [-1 if i == axis else 1 for i in range(total)])
    elif rank(zero) not in (0, 1):
        return None
    return f.sub(real, offset)


def _conv_integer(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    f.dtype = ir.DataType.FLOAT
    x, w = _centred(f, 0, 2, last=False), _centred(f, 1, 3, last=False)
    if x is None or w is None:
        return False
    attributes = {name: a.value for name, a in node.attributes.items()}
    return f.finish(f.cast(f.op("Conv", x, w, **attributes), ir.DataType.INT32))


def _matmul_integer(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    f.dtype = ir.DataType.FLOAT
    a, b = _centred(f, 0, 2, last=False), _centred(f, 1, 3, last=True)
    if a is None or b is None:
        return False
    return f.finish(f.cast(f.matmul(a, b), ir.DataType.INT32))


def _qlinear_conv(node: ir.Node, edit: Edit) -> bool:
    """Between DequantizeLinear and QuantizeLinear, which are seen to in their turn."""
    f = Formula(node, edit)
    x, xs, xz, w, ws, wz, ys, yz = (given(node, i) for i in range(8))
    attributes = {name: a.value for name, a in node.attributes.items()}
    operands = [_pair(f, x, xs, xz, 1), _pair(f, w, ws, wz, 0)]
    bias = given(node, 8)
    if bias is not None:
        scale = f.mul(xs, ws)
        scale.type, scale.shape = ir.TensorType(ir.DataType.FLOAT), ws.shape if ws else None
        operands.append(_pair(f, bias, scale, None, 0))
    result = f.op("Conv", *operands, **attributes)
    return f.finish(_typed(f.op("QuantizeLinear", result, ys, yz), node.outputs[0].dtype))


def _qlinear_matmul(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    a, s, z, b, bs, bz, ys, yz = (given(node, i) for i in range(8))
    if dtype_of(s) != ir.DataType.FLOAT or any((rank(v) or 0) > 1 for v in (s, bs)):
        return False
    columns = (rank(b) or 1) - 1
    product = f.matmul(_pair(f, a, s, z, 0), _pair(f, b, bs, bz, columns))
    return f.finish(_typed(f.op("QuantizeLinear", product, ys, yz), node.outputs[0].dtype))


def _pair(
    f: Formula, value: ir.Value | None, scale: Any, point: ir.Value | None, axis: int
) -> ir.Value:
    """`value` dequantised, along `axis` where there are several scales."""
    real = f.op("DequantizeLinear", value, scale, point, axis=axis)
    real.shape = None if value is None else value.shape
    return _typed(real, ir.DataType.FLOAT)


def _typed(value: ir.Value, dtype: ir.DataType | None) -> ir.Value:
    if dtype is not None:
        value.type = ir.TensorType(dtype)
    return value


RULES = {
    "ConvInteger": _conv_integer,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic,
    "MatMulInteger": _matmul_integer,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "QuantizeLinear": _quantize,
}

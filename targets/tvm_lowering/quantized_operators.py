"""Operators that came quantised, as the float operator between DequantizeLinear and QuantizeLinear.

    QLinearConv(x, w, b)      ->  Q(Conv(DQ(x), DQ(w), DQ(b)))          b has the scale x * w
    QLinearMatMul(a, b)       ->  Q(MatMul(DQ(a), DQ(b)))
    ConvInteger(x, w)         ->  Cast(Conv(Cast(x) - z, Cast(w) - z'))   where int8 is too narrow

Source: ONNX QLinearConv-10, QLinearMatMul-21, ConvInteger-10.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import Dim, Edit, const_array, dims, dtype_of, given, kept

FLOAT = ir.DataType.FLOAT
INT32 = ir.DataType.INT32


def qlinear_conv(node: ir.Node, edit: Edit) -> bool:
    """QLinearConv between pairs."""
    x, xs, xz, w, ws, wz, ys, yz = (given(node, i) for i in range(8))
    input_scale, weight_scale = const_array(xs), const_array(ws)
    inputs = [_real(x, xs, xz, edit, node), _real(w, ws, wz, edit, node, axis=0)]
    bias = given(node, 8)
    if bias is not None:
        if input_scale is None or weight_scale is None:
            return False
        scale = (input_scale.reshape(()) * weight_scale).astype(np.float32)
        constant = edit.constant(scale, f"{bias.name}_scale", node)
        inputs.append(_real(bias, constant, None, edit, node, axis=0))
    shape = dims(node.outputs[0])
    y = edit.emit("Conv", inputs, kept(node), at=node, dtype=FLOAT, shape=shape)
    edit.replace(node.outputs[0], "QuantizeLinear", [y, ys, yz])
    return True


def qlinear_matmul(node: ir.Node, edit: Edit) -> bool:
    """QLinearMatMul between pairs, where each operand has one scale or one for each column."""
    a, a_scale, az, b, bs, bz, ys, yz = (given(node, i) for i in range(8))
    columns = const_array(bs)
    rows = const_array(a_scale)
    if rows is None or columns is None or rows.size != 1 or columns.ndim > 1:
        return False
    inputs = [
        _real(a, a_scale, az, edit, node),
        _real(b, bs, bz, edit, node, axis=-1),
    ]
    y = edit.emit("MatMul", inputs, at=node, dtype=FLOAT, shape=dims(node.outputs[0]))
    edit.replace(node.outputs[0], "QuantizeLinear", [y, ys, yz])
    return True


def integer_in_float(node: ir.Node, edit: Edit) -> bool:
    """ConvInteger or MatMulInteger in float32, exact up to sums of 2**24."""
    op_type = "Conv" if node.op_type == "ConvInteger" else "MatMul"
    operands = []
    for i in range(2):
        value, zero = given(node, i), given(node, i + 2)
        if value is None:
            return False
        real = _float(value, edit, node)
        if zero is not None:
            size = dims(zero)
            if size not in ((), (1,)):
                return False
            less = [real, _float(zero, edit, node)]
            real = edit.emit("Sub", less, at=node, dtype=FLOAT, shape=dims(value))
        operands.append(real)
    y = node.outputs[0]
    result = edit.emit(op_type, operands, kept(node), at=node, dtype=FLOAT, shape=dims(y))
    edit.replace(y, "Cast", [result], {"to": int(INT32)})
    return True


def _float(value: ir.Value, edit: Edit, at: ir.Node) -> ir.Value:
    attributes = {"to": int(FLOAT)}
    return edit.emit("Cast", [value], attributes, at=at, dtype=FLOAT, shape=dims(value))


def _real(
    value: ir.Value | None,
    scale: ir.Value | None,
    zero: ir.Value | None,
    edit: Edit,
    at: ir.Node,
    axis: int | None = None,
) -> ir.Value:
    inputs: Sequence[ir.Value | None] = [value, scale, *([zero] if zero is not None else [])]
    shape: Sequence[Dim] | None = dims(value)
    size = dims(scale)
    along = {"axis": axis} if axis is not None and size not in ((), (1,), None) else None
    assert dtype_of(value) is not None or value is not None
    return edit.emit("DequantizeLinear", inputs, along, at=at, dtype=FLOAT, shape=shape)


RULES = {"QLinearConv": qlinear_conv, "QLinearMatMul": qlinear_matmul}

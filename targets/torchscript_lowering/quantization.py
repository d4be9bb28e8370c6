"""Quantised tensors: x = scale (q - zero point).

Source: ONNX operators QuantizeLinear-24, DequantizeLinear-24, DynamicQuantizeLinear-11,
MatMulInteger-10, QLinearMatMul-21, QLinearConv-10. Rounding is half to even, then saturation.
"""

from __future__ import annotations

from infc.targets.torchscript_lowering import Op, lowers, torch_dtype
from infc.targets.torchscript_lowering.convolution import _conv, kernel_of

RANGES = {"UINT8": (0, 255), "INT8": (-128, 127), "INT16": (-32768, 32767)}


def _spread(op: Op, index: int, axis: int, block: int) -> str:
    """The scale or zero point `index`, shaped to broadcast against input 0."""
    known = op.shape(index)
    if known in ([], [1]):
        return op.x(index) if known == [] else f"{op.x(index)}.reshape([])"
    return op.call("spread", op.x(index), f"{op.x(0)}.shape", axis, block)


@lowers("QuantizeLinear")
def quantize(op: Op) -> str:
    """saturate(round(x / scale) + zero point), per tensor, per axis or in blocks."""
    kind = op.dtype_of(op.node.outputs[0])
    if kind not in RANGES:
        op.refuse(f"to {kind.lower()}")
    axis, block = op.attribute("axis", 1), op.attribute("block_size", 0)
    if op.attribute("precision", 0) not in (0, 1) or op.dtype(0) != op.dtype(1):
        op.refuse("a division in another type than the input's")
    low, high = RANGES[kind]
    scaled = f"torch.round(torch.div({op.x(0)}, {_spread(op, 1, axis, block)}))"
    if op.has(2):
        scaled = (
            f"torch.add({scaled}, {_spread(op, 2, axis, block)}.to({torch_dtype(op, op.dtype(0))}))"
        )
    return f"torch.clamp({scaled}, {low}, {high}).to({torch_dtype(op, kind)})"


@lowers("DequantizeLinear")
def dequantize(op: Op) -> str:
    """(q - zero point) scale."""
    axis, block = op.attribute("axis", 1), op.attribute("block_size", 0)
    if op.dtype(0) not in (*RANGES, "INT32"):
        op.refuse(f"from {op.dtype(0).lower()}")
    if op.dtype_of(op.node.outputs[0]) != op.dtype(1):
        op.refuse("an output of another type than the scale's")
    q = f"{op.x(0)}.to(torch.int32)"
    if op.has(2):
        q = f"torch.sub({q}, {_spread(op, 2, axis, block)}.to(torch.int32))"
    return f"torch.mul({q}.to({op.output_dtype()}), {_spread(op, 1, axis, block)})"


@lowers("DynamicQuantizeLinear")
def dynamic_quantize(op: Op) -> list[str]:
    """To uint8, with a range that holds 0."""
    return op.unpack(op.call("dynamic_quantize", op.x(0)), 3)


@lowers("DynamicLinear", domain="infc")
def dynamic_linear(op: Op) -> str:
    """A linear layer with int8 rows, x in 7 bits with a range of its own at each call."""
    rows, scale = op.node.inputs[1], op.node.inputs[2]
    if rows is None or scale is None:
        op.refuse("its weights are missing")
    weights = op.writer.packed(rows, scale, op.node.inputs[3] if op.has(3) else None)
    # The kernel wants the rows of x one after the other.
    return f"torch.ops.quantized.linear_dynamic({op.x(0)}.contiguous(), {weights}, True)"


@lowers("MatMulInteger")
def matmul_integer(op: Op) -> str:
    """int32; a's zero point is per tensor or per row, b's per tensor or per column."""
    a, b = f"{op.x(0)}.to(torch.int32)", f"{op.x(1)}.to(torch.int32)"
    if op.has(2):
        a = op.call("minus_row_zeros", a, op.x(2))
    if op.has(3):
        b = f"torch.sub({b}, {op.x(3)}.to(torch.int32))"
    return f"torch.matmul({a}, {b})"


@lowers("QLinearMatMul")
def qlinear_matmul(op: Op) -> str:
    """Both operands dequantised, multiplied exactly, requantised."""
    kind = op.dtype_of(op.node.outputs[0])
    if kind not in RANGES or any(op.rank(i) not in (0, 1) for i in (1, 2, 4, 5, 6, 7)):
        op.refuse("scales or zero points other than scalars and vectors")
    a = op.call("minus_row_zeros", f"{op.x(0)}.to(torch.int32)", op.x(2))
    b = f"torch.sub({op.x(3)}.to(torch.int32), {op.x(5)}.to(torch.int32))"
    scale_a = op.call("as_rows", op.x(1))
    real = f"torch.mul(torch.mul(torch.matmul({a}, {b}).to({op.x(1)}.dtype), {scale_a}), {op.x(4)})"
    return _requantize(op, real, 6, 7, kind)


def _requantize(op: Op, real: str, scale: int, zero: int, kind: str) -> str:
    low, high = RANGES[kind]
    dtype = f"{op.x(scale)}.dtype"
    shifted = f"torch.add(torch.round(torch.div({real}, {op.x(scale)})), {op.x(zero)}.to({dtype}))"
    return f"torch.clamp({shifted}, {low}, {high}).to({torch_dtype(op, kind)})"


@lowers("QLinearConv")
def qlinear_conv(op: Op) -> str:
    """The sums are exact in double; the bias is in units of both scales."""
    kind = op.dtype_of(op.node.outputs[0])
    if kind not in RANGES:
        op.refuse(f"to {kind.lower()}")
    x = op.let(f"torch.sub({op.x(0)}.to(torch.float64), {op.x(2)}.to(torch.float64))")
    w = op.call("minus_per_row", f"{op.x(3)}.to(torch.float64)", op.x(5))
    bias = f"{op.x(8)}.to(torch.float64)" if op.has(8) else "None"
    sums = op.let(_conv(op, x, w, bias, kernel_of(op, 3)))
    scale = op.call("channel_scale", f"torch.mul({op.x(1)}, {op.x(4)})", f"{sums}.dim()")
    return _requantize(op, f"torch.mul({sums}, {scale}).to(torch.float32)", 6, 7, kind)

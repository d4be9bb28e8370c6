"""Converters of what is quantised: IntegerConv, IntegerMatMul, and Q and DQ of bytes.

    QuantizeLinear     trunc(clip(x * (1 / s), low - z, high - z) + 1.5 * 2**23) + z
    DequantizeLinear   (x - z) * s

A float32 of that size has no digits behind the point: adding it rounds half to even, as ONNX wants
it, and leaves the integer in the lowest bits, in one instruction that every processor has. (x / s
and x * (1 / s) may differ by one step where x is half-way between two.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from infc.targets.tvm_compiler.importing.convolution import Window
from infc.targets.tvm_compiler.integers import convolution as integers
from infc.targets.tvm_compiler.integers.dot_products import (
    EXACT_PLANES,
    DotProduct,
    dot_product_of,
    intrinsic,
)
from infc.targets.tvm_compiler.integers.schedules import tile
from infc.targets.tvm_compiler.scheduling.tiles import Work, tile_for
from infc.targets.tvm_compiler.symbolic import is_open

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu

BYTES = {"uint8": (0, 255), "int8": (-128, 127)}
LATEST = 21
"""The opset of the newest QuantizeLinear that TVM converts."""
MAGIC = 12582912.0
"""1.5 * 2**23."""


def converters(cpu: Cpu) -> dict[str, Any]:
    """Operator to converter, as TVM's importer wants them."""
    from tvm.relax.frontend.onnx import onnx_frontend

    convert_quantize = onnx_frontend.QuantizeLinear.get_converter(LATEST)
    convert_dequantize = onnx_frontend.DequantizeLinear.get_converter(LATEST)
    dot = dot_product_of(cpu)

    class IntegerConv(onnx_frontend.OnnxOpConverter):  # type: ignore[misc]
        @classmethod
        def _impl_v1(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
            return _conv(bb, inputs[0], list(inputs)[1:], attr, dot, cpu)

    class IntegerMatMul(onnx_frontend.OnnxOpConverter):  # type: ignore[misc]
        @classmethod
        def _impl_v1(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
            return _product(bb, inputs[0], list(inputs)[1:], dot, cpu)

    class QuantizeLinear(onnx_frontend.OnnxOpConverter):  # type: ignore[misc]
        @classmethod
        def _impl_v10(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
            found = _affine(inputs, None)
            if found is None or str(inputs[0].ty.dtype.dtype) != "float32":
                return convert_quantize(bb, inputs, attr, params)
            scale, zero, dtype = found
            return bb.emit_te(
                lambda x: quantized(x, scale, zero, dtype), inputs[0], primfunc_name_hint="quantize"
            )

    class DequantizeLinear(onnx_frontend.OnnxOpConverter):  # type: ignore[misc]
        @classmethod
        def _impl_v10(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
            found = _affine(inputs, str(inputs[0].ty.dtype.dtype))
            if found is None:
                return convert_dequantize(bb, inputs, attr, params)
            scale, zero, _ = found
            return bb.emit_te(
                lambda x: dequantized(x, scale, zero), inputs[0], primfunc_name_hint="dequantize"
            )

    class StoredMatMul(onnx_frontend.OnnxOpConverter):  # type: ignore[misc]
        @classmethod
        def _impl_v1(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
            return bb.emit_te(stored_product, *inputs[:2], primfunc_name_hint="matmul")

    own = (IntegerConv, IntegerMatMul, QuantizeLinear, DequantizeLinear, StoredMatMul)
    return {c.__name__: c for c in own}


def _array(value: Any) -> Any:
    return np.ascontiguousarray(value.value.numpy())


def _affine(inputs: Any, dtype: str | None) -> tuple[float, int, str] | None:
    """Scale, zero point and type where they are constants, one for all elements, and bytes."""
    from tvm import ir

    parameters = [inputs[1], inputs[2] if len(inputs) > 2 else None]
    constants = [v.value.numpy() if isinstance(v, ir.expr.GenericConst) else v for v in parameters]
    scale, zero = constants
    if not isinstance(scale, np.ndarray) or scale.size != 1 or scale.dtype != np.float32:
        return None
    if zero is not None and (not isinstance(zero, np.ndarray) or zero.size != 1):
        return None
    kind = dtype or ("uint8" if zero is None else zero.dtype.name)
    if kind not in BYTES:
        return None
    return float(scale.reshape(())), 0 if zero is None else int(zero.reshape(())), kind


def quantized(x: Any, scale: float, zero: int, dtype: str) -> Any:
    """The tensor expression of QuantizeLinear."""
    from tvm import te, tirx

    low, high = (float(bound - zero) for bound in BYTES[dtype])
    factor = float(np.float32(1) / np.float32(scale))

    def element(*at: Any) -> Any:
        value = x[at]
        if factor != 1.0:
            value = value * tirx.const(factor, "float32")
        value = tirx.max(value, tirx.const(low, "float32"))
        value = tirx.min(value, tirx.const(high, "float32"))
        steps = tirx.reinterpret("int32", value + tirx.const(MAGIC, "float32"))
        if zero:
            steps = steps + tirx.const(zero, "int32")
        return steps.astype(dtype)

    return te.compute(x.shape, element, name="quantize")


def dequantized(x: Any, scale: float, zero: int) -> Any:
    """The tensor expression of DequantizeLinear."""
    from tvm import te, tirx

    def element(*at: Any) -> Any:
        value = x[at].astype("int32")
        if zero:
            value = value - tirx.const(zero, "int32")
        return value.astype("float32") * tirx.const(scale, "float32")

    return te.compute(x.shape, element, name="dequantize")


def stored_product(x: Any, w: Any) -> Any:
    """The tensor expression of `x`, (..., K) float32, times `w`, (K, N) of 16 bits."""
    from tvm import te

    k = te.reduce_axis((0, int(w.shape[0])), name="k")

    def element(*at: Any) -> Any:
        *front, column = at
        return te.sum(x[(*front, k)] * w[k, column].astype(x.dtype), axis=[k])

    return te.compute((*x.shape[:-1], w.shape[1]), element, name="matmul")


def _conv(
    bb: Any, x: Any, operands: Any, attr: Mapping[str, Any], dot: DotProduct, cpu: Cpu
) -> Any:
    from tvm import relax

    weights, constants, after = _after(operands)
    window, groups = _window(attr), int(attr.get("group", 1))
    sizes = [int(n) for n in x.ty.shape.values[1:-1]]
    last = window.output(sizes, weights.shape[:-2])[-1]
    zero, activation = int(attr["zero"]), str(x.ty.dtype.dtype)
    dot = _holding(dot, weights)
    layout = integers.packing(weights.shape, window, groups, dot)
    if layout is None:
        rows = tile_for(Work(last, weights.shape[-1]), cpu).rows
        return bb.emit_te(
            lambda a, w, *c: integers.single(a, w, after(c), window, groups, rows, zero),
            x,
            relax.const(weights, "int8"),
            *constants,
            primfunc_name_hint="integer_conv",
        )
    alone = not layout.flat and not any((*window.before, *window.after))
    rows, _ = tile(last, layout.blocks, layout.lanes, cpu, exact=alone)
    name = intrinsic(dot, layout.lanes, activation)
    return bb.emit_te(
        lambda a, w, *c: integers.conv(
            a, w, after(c), window, layout, weights.shape, rows, zero, dot, name
        ),
        x,
        relax.const(integers.packed(weights, layout, dot), "int8"),
        *constants,
        primfunc_name_hint="integer_conv",
    )


def _product(bb: Any, x: Any, operands: Any, dot: DotProduct, cpu: Cpu) -> Any:
    from tvm import relax

    weights, constants, after = _after(operands)
    dot = _holding(dot, weights)
    layout = integers.packing(weights.shape, Window((), (), (), ()), 1, dot)
    assert layout is not None
    outputs = weights.shape[-1]
    height = x.ty.shape.values[-2]
    rows = 1
    if not is_open(height):
        rows, _ = tile(int(height), layout.blocks, layout.lanes, cpu, exact=not layout.flat)
    name = intrinsic(dot, layout.lanes, str(x.ty.dtype.dtype))
    return bb.emit_te(
        lambda a, w, *c: integers.product(a, w, after(c), outputs, layout, rows, dot, name),
        x,
        relax.const(integers.packed(weights, layout, dot), "int8"),
        *constants,
        primfunc_name_hint="integer_matmul",
    )


def _after(operands: Any) -> tuple[Any, list[Any], Callable[[Any], integers.After]]:
    """The weights, what is done to the sums as constants, and how those are put together again.

    Zeros are not added.
    """
    from tvm import relax

    weights, *rest = (_array(value) for value in operands if value is not None)
    names = ("start", "scale", "bias")
    used = {
        name: relax.const(array, array.dtype.name)
        for name, array in zip(names, rest, strict=False)
        if name == "scale" or array.any()
    }
    return weights, [*used.values()], lambda c: integers.After(**dict(zip(used, c, strict=True)))


def _holding(dot: DotProduct, weights: Any) -> DotProduct:
    """An instruction that `weights` do not overflow."""
    return EXACT_PLANES if dot.order == "pairs" and (weights == -128).any() else dot


def _window(attr: Mapping[str, Any]) -> Window:
    pads = [int(p) for p in attr["pads"]]
    half = len(pads) // 2
    strides, dilations = (tuple(int(n) for n in attr[k]) for k in ("strides", "dilations"))
    return Window(strides, dilations, tuple(pads[:half]), tuple(pads[half:]))

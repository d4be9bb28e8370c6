"""Converters of infc's own, from ONNX nodes to Relax: what TVM's importer lacks or makes slow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from infc.targets.tvm_compiler.importing import serial_converters, tensor_converters
from infc.targets.tvm_compiler.importing.convolution import Window, attributes, conv, sum_type
from infc.targets.tvm_compiler.symbolic import is_open

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu


def own(cpu: Cpu) -> dict[str, Any]:
    """Operator to converter, as TVM's importer wants them: classes with a method for a version."""
    from tvm import relax, topi
    from tvm.relax.frontend.onnx import onnx_frontend
    from tvm.relax.frontend.onnx.onnx_frontend import OnnxOpConverter

    from infc.targets.tvm_compiler.integers.converters import converters

    class ChannelsLastConv(OnnxOpConverter):  # type: ignore[misc]
        @classmethod
        def _impl_v1(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
            x, w = inputs[0], inputs[1]
            window, group = _window(attr), int(attr.get("group", 1))
            y = bb.emit_te(
                lambda a, b: conv(a, b, window, group),
                x,
                w,
                primfunc_name_hint="conv",
                primfunc_attrs=attributes(window, group),
            )
            y = _typed_as(bb, y, x)
            if inputs[2] is None:
                return y
            return relax.op.add(y, inputs[2])

    class ChannelsLastMaxPool(OnnxOpConverter):  # type: ignore[misc]
        @classmethod
        def _impl_v1(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
            return _pool(bb, topi, inputs[0], attr, "max", count_include_pad=True)

    class ChannelsLastAveragePool(OnnxOpConverter):  # type: ignore[misc]
        @classmethod
        def _impl_v1(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
            counted = bool(attr.get("count_include_pad", 0))
            return _pool(bb, topi, inputs[0], attr, "avg", count_include_pad=counted)

    class Clip(OnnxOpConverter):  # type: ignore[misc]
        @classmethod
        def _impl_v6(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
            return _clip(bb, inputs[0], attr.get("min"), attr.get("max"))

        @classmethod
        def _impl_v11(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
            return _clip(bb, *(inputs[i] for i in range(3)))

    class Gemm(OnnxOpConverter):  # type: ignore[misc]
        @classmethod
        def _impl_v7(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
            a = _turned(inputs[0], attr.get("transA", 0))
            b = _turned(inputs[1], attr.get("transB", 0))
            y = _times(_product(bb, a, b), attr.get("alpha", 1.0))
            if inputs[2] is None:
                return y
            return relax.op.add(y, _times(inputs[2], attr.get("beta", 1.0)))

    their_product = onnx_frontend.MatMul.get_converter(LATEST_OPSET)

    class MatMul(OnnxOpConverter):  # type: ignore[misc]
        @classmethod
        def _impl_v1(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
            if str(inputs[0].ty.dtype.dtype) != "float16":
                return their_product(bb, inputs, attr, params)
            return _product(bb, inputs[0], inputs[1])

    own = (ChannelsLastConv, ChannelsLastMaxPool, ChannelsLastAveragePool, Clip, Gemm, MatMul)
    table = {**tensor_converters.CONVERTERS, **serial_converters.CONVERTERS}
    fixed = {name: _fixed(OnnxOpConverter, name, function) for name, function in table.items()}
    return {c.__name__: c for c in own} | fixed | converters(cpu)


LATEST_OPSET = 25


def _fixed(base: Any, name: str, function: Any) -> Any:
    """A converter for operands of fixed shapes, as TVM wants it; its own for others."""
    from tvm.relax.frontend.onnx import onnx_frontend

    theirs = onnx_frontend._get_convert_map().get(name)

    def converter(cls: Any, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        if theirs is None or all(x is None or _is_fixed(x) for x in inputs):
            return function(bb, inputs, attr)
        return theirs.get_converter(LATEST_OPSET)(bb, inputs, attr, params)

    return type(name, (base,), {"_impl_v1": classmethod(converter)})


def _is_fixed(value: Any) -> bool:
    dims = getattr(getattr(value.ty, "shape", None), "values", None)
    return dims is not None and not any(map(is_open, dims))


def constant_of(value: Any) -> Any:
    """The array that a Relax expression is, None where it is no constant."""
    from tvm import ir

    return value.value.numpy() if isinstance(value, ir.expr.GenericConst) else None


def _product(bb: Any, a: Any, b: Any) -> Any:
    """The product of two matrices, of their type; that of float16 is added up in float32."""
    from tvm import relax

    wide = sum_type(a.ty.dtype.dtype)
    return _typed_as(bb, bb.normalize(relax.op.matmul(a, b, out_dtype=wide)), a)


def _typed_as(bb: Any, value: Any, like: Any) -> Any:
    """`value` in the element type of `like`."""
    from tvm import relax

    wanted, here = (str(v.ty.dtype.dtype) for v in (like, value))
    return value if wanted == here else bb.emit(relax.op.astype(value, wanted))


def _turned(value: Any, wanted: int) -> Any:
    """A matrix transposed, now where it is a constant."""
    import numpy as np
    from tvm import relax

    if not wanted:
        return value
    array = constant_of(value)
    if array is None:
        return relax.op.permute_dims(value)
    return relax.const(np.ascontiguousarray(array.T), array.dtype.name)


def _times(value: Any, factor: float) -> Any:
    from tvm import relax

    if factor == 1.0:
        return value
    array = constant_of(value)
    if array is not None:
        return relax.const(array * array.dtype.type(factor), array.dtype.name)
    return relax.op.multiply(value, relax.const(factor, str(value.ty.dtype.dtype)))


def _clip(bb: Any, x: Any, low: Any, high: Any) -> Any:
    """Bounded by numbers where they are known: then it is one operation on each element."""
    import numpy as np
    from tvm import relax, te, tirx

    bounds = []
    for bound in (low, high):
        if bound is None or isinstance(bound, float | int):
            bounds.append(bound)
            continue
        array = constant_of(bound)
        bounds.append(bound if array is None else np.asarray(array).reshape(-1)[0])
    least, most = bounds
    y = x
    if all(not isinstance(b, relax.Expr) for b in bounds):

        def clipped(a: Any) -> Any:
            def element(*at: Any) -> Any:
                value = a[at]
                if least is not None:
                    value = tirx.max(value, tirx.const(least, a.dtype))
                if most is not None:
                    value = tirx.min(value, tirx.const(most, a.dtype))
                return value

            return te.compute(a.shape, element, name="clip")

        return bb.emit_te(clipped, x, primfunc_name_hint="clip")
    if least is not None:
        y = relax.op.maximum(y, least if isinstance(least, relax.Expr) else relax.const(least))
    if most is not None:
        y = relax.op.minimum(y, most if isinstance(most, relax.Expr) else relax.const(most))
    return y


def _window(attr: Mapping[str, Any]) -> Window:
    pads = [int(p) for p in attr["pads"]]
    half = len(pads) // 2
    strides, dilations = (tuple(int(n) for n in attr[k]) for k in ("strides", "dilations"))
    return Window(strides, dilations, tuple(pads[:half]), tuple(pads[half:]))


_LAYOUTS = {1: "NWC", 2: "NHWC", 3: "NDHWC"}


def _pool(bb: Any, topi: Any, x: Any, attr: Any, kind: str, *, count_include_pad: bool) -> Any:
    window = _window(attr)
    kernel = [int(k) for k in attr["kernel_shape"]]
    rank = len(kernel)
    pool = {1: topi.nn.pool1d, 2: topi.nn.pool2d, 3: topi.nn.pool3d}[rank]
    return bb.emit_te(
        pool,
        x,
        kernel,
        list(window.strides),
        list(window.dilations),
        [*window.before, *window.after],
        kind,
        False,
        _LAYOUTS[rank],
        count_include_pad,
        primfunc_name_hint=f"{kind}_pool",
    )

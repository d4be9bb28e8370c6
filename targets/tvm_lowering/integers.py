"""Operators between Q and DQ as sums of integers, scaled once.

    Conv(DQ(x), DQ(w), b)  ->  IntegerConv(x, w, -z sum w, s_x s_w, b)
    MatMul, Gemm           ->  IntegerMatMul likewise
    ConvInteger(x, w)      ->  IntegerConv(x, w, -z sum w)

x: uint8 or int8 of scale s_x and zero point z; w: int8, s_w for each output channel. The sums start
from the bias where that is int32 of the scale s_x s_w. The private operators, `IntegerConv`
(channels last) and `IntegerMatMul`, take x, w and what the sums start from, (O,) int32, and give
the sums; or, given a scale and a bias, (O,) float32, sums * scale + bias. What is around them stays
ONNX's own: TVM fuses it into their kernels, so that what is written to memory are bytes again.

Source: B. Jacob et al., arXiv:1712.05877, section 2.3; ONNX ConvInteger-10, MatMulInteger-10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    Array,
    Dim,
    Edit,
    attribute,
    const_array,
    const_tensor,
    dims,
    dtype_of,
    elements,
    given,
    is_op,
    rewrite,
    static_dims,
)
from infc.targets.tvm_lowering.channels_last import DOMAIN, channels_last, window_of
from infc.targets.tvm_lowering.integer_flow import settle, split_readers
from infc.targets.tvm_lowering.quantized_operators import RULES, integer_in_float
from infc.targets.tvm_lowering.quantized_values import (
    BYTES,
    SMALL_INTEGERS,
    bias_of,
    moved,
    real_of,
    weights_of,
    without_zero,
)
from infc.targets.tvm_lowering.requantization import fold_scales

INT32, FLOAT = ir.DataType.INT32, ir.DataType.FLOAT
QUANTIZED = frozenset(
    (*RULES, "QuantizeLinear", "DequantizeLinear", "ConvInteger", "MatMulInteger")
)
SUMS = np.iinfo(np.int32)


@dataclass(frozen=True, slots=True)
class Operands:
    """What is summed: `x`, bytes of the kernels' type with zero point `zero`; `weights`, int8.

    `start` is what the sums start from, (O,) int32. The weights are (O, I / group, k...) of a
    convolution, (K, N) of a product. `scale` and `bias`, (O,) float32, make float32 of the sums.
    """

    x: ir.Value
    zero: int
    weights: Array
    start: Array
    scale: Array | None = None
    bias: Array | None = None


def to_integers(model: ir.Model, activation: str) -> bool:
    """Rewrite what is quantised in the main graph; `activation`: the bytes that kernels take.

    Returns whether anything is quantised.
    """
    if not any(is_op(node, *QUANTIZED) for node in model.graph):
        return False
    rewrite(model, RULES)
    settle(model, activation)
    edit = Edit(model)
    for node in list(model.graph):
        if is_op(node, *_LOWERED) and _LOWERED[node.op_type](node, activation, edit):
            model.opset_imports[DOMAIN] = 1
    split_readers(model)
    fold_scales(model)
    return True


def _conv(node: ir.Node, activation: str, edit: Edit) -> bool:
    x, w = real_of(given(node, 0)), weights_of(given(node, 1))
    if x is None or w is None or (w.scale.ndim and w.axis != 0):
        return False
    scale = (w.scale * np.float32(x[1].scale)).astype(np.float32)
    bias = bias_of(given(node, 2), scale, w.integers.shape[0])
    if bias is None or _window(node, x[0], w.integers) is None:
        return False
    steps, real = bias
    operands = _operands(x[0], x[1].zero, w.integers, 0, steps, activation, edit, node)
    if operands is None:
        return False
    return edit.forward(node.outputs[0], _conv_sums(node, _scaled(operands, scale, real), edit))


def _product(node: ir.Node, activation: str, edit: Edit) -> bool:
    """MatMul with constant weights, and Gemm, whose factors go into the scale and the bias."""
    x, w = real_of(given(node, 0)), weights_of(given(node, 1))
    if x is None or w is None or w.integers.ndim != 2 or len(dims(x[0]) or ()) < 2:
        return False
    turned = bool(attribute(node, "transB", 0))
    columns = w.integers.T if turned else w.integers
    if w.scale.ndim and w.axis != (0 if turned else 1):
        return False
    scale = (w.scale * np.float32(x[1].scale * attribute(node, "alpha", 1.0))).astype(np.float32)
    bias = bias_of(given(node, 2), scale, columns.shape[1], attribute(node, "beta", 1.0))
    if bias is None:
        return False
    steps, real = bias
    source = _turned(x[0], edit, node) if attribute(node, "transA", 0) else x[0]
    operands = _operands(source, x[1].zero, columns, 1, steps, activation, edit, node)
    if operands is None:
        return False
    return edit.forward(node.outputs[0], _product_sums(node, _scaled(operands, scale, real), edit))


def _turned(x: ir.Value, edit: Edit, at: ir.Node) -> ir.Value:
    shape = [*reversed(dims(x) or ())]
    perm = {"perm": [1, 0]}
    return edit.emit("Transpose", [x], perm, at=at, dtype=dtype_of(x), shape=shape)


def _conv_integer(node: ir.Node, activation: str, edit: Edit) -> bool:
    """In float32 where the zero point is not known and pixels around the image count."""
    return _integer(node, activation, edit) or integer_in_float(node, edit)


def _integer(node: ir.Node, activation: str, edit: Edit) -> bool:
    """ConvInteger or MatMulInteger; the zero point of x may be another on every run."""
    conv = node.op_type == "ConvInteger"
    x, tensor = given(node, 0), const_tensor(given(node, 1))
    if x is None or tensor is None or tensor.dtype not in SMALL_INTEGERS:
        return False
    zero, known = given(node, 2), const_array(given(node, 2))
    offset = const_array(given(node, 3))
    if (zero is not None and static_dims(zero) not in ((), (1,))) or (
        given(node, 3) is not None and offset is None
    ):
        return False
    axis = 0 if conv else 1
    if not conv and (len(tensor.shape) != 2 or len(dims(x) or ()) < 2):
        return False
    weights = without_zero(elements(tensor), offset, axis)
    if weights is None:
        return False
    window = _window(node, x, weights) if conv else None
    if conv and window is None:
        return False
    running = zero is not None and known is None
    if running and window is not None and any(window["pads"]):
        return False
    number = 0 if known is None else int(known.reshape(()))
    steps = np.zeros(weights.shape[axis], np.int64)
    operands = _operands(x, number, weights, axis, steps, activation, edit, node)
    if operands is None:
        return False
    total = _conv_sums(node, operands, edit) if conv else _product_sums(node, operands, edit)
    if not running or zero is None:
        return edit.forward(node.outputs[0], total)
    shape = (-1, *[1] * (weights.ndim - 2)) if conv else (-1,)
    less = _times_weights(zero, weights, axis, shape, edit, node)
    edit.replace(node.outputs[0], "Sub", [total, less])
    return True


def _times_weights(
    zero: ir.Value, weights: Array, axis: int, shape: Sequence[int], edit: Edit, at: ir.Node
) -> ir.Value:
    """A zero point that is known when the model runs, times the sum of the weights; int32."""
    whole = edit.emit(
        "Cast", [zero], {"to": int(INT32)}, at=at, dtype=INT32, shape=static_dims(zero)
    )
    others = tuple(i for i in range(weights.ndim) if i != axis)
    sums = weights.astype(np.int32).sum(axis=others, dtype=np.int32).reshape(shape)
    constant = edit.constant(sums, f"{at.outputs[0].name}_weight_sums", at)
    size = [1] * max(0, 1 - sums.ndim) + list(sums.shape)
    return edit.emit("Mul", [whole, constant], at=at, dtype=INT32, shape=size)


def _operands(
    x: ir.Value,
    zero: int,
    weights: Array,
    axis: int,
    steps: Array,
    activation: str,
    edit: Edit,
    at: ir.Node,
) -> Operands | None:
    """The operands in the kernels' type; None where a sum might not fit int32.

    `axis` is that of the output channels, `steps` (O,) what is added to their sums.
    """
    given_type = BYTES.get(dtype_of(x) or ir.DataType.UNDEFINED)
    if given_type is None:
        return None
    if given_type != activation:
        zero += 128 if activation == "uint8" else -128
    others = tuple(i for i in range(weights.ndim) if i != axis)
    wide = weights.astype(np.int64)
    start = steps - zero * wide.sum(axis=others)
    largest = 255 * np.abs(wide).sum(axis=others) + np.abs(start)
    if largest.size and largest.max() > SUMS.max:
        return None
    bytes_ = moved(x, activation, edit, at)
    return Operands(bytes_, zero, weights, start.astype(np.int32))


def _scaled(operands: Operands, scale: Array, bias: Array | None) -> Operands:
    """`operands` with a scale, () or (O,), and a bias."""
    size = operands.start.shape
    spread = np.ascontiguousarray(np.broadcast_to(scale, size))
    zeros = np.zeros(size, np.float32)
    return replace(operands, scale=spread, bias=zeros if bias is None else bias)


def _window(node: ir.Node, x: ir.Value, weights: Array) -> dict[str, Any] | None:
    """How the kernel moves; None where a size of the image is open."""
    shape = dims(x)
    if shape is None or len(shape) < 3 or len(shape) != weights.ndim:
        return None
    if not all(isinstance(n, int) for n in shape[1:]):
        return None
    return window_of(node, shape[2:], weights.shape[2:])


def _conv_sums(node: ir.Node, operands: Operands, edit: Edit) -> ir.Value:
    """(N, O, spatial...)."""
    shape = dims(node.outputs[0])
    window = _window(node, operands.x, operands.weights)
    assert window is not None
    rank = operands.weights.ndim
    turned = np.ascontiguousarray(np.moveaxis(operands.weights, (0, 1), (-1, -2)))
    attributes = {**window, "group": attribute(node, "group", 1), "zero": operands.zero}
    x = channels_last(operands.x, edit, node)
    last = None if shape is None else [shape[0], *shape[2:], shape[1]]
    channels_last_operands = replace(operands, x=x, weights=turned)
    total = _private("IntegerConv", channels_last_operands, attributes, last, edit, node)
    perm = {"perm": [0, rank - 1, *range(1, rank - 1)]}
    return edit.emit("Transpose", [total], perm, at=node, dtype=total.dtype, shape=shape)


def _product_sums(node: ir.Node, operands: Operands, edit: Edit) -> ir.Value:
    """(..., N)."""
    shape = dims(node.outputs[0])
    return _private("IntegerMatMul", operands, {}, shape, edit, node)


def _private(
    op_type: str,
    operands: Operands,
    attributes: Mapping[str, Any],
    shape: Sequence[Dim] | None,
    edit: Edit,
    at: ir.Node,
) -> ir.Value:
    name = at.outputs[0].name or "y"
    inputs = [
        operands.x,
        edit.constant(np.ascontiguousarray(operands.weights), f"{name}_weights", at),
        edit.constant(operands.start, f"{name}_start", at),
    ]
    if operands.scale is not None and operands.bias is not None:
        inputs.append(edit.constant(operands.scale, f"{name}_scale", at))
        inputs.append(edit.constant(operands.bias, f"{name}_bias", at))
    kind = FLOAT if operands.scale is not None else INT32
    attrs = [
        ir.AttrInt64s(k, v) if isinstance(v, list) else ir.AttrInt64(k, v)
        for k, v in attributes.items()
    ]
    value = ir.Value(name=edit.fresh(f"{name}_sums"), type=ir.TensorType(kind))
    if shape is not None:
        value.shape = ir.Shape(list(shape))
    title = edit.fresh_node(f"{at.name}/sums") if at.name else ""
    made = ir.Node(DOMAIN, op_type, inputs, attrs, outputs=[value], name=title)
    assert at.graph is not None
    at.graph.insert_before(at, made)
    return value


_LOWERED = {
    "Conv": _conv,
    "ConvInteger": _conv_integer,
    "Gemm": _product,
    "MatMul": _product,
    "MatMulInteger": _integer,
}

"""Dynamic quantisation: int8 weights, activations rounded at run time. No calibration.

    y = x W + b         ->   y = (q(x) - z) Wq  s(x) sw + b        "integer"
                        ->   y = x (Wq sw) + b                     "weights"

of MatMul-13 and Gemm-13 with a constant, float32 W (K, N): Wq is int8, symmetric, with a scale sw
for each of the N columns; s and z are those of DynamicQuantizeLinear-11, of the whole tensor x.
Products of two activations stay in float. In the form "weights" the graph says nothing of x: its
back end rounds it by itself.

Source: ONNX DynamicQuantizeLinear-11, MatMulInteger-10; the pattern is the one that
onnxruntime.quantization.quantize_dynamic writes, and that ONNX Runtime makes one kernel of.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from infc.passes.quantization.opset import raise_opset
from infc.passes.rewriting import (
    Array,
    Edit,
    attribute,
    elements,
    given,
    is_op,
    weights,
)

FORMS = ("integer", "weights")
LEAST_ELEMENTS = 1024
"""A smaller matrix stays in float: rounding the activation takes longer than it saves."""
GREATEST = 127


@dataclass(frozen=True, slots=True)
class DynamicRecord:
    """What was done: `quantized` names nodes, `kept` with the reason why each stays in float.

    `weight_bytes` are those of the quantised weights, before and after.
    """

    quantized: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]
    weight_bytes: tuple[int, int]


@dataclass(slots=True)
class _State:
    """What is made once for several readers: activations, and weights by (value, transposed)."""

    edit: Edit
    form: str
    rounded: dict[ir.Value, tuple[ir.Value, ir.Value, ir.Value]] = field(default_factory=dict)
    matrices: dict[tuple[ir.Value, bool], tuple[ir.Value, ir.Value, ir.Value]] = field(
        default_factory=dict
    )
    sizes: list[int] = field(default_factory=lambda: [0, 0])


def quantize_dynamic(
    model: ir.Model, form: str, keep_float: frozenset[str] = frozenset()
) -> DynamicRecord:
    """Quantise in place the linear layers of the main graph; those in `keep_float` stay.

    `keep_float` names nodes or what they give.

    Raises:
        InfcError: E204 where the model cannot be raised to the opset of Q/DQ per channel.
    """
    quantized, kept = [], []
    found = [node for node in model.graph if is_op(node, "MatMul", "Gemm")]
    reasons = {node: _obstacle(node, keep_float) for node in found}
    if not all(reasons.values()):
        raise_opset(model)
        # Raising makes other nodes.
        found = [node for node in model.graph if is_op(node, "MatMul", "Gemm")]
        reasons = {node: _obstacle(node, keep_float) for node in found}
    state = _State(Edit(model), form)
    for node in found:
        name = node.name or str(node.outputs[0].name)
        if reasons[node]:
            kept.append((name, reasons[node]))
            continue
        quantized.append(name)
        _rewrite(node, state)
    before, after = state.sizes
    return DynamicRecord(tuple(quantized), tuple(kept), (before, after))


def _obstacle(node: ir.Node, keep_float: frozenset[str]) -> str:
    """Why the node stays in float; "" where it is quantised."""
    if {node.name, node.outputs[0].name} & keep_float:
        return "it was asked to stay in float"
    tensor = weights(given(node, 1))
    if tensor is None:
        return "its second operand is no constant"
    if tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) != 2:
        return "its weights are no float32 matrix"
    if node.op_type == "Gemm" and (
        attribute(node, "transA", 0)
        or attribute(node, "alpha", 1.0) != 1.0
        or attribute(node, "beta", 1.0) != 1.0
    ):
        return "it scales or transposes what it multiplies"
    if tensor.size < LEAST_ELEMENTS:
        return f"its weights have fewer than {LEAST_ELEMENTS} elements"
    if not np.isfinite(elements(tensor)).all():
        return "its weights are not finite"
    return ""


def _rewrite(node: ir.Node, state: _State) -> None:
    edit, y = state.edit, node.outputs[0]
    x, bias = node.inputs[0], given(node, 2)
    turned = node.op_type == "Gemm" and bool(attribute(node, "transB", 0))
    if x is None:
        return
    integers, scale, zero = _matrix(node, turned, state)
    if state.form == "weights":
        real = edit.emit(
            "DequantizeLinear",
            [integers, scale],
            {"axis": 1},
            at=node,
            hint=f"{integers.name}_dequantized",
            dtype=ir.DataType.FLOAT,
            shape=_dims(integers),
        )
        _finish(node, "MatMul", [x, real], bias, edit)
    else:
        rounded, x_scale, x_zero = _activation(x, node, state)
        sums = edit.emit(
            "MatMulInteger",
            [rounded, integers, x_zero, zero],
            at=node,
            dtype=ir.DataType.INT32,
            shape=None if y.shape is None else _dims(y),
        )
        real = edit.emit(
            "Cast",
            [sums],
            {"to": int(ir.DataType.FLOAT)},
            at=node,
            dtype=ir.DataType.FLOAT,
            shape=None if y.shape is None else _dims(y),
        )
        both = edit.emit(
            "Mul",
            [x_scale, scale],
            at=node,
            dtype=ir.DataType.FLOAT,
            shape=_dims(scale),
        )
        _finish(node, "Mul", [real, both], bias, edit)


def _dims(value: ir.Value) -> list[int | str | None]:
    return [d if isinstance(d, int) else d.value for d in value.shape or ()]


def _finish(
    node: ir.Node,
    op_type: str,
    inputs: list[ir.Value | None],
    bias: ir.Value | None,
    edit: Edit,
) -> None:
    """Let what `node` gave be given by `op_type`, and an Add where there is a `bias`."""
    y = node.outputs[0]
    if bias is None:
        edit.replace(y, op_type, inputs, at=node)
        return
    shape = None if y.shape is None else _dims(y)
    product = edit.emit(op_type, inputs, at=node, dtype=ir.DataType.FLOAT, shape=shape)
    edit.replace(y, "Add", [product, bias], at=node)


def _activation(x: ir.Value, node: ir.Node, state: _State) -> tuple[ir.Value, ir.Value, ir.Value]:
    """`x` in uint8, its scale and its zero point."""
    if x not in state.rounded:
        names = ("quantized", "scale", "zero_point")
        kinds = (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8)
        outputs = [
            ir.Value(name=state.edit.fresh(f"{x.name}_{name}"), type=ir.TensorType(kind))
            for name, kind in zip(names, kinds, strict=True)
        ]
        outputs[0].shape = x.shape
        outputs[1].shape = outputs[2].shape = ir.Shape([])
        title = state.edit.fresh_node(f"{x.name}/DynamicQuantizeLinear")
        made = ir.Node("", "DynamicQuantizeLinear", [x], outputs=outputs, name=title)
        if node.graph is None:
            raise ValueError(f"node `{node.name}` is in no graph")
        # The first of its readers in the order of the graph.
        node.graph.insert_before(node, made)
        state.rounded[x] = (outputs[0], outputs[1], outputs[2])
    return state.rounded[x]


def _matrix(node: ir.Node, turned: bool, state: _State) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The weights (K, N) as int8, the scale (N,) of the columns, their zero point, int8 (N,)."""
    value = node.inputs[1]
    tensor = weights(value)
    if value is None or tensor is None:
        raise ValueError(f"the weights of `{node.name}` are no constant")
    if (value, turned) not in state.matrices:
        array = elements(tensor)
        integers, scale = round_columns(array.T if turned else array)
        edit = state.edit
        made = edit.constant(integers, f"{value.name}_quantized", node)
        step = edit.constant(scale, f"{value.name}_scale", node)
        zero = edit.constant(np.zeros(len(scale), np.int8), f"{value.name}_zero_point", node)
        state.matrices[value, turned] = made, step, zero
        state.sizes[0] += tensor.nbytes
        state.sizes[1] += integers.nbytes + scale.nbytes
    return state.matrices[value, turned]


def round_columns(array: Array) -> tuple[Array, Array]:
    """`array` (K, N), float32, as int8, and the scale of each column, (N,) float32."""
    largest = np.abs(array).max(axis=0, initial=0).astype(np.float64)
    scale = np.where(largest > 0, largest / GREATEST, 1.0).astype(np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    integers = np.clip(np.rint(array / scale), -GREATEST, GREATEST).astype(np.int8)
    return np.ascontiguousarray(integers), scale

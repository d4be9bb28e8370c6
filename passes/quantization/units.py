"""What is quantised as one: an operator, the bias added to it, the activation after it.

    unit:  Conv(x, w, b) -> Relu          MatMul(x, w) -> Add(b) -> Clip          Add(x, y) -> Relu

No Q/DQ comes between the nodes of a unit. `unit_of` says why an operator is not one that can be
quantised, in words for the user.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from infc.passes.activations import activation_of, clip_bounds
from infc.passes.rewriting import (
    attribute,
    const_tensor,
    dims,
    dtype_of,
    given,
    is_op,
    other_input,
    sole_consumer,
)
from infc.quantization import Scheme

WEIGHTED = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
"""The operators that multiply and accumulate: what integer arithmetic is for."""
BINARY = frozenset(("Add", "Mul", "Sub", "Div"))
RECURRENT = frozenset(("LSTM", "GRU", "RNN"))
QUANTIZED = frozenset(
    (
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "QLinearConv",
        "QLinearMatMul",
        "ConvInteger",
        "MatMulInteger",
    )
)
"""The operators that a model has which came quantised."""


@dataclass(frozen=True, slots=True)
class Unit:
    """`node` with the activation `tail` that is absorbed in it, and the Add of its bias.

    `weight` and `bias` are constants; a MatMul of two activations, and what has no weights, has
    none. `axis` is the weight's axis of output channels, None where it has no such. What the tail
    gives lies in `bounds`.
    """

    node: ir.Node
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    weight: ir.Value | None = None
    axis: int | None = None
    bias: ir.Value | None = None
    bias_add: ir.Node | None = None
    tail: ir.Node | None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """Those of the unit, in order."""
        return tuple(n for n in (self.node, self.bias_add, self.tail) if n is not None)


def name_of(node: ir.Node) -> str:
    """The name that a user knows a node by: its own, else its first output's."""
    return node.name or node.outputs[0].name or node.op_type


def unit_of(node: ir.Node, scheme: Scheme) -> Unit | str:
    """The unit of `node`, or the reason why it cannot be quantised."""
    if node.op_type in WEIGHTED:
        return _weighted(node, scheme)
    return _carrier(node, scheme)


def _weighted(node: ir.Node, scheme: Scheme) -> Unit | str:
    x, w = node.inputs[0], given(node, 1)
    if x is None or w is None:
        return "it lacks an input"
    if not {dtype_of(x), dtype_of(w)} <= {ir.DataType.FLOAT}:
        return "it does not compute in float32"
    if const_tensor(x) is not None:
        return "its first input is a constant"
    if const_tensor(w) is None:
        return _product(node, x, w, scheme)
    if len(dims(w) or ()) < (3 if node.op_type.startswith("Conv") else 2):
        return "its weights are not a matrix"
    axis = _channel_axis(node, w)
    if node.op_type == "Gemm" and (
        attribute(node, "transA", 0)
        or attribute(node, "alpha", 1.0) != 1.0
        or attribute(node, "beta", 1.0) != 1.0
    ):
        return "it scales or transposes what it multiplies"
    bias, added = given(node, 2), None
    if bias is None and node.op_type == "MatMul":
        bias, added = _added_bias(node, w)
    if bias is not None and not _is_vector(bias):
        return "its bias is not a constant vector"
    output = (added or node).outputs[0]
    tail, bounds = _tail(added or node, node, scheme)
    return Unit(
        node,
        (x,),
        (tail.outputs[0] if tail is not None else output,),
        weight=w,
        axis=axis,
        bias=bias,
        bias_add=added,
        tail=tail,
        bounds=bounds,
    )


def _product(node: ir.Node, x: ir.Value, y: ir.Value, scheme: Scheme) -> Unit | str:
    """The unit of a MatMul of two activations."""
    if node.op_type != "MatMul" or x is y:
        return "its weights are not constant"
    if scheme.products == "float":
        return f"{scheme.name} multiplies two activations in float only"
    tail, bounds = _tail(node, node, scheme)
    last = tail or node
    return Unit(node, (x, y), (last.outputs[0],), tail=tail, bounds=bounds)


def _channel_axis(node: ir.Node, w: ir.Value) -> int | None:
    """The axis of output channels; that of a grouped ConvTranspose is spread over two."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if attribute(node, "group", 1) == 1 else None
    if len(dims(w) or ()) != 2:
        return None
    return 0 if attribute(node, "transB", 0) else 1


def _added_bias(node: ir.Node, w: ir.Value) -> tuple[ir.Value | None, ir.Node | None]:
    """The constant vector that an Add puts on a MatMul, and that Add."""
    add = sole_consumer(node.outputs[0])
    if not is_op(add, "Add") or add is None:
        return None, None
    other = other_input(add, node.outputs[0])
    width = (dims(w) or (None,))[-1]
    rank = len(dims(node.outputs[0]) or ())
    tensor = const_tensor(other)
    if tensor is None or not rank or tensor.size != width or len(tensor.shape) > rank:
        return None, None
    return (other, add) if _is_vector(other) and tensor.shape[-1] == width else (None, None)


def _is_vector(bias: ir.Value | None) -> bool:
    """Whether `bias` is a constant float32 of one dimension, but for leading ones."""
    tensor = const_tensor(bias)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or not len(tensor.shape):
        return False
    return tensor.size == tensor.shape[-1]


def _tail(
    last: ir.Node, node: ir.Node, scheme: Scheme
) -> tuple[ir.Node | None, tuple[float, float]]:
    """The absorbed activation after `last`, of a unit that begins with `node`; its bounds."""
    everything = (-math.inf, math.inf)
    if last is node and node.op_type in WEIGHTED:
        activation = activation_of(node)
        if activation is None or activation.kind not in scheme.absorbed:
            return None, everything
        if activation.kind == "Clip":
            low, high = activation.parameters
            return activation.node, (low, high)
        bounds = (0.0, math.inf) if activation.kind == "Relu" else everything
        return activation.node, bounds
    follower = sole_consumer(last.outputs[0])
    if follower is None or not is_op(follower, *(scheme.absorbed & {"Relu", "Clip"})):
        return None, everything
    if follower.inputs[0] is not last.outputs[0]:
        return None, everything
    if follower.op_type == "Relu":
        return follower, (0.0, math.inf)
    found = clip_bounds(follower)
    return (follower, found) if found is not None else (None, everything)


def _carrier(node: ir.Node, scheme: Scheme) -> Unit | str:
    """The unit of an operator without weights."""
    count = len(node.inputs) if node.op_type == "Concat" else 1
    inputs = node.inputs[: 2 if node.op_type in BINARY else count]
    values = tuple(v for v in inputs if v is not None)
    if len(values) != len(inputs):
        return "it lacks an input"
    if any(dtype_of(v) != ir.DataType.FLOAT for v in values):
        return "it does not compute in float32"
    if any(const_tensor(v) is not None for v in values):
        return "an input is a constant"
    if node.op_type in BINARY and values[0] is values[1]:
        return "both inputs are one"
    if node.op_type == "MaxPool" and len(node.outputs) > 1:
        return "its indices are used"
    if node.op_type == "Resize" and _mode(node) != "nearest" and node.op_type in scheme.shared:
        return "it interpolates"
    if len(node.outputs) > 1 or node.op_type in scheme.shared:
        return Unit(node, values, tuple(node.outputs))
    tail, bounds = _tail(node, node, scheme)
    last = tail or node
    return Unit(node, values, (last.outputs[0],), tail=tail, bounds=bounds)


def _mode(node: ir.Node) -> str:
    return str(attribute(node, "mode", "nearest"))

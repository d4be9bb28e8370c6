"""Is the model itself stable where it is compared?

Runtimes add up the products of a convolution in different orders, and a float32 sum of n products
is only good to about sqrt(n) 2^-24 of its largest term (Higham, Accuracy and Stability of
Numerical Algorithms, 4.2). `jitter` makes just such an error, and no other:

    y = Conv(x, w)   ->   y = Conv(x, w) * (1 + e),   |e| <= 1e-6, another for each channel

(1e-3 where the sums are stored in float16) and likewise for ConvTranspose, Gemm and MatMul. Where
that alone moves an output outside its threshold - a softmax over logits of 1e9, say - a comparison
on these inputs proves nothing: the inputs have to be others, or else the output is held to what
such rounding does to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

JITTER = 1e-6
"""The relative error of a float32 sum of a few hundred products."""

HALF_JITTER = 1e-3
"""One unit in the last place of a float16."""


def jitter(model: ir.Model, seed: int) -> ir.Model:
    """A copy of `model` that rounds its sums a little differently; weights are shared."""
    import numpy as np

    copy = model.clone()
    rng = np.random.default_rng(seed)
    for node in list(copy.graph.all_nodes()):
        if node.domain == "" and node.op_type in _CHANNELS:
            _jitter_output(node, rng)
    return copy


def _jitter_output(node: ir.Node, rng: Any) -> None:
    import onnx_ir as ir

    value, graph = node.outputs[0], node.graph
    weights = node.inputs[1]
    dtype = value.dtype or (weights.dtype if weights is not None else None)
    uses = list(value.uses())
    floats = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)
    if not uses or not isinstance(graph, ir.Graph) or dtype not in floats:
        return
    shape = _CHANNELS[node.op_type](node) or (1,)
    size = HALF_JITTER if dtype == ir.DataType.FLOAT16 else JITTER
    factors = 1.0 + size * rng.uniform(-1.0, 1.0, shape)
    name = f"{value.name}/jitter"
    tensor = ir.tensor(factors.astype(dtype.numpy()), dtype)
    constant = ir.Value(name=f"{name}/factors", const_value=tensor)
    graph.register_initializer(constant)
    scaled = ir.node("Mul", [value, constant], name=name)
    scaled.outputs[0].name = name
    graph.insert_after(node, scaled)
    for user, index in uses:
        user.replace_input_with(index, scaled.outputs[0])


def _of_conv(node: ir.Node) -> tuple[int, ...] | None:
    weights = _static(node.inputs[1])
    return (1, weights[0], *[1] * (len(weights) - 2)) if weights else None


def _of_conv_transpose(node: ir.Node) -> tuple[int, ...] | None:
    weights = _static(node.inputs[1])
    group = node.attributes.get_int("group", 1)
    return (1, weights[1] * group, *[1] * (len(weights) - 2)) if weights else None


def _of_gemm(node: ir.Node) -> tuple[int, ...] | None:
    weights = _static(node.inputs[1])
    return (weights[0 if node.attributes.get_int("transB", 0) else 1],) if weights else None


def _of_matmul(node: ir.Node) -> tuple[int, ...] | None:
    weights = _static(node.inputs[1])
    return (weights[-1],) if weights and len(weights) > 1 else None


def _static(value: ir.Value | None) -> tuple[int, ...] | None:
    if value is None or value.shape is None:
        return None
    dims = tuple(d for d in value.shape if isinstance(d, int))
    return dims if len(dims) == len(value.shape) and len(dims) > 1 else None


_CHANNELS = {
    "Conv": _of_conv,
    "ConvTranspose": _of_conv_transpose,
    "Gemm": _of_gemm,
    "MatMul": _of_matmul,
}

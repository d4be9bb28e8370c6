"""Convolution and activation as one unit: which activation a convolution's kernel would absorb.

    y = Conv(x, w, b); z = Relu(y)        ->        the unit (Conv, Relu)

Nothing is rewritten: in the neutral graph they stay two nodes. The quantiser places no Q/DQ
between them, and ONNX Runtime's back end makes them one `com.microsoft.FusedConv`, whose
activations and parameters these are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from infc.passes.rewriting import (
    attribute,
    dtype_of,
    given,
    is_op,
    scalar_of,
    sole_consumer,
)


@dataclass(frozen=True, slots=True)
class Activation:
    """`node` applies `kind` to its producer's only output.

    `parameters`: Clip (low, high), LeakyRelu (alpha,), HardSigmoid (alpha, beta), others ().
    """

    node: ir.Node
    kind: str
    parameters: tuple[float, ...] = ()


def activation_of(node: ir.Node) -> Activation | None:
    """The activation that is the sole reader of a Conv, ConvTranspose, Gemm or MatMul.

    None too where a bound of a Clip is not a constant: the unit has constant parameters only.
    """
    if not is_op(node, "Conv", "ConvTranspose", "Gemm", "MatMul") or len(node.outputs) != 1:
        return None
    follower = sole_consumer(node.outputs[0])
    if follower is None or follower.inputs[0] is not node.outputs[0]:
        return None
    if is_op(follower, "Relu", "Sigmoid", "Tanh"):
        return Activation(follower, follower.op_type)
    if is_op(follower, "LeakyRelu"):
        return Activation(follower, "LeakyRelu", (float(attribute(follower, "alpha", 0.01)),))
    if is_op(follower, "HardSigmoid"):
        alpha, beta = attribute(follower, "alpha", 0.2), attribute(follower, "beta", 0.5)
        return Activation(follower, "HardSigmoid", (float(alpha), float(beta)))
    if is_op(follower, "Clip"):
        bounds = clip_bounds(follower)
        return Activation(follower, "Clip", bounds) if bounds else None
    return None


def clip_bounds(node: ir.Node) -> tuple[float, float] | None:
    """(low, high) of a Clip of floats, attribute or input form; None where not constant.

    Infinite where a bound is absent (opset 6 to 10 write the largest finite float for that).
    """
    bounds: list[float] = []
    for index, (name, default) in enumerate((("min", -math.inf), ("max", math.inf)), start=1):
        value = given(node, index)
        number = attribute(node, name, default) if value is None else scalar_of(value)
        if number is None or isinstance(number, bool) or math.isnan(number):
            return None
        bounds.append(float(number))
    if dtype_of(node.inputs[0]) not in (None, *_FLOAT_TYPES):
        return None
    return bounds[0], bounds[1]


_FLOAT_TYPES = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.DOUBLE,
)

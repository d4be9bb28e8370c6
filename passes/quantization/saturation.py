"""What part of a tensor matters to the activations that read it.

    HardSigmoid(x)      -beta / alpha <= x <= (1 - beta) / alpha; beyond, it is 0 or 1
    x HardSigmoid(x)    -beta / alpha <= x                        beyond, it is 0
    Sigmoid(x)                     -8 <= x <= 8                   within 3.4e-4 of 0 or 1
    x Sigmoid(x)                   -8 <= x                        within 2.7e-3 of 0

A back end that rounds before such an activation need not spend its 255 steps on the rest: the
output of a convolution before a HardSwish lies between -20 and 20, say, and only -3 to 20 shows.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from infc.passes.rewriting import attribute, is_op

Span = tuple[float, float]
EVERYTHING: Span = (-math.inf, math.inf)
TAIL = 8.0
"""Sigmoid and those made of it are as good as constant beyond: 1 / (1 + e**8) = 3.4e-4."""
SYMMETRIC: dict[str, float] = {"Sigmoid": TAIL, "Tanh": TAIL / 2}
ONE_SIDED: dict[str, float] = {
    "Gelu": -5.0,
    "HardSwish": -3.0,
    "Mish": -TAIL,
    "Relu": 0.0,
    "Softplus": -TAIL,
}
"""Where each becomes 0 on the negative side; Gelu(-5) is -1.4e-6."""


def useful(value: ir.Value) -> Span:
    """The values of `value` that its readers, all of them activations, tell from one another."""
    if value.is_graph_output():
        return EVERYTHING
    spans = [_useful_to(use.node, value) for use in value.uses()]
    if not spans:
        return EVERYTHING
    return min(low for low, _ in spans), max(high for _, high in spans)


def _useful_to(node: ir.Node, value: ir.Value) -> Span:
    if is_op(node, *ONE_SIDED):
        return ONE_SIDED[node.op_type], math.inf
    if is_op(node, *SYMMETRIC):
        return -SYMMETRIC[node.op_type], SYMMETRIC[node.op_type]
    if is_op(node, "HardSigmoid"):
        return _ramp(node)
    if is_op(node, "Mul"):
        gates = [v.producer() for v in node.inputs if v is not None and v is not value]
        if len(gates) == 1 and gates[0] is not None and gates[0].inputs[:1] == (value,):
            if is_op(gates[0], "HardSigmoid"):
                return _ramp(gates[0])[0], math.inf
            if is_op(gates[0], "Sigmoid"):
                return -TAIL, math.inf
    return EVERYTHING


def _ramp(node: ir.Node) -> Span:
    """Where a HardSigmoid is neither 0 nor 1."""
    alpha = float(attribute(node, "alpha", 0.2))
    beta = float(attribute(node, "beta", 0.5))
    return (-beta / alpha, (1 - beta) / alpha) if alpha > 0 else EVERYTHING

"""Activations spelled out in arithmetic, recognised.

    0.5 x (1 + erf(x / sqrt 2))                            ->  Gelu(x)                  opset 20
    0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3)))     ->  Gelu(x, tanh)            opset 20
    clip(x + 3, 0, 6) / 6                                  ->  HardSigmoid(x, 1/6, 1/2)
    x HardSigmoid(x, 1/6, 1/2)                             ->  HardSwish(x)             opset 14
    x tanh(softplus(x))                                    ->  Mish(x)                  opset 18
    x sigmoid(a x)                                         ->  Swish(x, a)              opset 24
    1 / (1 + exp(-x))                                      ->  Sigmoid(x)

Coefficients are compared as polynomials, so that every association and order of the factors is the
same; written constants are right to the digits of their type, which attributes (float32) could not
hold for a double. Every value in between has no other reader, and the opset must have the
operator. log(1 + exp(x)) is left alone: it overflows where Softplus does not.

Sources: the ONNX functions of Gelu-20, HardSwish-14, Mish-18, Swish-24.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from infc.passes.activations import clip_bounds
from infc.passes.polynomials import Polynomial, equals, expand, ingredients, upwards
from infc.passes.rewriting import (
    FLOATS,
    Edit,
    attribute,
    closed,
    dims,
    dtype_of,
    producer,
    rewrite,
)

TYPES = FLOATS - {ir.DataType.DOUBLE}
SCALED: Polynomial = {(1, 0): 0.5, (1, 1): 0.5}
PRODUCT: Polynomial = {(1, 1): 1.0}


class FuseActivations(ir.passes.InPlacePass):
    """Recognise Gelu, HardSigmoid, HardSwish, Mish, Swish and Sigmoid."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node once."""
        return rewrite(model, _RULES)


def _erf(node: ir.Node, edit: Edit) -> bool:
    wanted: Polynomial = {(1,): math.sqrt(0.5)}
    return edit.opset >= 20 and _fuse(node, wanted, SCALED, "Gelu", {"approximate": "none"}, edit)


def _tanh(node: ir.Node, edit: Edit) -> bool:
    inner = math.sqrt(2 / math.pi)
    wanted: Polynomial = {(1,): inner, (3,): inner * 0.044715}
    gelu = {"approximate": "tanh"}
    if edit.opset >= 20 and _fuse(node, wanted, SCALED, "Gelu", gelu, edit):
        return True
    softplus = producer(node.inputs[0], "Softplus")
    if softplus is None or edit.opset < 18:
        return False
    return _finish(node, softplus.inputs[0], {softplus}, PRODUCT, "Mish", {}, edit)


def _hard_sigmoid(node: ir.Node, edit: Edit) -> bool:
    alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    if edit.opset < 14 or not math.isclose(alpha, 1 / 6, rel_tol=1e-6) or beta != 0.5:
        return False
    return _finish(node, node.inputs[0], set(), PRODUCT, "HardSwish", {}, edit)


def _sigmoid(node: ir.Node, edit: Edit) -> bool:
    argument = node.inputs[0]
    if edit.opset < 24 or argument is None:
        return False
    for x in ingredients(argument):
        form = expand(argument, [x])
        if form is None or set(form) != {(1,)}:
            continue
        between = _between(argument, x)
        if _finish(node, x, between, PRODUCT, "Swish", {"alpha": form[(1,)]}, edit):
            return True
    return False


def _clip(node: ir.Node, edit: Edit) -> bool:
    """Clip(a x + b, 0, h) c with c h = 1 is HardSigmoid(x, c a, c b)."""
    bounds = clip_bounds(node)
    argument, t = node.inputs[0], node.outputs[0]
    if bounds is None or argument is None or bounds[0] != 0 or not 0 < bounds[1] < math.inf:
        return False
    if dtype_of(argument) not in TYPES:
        return False
    scale = 1 / bounds[1]
    for x in ingredients(argument):
        form = expand(argument, [x])
        if form is None or set(form) != {(0,), (1,)}:
            continue
        for y in upwards(t):
            if not equals(expand(y, [t]), {(1,): scale}, _rel(x)):
                continue
            nodes = _between(y, x)
            root = y.producer()
            if root is None or not closed(nodes, root) or not _same_shape(x, y):
                continue
            slope, offset = form[(1,)] * scale, form[(0,)] * scale
            if math.isclose(slope, 1 / 6, rel_tol=_rel(x)):
                slope = 1 / 6
            edit.replace(y, "HardSigmoid", [x], {"alpha": slope, "beta": offset})
            return True
    return False


def _inverse(node: ir.Node, edit: Edit) -> bool:
    if node.op_type == "Div" and expand(node.inputs[0], []) != {(): 1.0}:
        return False
    return _logistic(node, node.inputs[-1], edit)


def _logistic(node: ir.Node, total: ir.Value | None, edit: Edit) -> bool:
    """Recognise 1 / (1 + exp(-x)), of which `total` is the divisor."""
    added = producer(total, "Add")
    if added is None or total is None:
        return False
    for value in added.inputs:
        exp = producer(value, "Exp")
        negated = producer(exp.inputs[0], "Neg") if exp is not None else None
        if exp is None or value is None or negated is None or negated.inputs[0] is None:
            continue
        if expand(total, [value]) != {(0,): 1.0, (1,): 1.0}:
            continue
        x = negated.inputs[0]
        if closed({node, added, exp, negated}, node) and _same_shape(x, node.outputs[0]):
            edit.replace(node.outputs[0], "Sigmoid", [x])
            return True
    return False


def _fuse(
    node: ir.Node,
    argument_form: Polynomial,
    form: Polynomial,
    op_type: str,
    attributes: dict[str, Any],
    edit: Edit,
) -> bool:
    """Recognise form(x, t) with t = node(argument_form(x))."""
    argument = node.inputs[0]
    if argument is None:
        return False
    for x in ingredients(argument):
        if equals(expand(argument, [x]), argument_form, _rel(x)):
            return _finish(node, x, _between(argument, x), form, op_type, attributes, edit)
    return False


def _finish(
    node: ir.Node,
    x: ir.Value | None,
    inside: set[ir.Node],
    form: Polynomial,
    op_type: str,
    attributes: dict[str, Any],
    edit: Edit,
) -> bool:
    """Replace form(x, t), where t is the output of `node`, by one operator on x."""
    t = node.outputs[0]
    if x is None or dtype_of(x) not in TYPES:
        return False
    for y in upwards(t):
        root = y.producer()
        if root is None or not equals(expand(y, [x, t]), form, _rel(x)):
            continue
        nodes = inside | {node} | _between(y, x, t)
        if closed(nodes, root) and _same_shape(x, y):
            edit.replace(y, op_type, [x], attributes)
            return True
    return False


def _rel(x: ir.Value) -> float:
    """How far a written constant may be off: float32 has seven digits, and pi's are often cut."""
    return {ir.DataType.FLOAT16: 2e-3, ir.DataType.BFLOAT16: 1e-2}.get(
        dtype_of(x) or ir.DataType.FLOAT, 2e-6
    )


def _same_shape(x: ir.Value, y: ir.Value) -> bool:
    """Whether no constant of rank one made a vector of a scalar, as far as shapes tell."""
    into, out = dims(x), dims(y)
    return into is None or out is None or len(into) == len(out)


def _between(y: ir.Value, *leaves: ir.Value) -> set[ir.Node]:
    """The nodes that compute `y` from `leaves` (and constants)."""
    nodes: set[ir.Node] = set()
    pending = [y]
    while pending:
        value = pending.pop()
        node = value.producer()
        if node is None or any(value is leaf for leaf in leaves) or node in nodes:
            continue
        if node.op_type == "Constant":
            continue
        nodes.add(node)
        pending.extend(v for v in node.inputs if v is not None)
    return nodes


_RULES: dict[str, Callable[[ir.Node, Edit], bool]] = {
    "Erf": _erf,
    "Tanh": _tanh,
    "HardSigmoid": _hard_sigmoid,
    "Sigmoid": _sigmoid,
    "Clip": _clip,
    "Div": _inverse,
    "Reciprocal": _inverse,
}

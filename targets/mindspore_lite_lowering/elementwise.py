"""Arithmetic and activations, spelled so that the runtime computes them as ONNX says.

| operator | what MindSpore Lite 2.0.0 does with it |
|---|---|
| Clip with an upper bound only, with bounds that are no constants, of integers | wrong, refused |
| Max, Min, Sum with one or more than two operands; Mean | refused |
| Pow with an integer exponent of a float | takes the bits of the integer for a float |
| Pow of operands that broadcast, other than by a scalar exponent | refused |
| Cos | off by 1.8e-3 |
| HardSigmoid | ignores alpha and beta |
| Elu and LeakyRelu without alpha | wrong |
| Gelu with the tanh approximation | computes the exact one |
| Round of n + 1/2 | away from zero |
| PRelu whose slope is no constant for each channel | refused |
| Cast to the type that is there; Identity and Dropout in a graph of nothing else | no kernel left |
"""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx_ir as ir

from infc.passes.rewriting import (
    Edit,
    Rule,
    attribute,
    const_tensor,
    dtype_of,
    given,
    is_op,
    rank,
    scalar_of,
    static_dims,
)
from infc.targets.mindspore_lite_lowering.formula import (
    Formula,
    broadcast,
    required,
    set_attributes,
    set_default,
    settle,
    settled,
)
from infc.targets.mindspore_lite_lowering.trigonometry import sign

INTEGERS = frozenset((ir.DataType.INT32, ir.DataType.INT64))


def _chain(op_type: str) -> Rule:
    """An operator of many operands as a chain of those of two."""

    def rule(node: ir.Node, edit: Edit) -> bool:
        if len(node.inputs) == 2 and op_type == node.op_type:
            return False
        f = Formula(node, edit)
        total = required(node, 0)
        for value in node.inputs[1:]:
            total = f.op(op_type, total, value)
        if node.op_type == "Mean":
            total = f.div(total, float(len(node.inputs)))
        return f.finish(total)

    return rule


def _clip(node: ir.Node, edit: Edit) -> bool:
    low, high = given(node, 1), given(node, 2)
    x = required(node, 0)
    numbers = [scalar_of(v) for v in (low, high) if v is not None]
    whole = dtype_of(x) in INTEGERS
    ordered = len(numbers) < 2 or (None not in numbers and numbers[0] < numbers[1])  # type: ignore[operator]
    if low is not None and not whole and None not in numbers and ordered:
        return False
    f = Formula(node, edit)
    if low is not None:
        x = f.max(x, low)
    if high is not None:
        x = f.min(x, high)
    return f.finish(x)


def _pow(node: ir.Node, edit: Edit) -> bool:
    x, y = required(node, 0), required(node, 1)
    f = Formula(node, edit)
    if dtype_of(x) != ir.DataType.FLOAT:
        return False
    exponent = scalar_of(y)
    if exponent == 2 and const_tensor(y) is not None and (rank(y) or 0) <= (rank(x) or 0):
        return f.finish(f.mul(x, x))
    if dtype_of(y) in INTEGERS:
        node.replace_input_with(1, f.cast(y, ir.DataType.FLOAT))
        return True
    if exponent is not None and (rank(y) == 0 or (rank(x) or 0) > 0):
        return False
    common = broadcast(x, y)
    if common is None or static_dims(x) == static_dims(y):
        return False
    for i, value in enumerate((x, y)):
        if static_dims(value) != common:
            node.replace_input_with(i, f.op("Expand", value, f.ints(common)))
    return True


def _cos(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    return f.finish(f.sin(f.add(required(node, 0), math.pi / 2)))


def _hard_sigmoid(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    line = f.add(f.mul(required(node, 0), alpha), beta)
    return f.finish(f.op("Clip", line, 0.0, 1.0))


def _selu(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    alpha = attribute(node, "alpha", 1.6732631921768188)
    gamma = attribute(node, "gamma", 1.0507010221481323)
    return f.finish(f.mul(f.op("Elu", required(node, 0), alpha=alpha), gamma))


def _celu(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    alpha = attribute(node, "alpha", 1.0)
    unit = f.op("Elu", f.div(required(node, 0), alpha), alpha=1.0)
    return f.finish(f.mul(unit, alpha))


def _softsign(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    x = required(node, 0)
    return f.finish(f.div(x, f.add(f.abs(x), 1.0)))


def _softplus(node: ir.Node, edit: Edit) -> bool:
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), which does not overflow."""
    f = Formula(node, edit)
    x = required(node, 0)
    tail = f.log(f.add(f.exp(f.neg(f.abs(x))), 1.0))
    return f.finish(f.add(f.max(x, 0.0), tail))


def _gelu(node: ir.Node, edit: Edit) -> bool:
    if attribute(node, "approximate", "none") != "tanh":
        return False
    f = Formula(node, edit)
    x = required(node, 0)
    cubic = f.mul(x, f.add(f.mul(f.mul(x, x), 0.044715), 1.0))
    bell = f.add(f.tanh(f.mul(cubic, math.sqrt(2 / math.pi))), 1.0)
    return f.finish(f.mul(f.mul(x, bell), 0.5))


def _round(node: ir.Node, edit: Edit) -> bool:
    """To the even one of two neighbours at the same distance, where the runtime leaves zero."""
    if settled(node):
        return False
    f = Formula(node, edit)
    x = required(node, 0)
    away = settle(f.op("Round", x))
    tied = f.cast(f.equal(f.abs(f.sub(away, x)), 0.5), ir.DataType.FLOAT)
    size = f.abs(away)
    odd = f.sub(size, f.mul(f.floor(f.mul(size, 0.5)), 2.0))
    return f.finish(f.sub(away, f.mul(f.mul(tied, odd), sign(f, away))))


def _prelu(node: ir.Node, edit: Edit) -> bool:
    x, slope = required(node, 0), required(node, 1)
    shape, size = static_dims(x), const_tensor(slope)
    if shape is not None and size is not None and len(shape) == 4:
        channels = (shape[1], 1, 1)
        if tuple(size.shape.numpy()) in (channels, (1, *channels)):
            return False
    f = Formula(node, edit)
    return f.finish(f.add(f.max(x, 0.0), f.mul(f.min(x, 0.0), slope)))


def _cast(node: ir.Node, edit: Edit) -> bool:
    """Through float32 where there is no way from one type to the other."""
    x, to = required(node, 0), ir.DataType(attribute(node, "to", 1))
    source = dtype_of(x)
    if source == to:
        return _identity(node, edit)
    f = Formula(node, edit)
    if source in INTEGERS and to in INTEGERS:
        # The converter takes it away: a graph of nothing else needs a node that stays.
        if x.producer() is not None or not node.outputs[0].is_graph_output():
            return False
        return f.finish(f.cast(f.max(x, x), to))
    if source in INTEGERS and to == ir.DataType.BOOL:
        return f.finish(f.logical_not(f.equal(x, 0)))
    if source == ir.DataType.UINT8 and to in (*INTEGERS, ir.DataType.BOOL):
        return f.finish(f.cast(f.cast(x, ir.DataType.FLOAT), to))
    if to == ir.DataType.UINT8 and source in (*INTEGERS, ir.DataType.BOOL):
        return f.finish(f.cast(f.cast(x, ir.DataType.FLOAT), to))
    return False


def _cast_like(node: ir.Node, edit: Edit) -> bool:
    to = dtype_of(given(node, 1))
    f = Formula(node, edit)
    return to is not None and f.finish(f.cast(required(node, 0), to))


def _dropout(node: ir.Node, edit: Edit) -> bool:
    """At inference it hands its input on; the mask, where somebody reads it, is refused."""
    training = given(node, 2)
    if training is not None and scalar_of(training) is not False:
        return False
    if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return False
    return edit.forward(node.outputs[0], required(node, 0))


def _identity(node: ir.Node, edit: Edit) -> bool:
    """Nothing, or what computes the same where a graph output has to come from some node.

    The converter removes an Identity, also the last one, and the runtime then finds no kernel:
    `meta_graph is invalid`.
    """
    x = required(node, 0)
    if not is_op(node, "Identity") and edit.forward(node.outputs[0], x):
        return True
    source = x.producer()
    if not node.outputs[0].is_graph_output() or (
        source is not None and source.graph is node.graph and not x.is_graph_output()
    ):
        return edit.forward(node.outputs[0], x)
    return _pass_on(Formula(node, edit), x)


def _pass_on(f: Formula, x: ir.Value) -> bool:
    dtype = dtype_of(x)
    if dtype == ir.DataType.BOOL:
        return f.finish(f.logical_and(x, x))
    if dtype in (ir.DataType.FLOAT, *INTEGERS) and const_tensor(x) is None:
        return f.finish(f.max(x, x))
    return False


def _default(**attributes: float) -> Rule:
    return lambda node, edit: set_default(node, **attributes)


def _without_approximation(node: ir.Node, edit: Edit) -> bool:
    return _gelu(node, edit) or set_attributes(node, approximate=None)


RULES: dict[str, Callable[[ir.Node, Edit], bool]] = {
    "Cast": _cast,
    "CastLike": _cast_like,
    "Celu": _celu,
    "Clip": _clip,
    "Cos": _cos,
    "Dropout": _dropout,
    "Elu": _default(alpha=1.0),
    "Gelu": _without_approximation,
    "HardSigmoid": _hard_sigmoid,
    "Identity": _identity,
    "LeakyRelu": _default(alpha=0.01),
    "Max": _chain("Max"),
    "Mean": _chain("Add"),
    "Min": _chain("Min"),
    "PRelu": _prelu,
    "Pow": _pow,
    "Round": _round,
    "Selu": _selu,
    "Softplus": _softplus,
    "Softsign": _softsign,
    "Sum": _chain("Add"),
}

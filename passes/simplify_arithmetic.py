"""Identities of arithmetic and logic that save a node.

    Neg(Neg(x)), Not(Not(x))        ->  x           Abs(Abs(x))  ->  Abs(x), Floor, Ceil, ...
    x + Neg(y)                      ->  x - y       x - Neg(y)   ->  x + y
    x * (1 / y), x * Reciprocal(y)  ->  x / y
    x / 2**n                        ->  x * 2**-n   exact, and cheaper
    Where(Not(c), x, y)             ->  Where(c, y, x)
    Where(c, x, x), Where(true, x, y) -> x          where the shapes agree
    op(Expand(x, s), y)             ->  op(x, y)    where y has all of the result's shape

Quotients round once instead of twice; everything else is exact.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    FLOATS,
    Edit,
    broadcasts_into,
    const_array,
    dims,
    dtype_of,
    kept,
    producer,
    rank,
    rewrite,
    same_dims,
    scalar_of,
    sole_consumer,
)

IDEMPOTENT = ("Abs", "Ceil", "Floor", "Round", "Sign")
BINARY = ("Add", "Sub", "Mul", "Div", "Equal", "Greater", "Less", "And", "Or", "Pow")


class SimplifyArithmetic(ir.passes.InPlacePass):
    """Apply identities that save a node."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node once."""
        return rewrite(model, _RULES)


def _twice(node: ir.Node, edit: Edit) -> bool:
    """An operator that undoes itself."""
    inner = producer(node.inputs[0], node.op_type)
    x = inner.inputs[0] if inner is not None else None
    return x is not None and edit.forward(node.outputs[0], x)


def _idempotent(node: ir.Node, edit: Edit) -> bool:
    x = node.inputs[0]
    if x is None or producer(x, node.op_type) is None:
        return False
    return edit.forward(node.outputs[0], x)


def _add_or_sub(node: ir.Node, edit: Edit) -> bool:
    a, b = node.inputs
    for x, other in ((b, a), (a, b)) if node.op_type == "Add" else ((b, a),):
        negated = producer(x, "Neg")
        if negated is None or x is None or sole_consumer(x) is not node:
            continue
        op_type = "Sub" if node.op_type == "Add" else "Add"
        edit.replace(node.outputs[0], op_type, [other, negated.inputs[0]])
        return True
    return _without_expand(node, edit)


def _mul(node: ir.Node, edit: Edit) -> bool:
    for x, other in (node.inputs, reversed(node.inputs)):
        inverted = producer(x, "Reciprocal", "Div")
        if inverted is None or x is None or other is None or sole_consumer(x) is not node:
            continue
        y = inverted.inputs[-1]
        if inverted.op_type == "Div":
            one = inverted.inputs[0]
            if scalar_of(one) != 1 or (rank(one) and not _fits(one, y)):
                continue
        if dtype_of(other) not in FLOATS:
            continue
        edit.replace(node.outputs[0], "Div", [other, y])
        return True
    return _without_expand(node, edit)


def _fits(small: ir.Value | None, big: ir.Value | None) -> bool:
    return broadcasts_into(dims(small), dims(big))


def _div(node: ir.Node, edit: Edit) -> bool:
    x, c = node.inputs
    array = const_array(c)
    if c is None or array is None or dtype_of(c) not in FLOATS:
        return _without_expand(node, edit)
    wide = array.astype(np.float64)
    mantissas, _ = np.frexp(wide)
    if not np.isfinite(wide).all() or not (np.abs(mantissas) == 0.5).all():
        return False
    with np.errstate(over="ignore"):
        inverse = (1 / wide).astype(array.dtype)
    if not np.isfinite(inverse).all() or not (1 / inverse.astype(np.float64) == wide).all():
        return False
    if (np.abs(inverse.astype(np.float64)) < np.finfo(np.float16).tiny).any():
        return False
    value = edit.constant(ir.tensor(inverse, dtype=dtype_of(c)), f"{c.name}_inverse", node)
    edit.replace(node.outputs[0], "Mul", [x, value])
    return True


def _where(node: ir.Node, edit: Edit) -> bool:
    condition, x, y = node.inputs
    out = node.outputs[0]
    if x is None or y is None:
        return False
    if x is y and _fits(condition, x):
        return edit.forward(out, x)
    inverted = producer(condition, "Not")
    if inverted is not None and condition is not None and sole_consumer(condition) is node:
        edit.replace(out, "Where", [inverted.inputs[0], y, x])
        return True
    flags = const_array(condition)
    if flags is None or flags.size == 0 or not (flags.all() or not flags.any()):
        return False
    chosen = x if flags.all() else y
    if not same_dims(dims(chosen), dims(out)) and not (
        _fits(condition, chosen) and _fits(y if chosen is x else x, chosen)
    ):
        return False
    return edit.forward(out, chosen)


def _without_expand(node: ir.Node, edit: Edit) -> bool:
    """Let the operator itself broadcast what an Expand did."""
    for i, value in enumerate(node.inputs):
        expand = producer(value, "Expand")
        other = node.inputs[1 - i]
        if expand is None or value is None or sole_consumer(value) is not node:
            continue
        if _fits(value, other):
            inputs = list(node.inputs)
            inputs[i] = expand.inputs[0]
            edit.replace(node.outputs[0], node.op_type, inputs, kept(node))
            return True
    return False


_RULES = {
    **dict.fromkeys(BINARY, _without_expand),
    **dict.fromkeys(IDEMPOTENT, _idempotent),
    **dict.fromkeys(("Neg", "Not"), _twice),
    **dict.fromkeys(("Add", "Sub"), _add_or_sub),
    "Mul": _mul,
    "Div": _div,
    "Where": _where,
}

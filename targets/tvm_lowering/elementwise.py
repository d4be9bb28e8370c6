"""Elementwise operators of which TVM's importer reads a part, or that it computes otherwise.

| operator | what TVM 0.27 does with it |
|---|---|
| IsInf with `detect_negative` or `detect_positive` of 0 | ignores them |
| Pow of integers, or of two types | none |
| Celu, Elu, Selu ... in another type than float32 | no operator of that type |
"""

from __future__ import annotations

import onnx_ir as ir

from infc.passes.rewriting import FLOATS, Edit, attribute, dtype_of
from infc.targets.mindspore_lite_lowering import elementwise
from infc.targets.mindspore_lite_lowering.formula import Formula, required


def _is_inf(node: ir.Node, edit: Edit) -> bool:
    below, above = (attribute(node, f"detect_{n}", 1) for n in ("negative", "positive"))
    if below and above:
        return False
    f = Formula(node, edit)
    x = required(node, 0)
    if not below and not above:
        return f.finish(f.op("Less", f.abs(x), 0.0))
    return f.finish(f.equal(x, float("inf") if above else float("-inf")))


def _elu(node: ir.Node, edit: Edit) -> bool:
    """max(x, 0) + min(0, a (exp(x) - 1))."""
    if _is_single(node):
        return False
    f = Formula(node, edit)
    grown = f.mul(f.sub(f.exp(required(node, 0)), 1.0), attribute(node, "alpha", 1.0))
    return f.finish(_halves(f, required(node, 0), grown))


def _celu(node: ir.Node, edit: Edit) -> bool:
    """max(x, 0) + min(0, a (exp(x / a) - 1))."""
    f = Formula(node, edit)
    x, alpha = required(node, 0), attribute(node, "alpha", 1.0)
    grown = f.mul(f.sub(f.exp(f.div(x, alpha)), 1.0), alpha)
    return f.finish(_halves(f, x, grown))


def _selu(node: ir.Node, edit: Edit) -> bool:
    """The scaled one: g (max(x, 0) + min(0, a (exp(x) - 1)))."""
    if _is_single(node):
        return False
    f = Formula(node, edit)
    x = required(node, 0)
    grown = f.mul(f.sub(f.exp(x), 1.0), attribute(node, "alpha", 1.67326319217681884765625))
    gamma = attribute(node, "gamma", 1.05070102214813232421875)
    return f.finish(f.mul(_halves(f, x, grown), gamma))


def _swish(node: ir.Node, edit: Edit) -> bool:
    """The sigmoid of a x, times x."""
    f = Formula(node, edit)
    x, alpha = required(node, 0), attribute(node, "alpha", 1.0)
    return f.finish(f.mul(x, f.sigmoid(x if alpha == 1.0 else f.mul(x, alpha))))


def _pow(node: ir.Node, edit: Edit) -> bool:
    """Of integers, or of two types: in float64, whose integers are exact up to 2^53."""
    base, exponent = required(node, 0), required(node, 1)
    kind, other = dtype_of(base), dtype_of(exponent)
    if kind is None or other is None or (kind in FLOATS and kind == other):
        return False
    f = Formula(node, edit)
    if kind in FLOATS:
        return f.finish(f.op("Pow", base, f.cast(exponent, kind)))
    wide = [f.cast(v, ir.DataType.DOUBLE) for v in (base, exponent)]
    return f.finish(f.cast(f.op("Pow", *wide), kind))


def _halves(f: Formula, x: ir.Value, below: ir.Value) -> ir.Value:
    return f.op("Where", f.less(x, 0.0), below, x)


def _is_single(node: ir.Node) -> bool:
    return node.inputs[0] is None or node.inputs[0].dtype == ir.DataType.FLOAT


RULES = {
    "CastLike": elementwise.RULES["CastLike"],
    "Celu": _celu,
    "Elu": _elu,
    "IsInf": _is_inf,
    "Pow": _pow,
    "Selu": _selu,
    "Swish": _swish,
}

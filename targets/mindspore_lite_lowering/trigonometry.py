"""Functions that MindSpore Lite 2.0.0 has no kernel for, from those it has.

    tan x = sin x / cos x              sinh x = (e^x - e^-x) / 2      cosh x = (e^x + e^-x) / 2
    asin x = atan(x / sqrt(1 - x^2))   acos x = pi/2 - asin x
    asinh x = sgn x log(|x| + sqrt(x^2 + 1))   acosh x = log(x + sqrt(x^2 - 1))
    atanh x = log((1 + x) / (1 - x)) / 2

and the arc tangent by two reductions of its argument, atan a = pi/2 - atan 1/a for a > 1 and
atan t = 2 atan(t / (1 + sqrt(1 + t^2))), which leave |u| <= sqrt 2 - 1, and the polynomial

    atan u = u + u z (a + z (b + z (c + d z))),   z = u^2

with the coefficients of ATAN. Source: S. L. Moshier, Cephes, single/atanf.c; good to 2e-7 there.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from infc.passes.rewriting import Edit
from infc.targets.mindspore_lite_lowering.formula import Formula, required

ATAN = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)


def sign(f: Formula, x: ir.Value) -> ir.Value:
    """-1, 0 or 1 in the type of `x`."""
    above, below = (f.cast(v, f.dtype) for v in (f.greater(x, 0), f.less(x, 0)))
    return f.sub(above, below)


def _arctangent(f: Formula, x: ir.Value) -> ir.Value:
    a = f.abs(x)
    t = f.div(f.min(a, 1.0), f.max(a, 1.0))
    u = f.div(t, f.add(f.sqrt(f.add(f.mul(t, t), 1.0)), 1.0))
    z = f.mul(u, u)
    series = f.value(ATAN[0])
    for coefficient in ATAN[1:]:
        series = f.add(f.mul(z, series), coefficient)
    inner = f.mul(f.add(f.mul(f.mul(series, z), u), u), 2.0)
    steep = f.cast(f.greater(a, 1.0), ir.DataType.FLOAT)
    folded = f.add(inner, f.mul(steep, f.add(f.mul(inner, -2.0), math.pi / 2)))
    return f.mul(folded, sign(f, x))


def _arcsine(f: Formula, x: ir.Value) -> ir.Value:
    return _arctangent(f, f.div(x, f.sqrt(f.mul(f.sub(1.0, x), f.add(x, 1.0)))))


def _atan(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    return f.finish(_arctangent(f, required(node, 0)))


def _asin(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    return f.finish(_arcsine(f, required(node, 0)))


def _acos(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    return f.finish(f.sub(math.pi / 2, _arcsine(f, required(node, 0))))


def _tan(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    x = required(node, 0)
    return f.finish(f.div(f.sin(x), f.sin(f.add(x, math.pi / 2))))


def _exponentials(f: Formula, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    return f.exp(x), f.exp(f.neg(x))


def _sinh(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    return f.finish(f.mul(f.sub(*_exponentials(f, required(node, 0))), 0.5))


def _cosh(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    return f.finish(f.mul(f.add(*_exponentials(f, required(node, 0))), 0.5))


def _asinh(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    x = required(node, 0)
    a = f.abs(x)
    root = f.sqrt(f.add(f.mul(a, a), 1.0))
    return f.finish(f.mul(f.log(f.add(a, root)), sign(f, x)))


def _acosh(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    x = required(node, 0)
    root = f.sqrt(f.mul(f.sub(x, 1.0), f.add(x, 1.0)))
    return f.finish(f.log(f.add(x, root)))


def _atanh(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    x = required(node, 0)
    return f.finish(f.mul(f.log(f.div(f.add(x, 1.0), f.sub(1.0, x))), 0.5))


RULES = {
    "Acos": _acos,
    "Acosh": _acosh,
    "Asin": _asin,
    "Asinh": _asinh,
    "Atan": _atan,
    "Atanh": _atanh,
    "Cosh": _cosh,
    "Sinh": _sinh,
    "Tan": _tan,
}

"""Comparisons, booleans and Where.

| operator | what MindSpore Lite 2.0.0 does with it |
|---|---|
| Where whose operands broadcast | wrong shapes, or refused |
| Where of booleans | segmentation fault |
| Equal and Xor of booleans, GreaterOrEqual, IsNaN, IsInf, Sign | no kernel |
| Mod of integers of unlike signs | the sign of the dividend, as `fmod=1` |
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import Edit, attribute, dtype_of, rank
from infc.targets.mindspore_lite_lowering.elementwise import INTEGERS
from infc.targets.mindspore_lite_lowering.formula import (
    Formula,
    broadcast,
    required,
    shape_of,
    static_shape,
)
from infc.targets.mindspore_lite_lowering.trigonometry import sign

LARGEST = float(np.finfo(np.float32).max)


def _greater_or_equal(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    return f.finish(f.op("LessOrEqual", required(node, 1), required(node, 0)))


def _unequal(f: Formula, a: ir.Value, b: ir.Value) -> ir.Value:
    """Exclusive or."""
    return f.logical_and(f.logical_or(a, b), f.logical_not(f.logical_and(a, b)))


def _equal(node: ir.Node, edit: Edit) -> bool:
    if dtype_of(node.inputs[0]) != ir.DataType.BOOL:
        return False
    f = Formula(node, edit)
    return f.finish(f.logical_not(_unequal(f, required(node, 0), required(node, 1))))


def _xor(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    return f.finish(_unequal(f, required(node, 0), required(node, 1)))


def _is_nan(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    x = required(node, 0)
    return f.finish(f.logical_not(f.equal(x, x)))


def _is_inf(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    x = required(node, 0)
    positive, negative = (attribute(node, f"detect_{s}", 1) for s in ("positive", "negative"))
    if not positive and not negative:
        return False
    if positive:
        return f.finish(f.greater(f.abs(x) if negative else x, LARGEST))
    return f.finish(f.less(x, -LARGEST))


def _sign(node: ir.Node, edit: Edit) -> bool:
    if dtype_of(node.inputs[0]) not in (ir.DataType.FLOAT, *INTEGERS):
        return False
    f = Formula(node, edit)
    return f.finish(sign(f, required(node, 0)))


def _mod(node: ir.Node, edit: Edit) -> bool:
    """mod(a, b) = fmod(fmod(a, b) + b, b), as the runtime's has the sign of the dividend."""
    if attribute(node, "fmod", 0) or dtype_of(node.inputs[0]) not in INTEGERS:
        return False
    f = Formula(node, edit)
    a, b = required(node, 0), required(node, 1)
    shifted = f.add(f.op("Mod", a, b, fmod=1), b)
    return f.finish(f.op("Mod", shifted, b, fmod=1))


def _where(node: ir.Node, edit: Edit) -> bool:
    condition, x, y = (required(node, i) for i in range(3))
    f = Formula(node, edit)
    if dtype_of(x) == ir.DataType.BOOL:
        chosen = f.logical_and(condition, x)
        return f.finish(f.logical_or(chosen, f.logical_and(f.logical_not(condition), y)))
    operands = (condition, x, y)
    common = broadcast(*operands)
    if common is None:
        return _where_of_unknown_shape(node, f)
    if all(static_shape(v) == common for v in operands):
        return False
    for i, value in enumerate(operands):
        if static_shape(value) != common:
            node.replace_input_with(i, f.op("Expand", value, f.ints(common)))
    return True


def _where_of_unknown_shape(node: ir.Node, f: Formula) -> bool:
    """Broadcast by adding zeros of each other's shapes, made from booleans, which are finite."""
    condition, x, y = (required(node, i) for i in range(3))
    shapes = [shape_of(v) for v in (condition, x, y)]
    if all(s is not None and None not in s and s == shapes[0] for s in shapes):
        return False
    if any(rank(v) is None for v in (condition, x, y)) or dtype_of(x) != ir.DataType.FLOAT:
        return False
    truths = (condition, f.equal(x, x), f.equal(y, y))
    zeros = [f.op("Mul", f.cast(t, ir.DataType.FLOAT), f.constant(np.float32(0))) for t in truths]
    zero = f.add(f.add(zeros[0], zeros[1]), zeros[2])
    everywhere = f.op("Equal", zero, f.constant(np.float32(0)))
    inputs = [f.logical_and(condition, everywhere), f.add(x, zero), f.add(y, zero)]
    edit_shape = node.outputs[0].shape
    for value, index in zip(inputs, range(3), strict=True):
        value.shape = edit_shape if edit_shape is not None and _named(edit_shape) else value.shape
        node.replace_input_with(index, value)
    return True


def _named(shape: ir.Shape) -> bool:
    """Whether each dimension is a number or a symbol, so that equal ones are known to be."""
    return all(isinstance(d, int) or d.value is not None for d in shape)


RULES = {
    "Equal": _equal,
    "GreaterOrEqual": _greater_or_equal,
    "IsInf": _is_inf,
    "IsNaN": _is_nan,
    "Mod": _mod,
    "Sign": _sign,
    "Where": _where,
    "Xor": _xor,
}

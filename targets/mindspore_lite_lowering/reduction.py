"""Reductions, the arguments of extremes, and running sums.

| operator | what MindSpore Lite 2.0.0 does with it |
|---|---|
| ReduceMax | starts from the least positive float: wrong where all are negative |
| ReduceSumSquare | squares its input in place: wrong at a second run on the same input |
| ReduceL1, ReduceLogSum, ReduceLogSumExp, ArgMin, CumProd | no kernel |
| any of them with `noop_with_empty_axes` | reduces all |
| ArgMax without `keepdims` | drops the dimension |
| ArgMax that keeps it at rank 5, or drops the only one | refused |
| CumSum with `exclusive` or `reverse` | ignores them |
| Softmax and LogSoftmax of rank 6 | refused |
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Protocol

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    Edit,
    Rule,
    attribute,
    dtype_of,
    given,
    int_list,
    is_given,
    rank,
    scalar_of,
    static_dims,
)
from infc.targets.mindspore_lite_lowering.formula import (
    Formula,
    required,
    set_default,
    static_shape,
)


class Reduce(Protocol):
    """Reduces over the axes of the node at hand, and keeps the dimensions as that does."""

    def __call__(self, op_type: str, value: ir.Value, keepdims: int = ...) -> ir.Value:
        """The reduction `op_type` of `value`."""
        ...


Body = Callable[[Formula, ir.Value, Reduce], ir.Value]


def _reduction(body: Body) -> Rule:
    """A reduction written through others over the same axes."""

    def rule(node: ir.Node, edit: Edit) -> bool:
        f = Formula(node, edit)
        keep = attribute(node, "keepdims", 1)
        if is_given(node, "axes", 1):
            axes = int_list(node, "axes", 1)
            if not axes:
                return False
        else:
            axes = None

        def reduce(op_type: str, value: ir.Value, keepdims: int = keep) -> ir.Value:
            return f.reduce(op_type, value, axes, keepdims=keepdims)

        return f.finish(body(f, required(node, 0), reduce))

    return _unless_empty(rule)


def _unless_empty(rule: Rule) -> Rule:
    """`rule`, unless there are no axes, which means all of them or none at all."""

    def checked(node: ir.Node, edit: Edit) -> bool:
        present = is_given(node, "axes", 1)
        empty = int_list(node, "axes", 1) == () or static_shape(given(node, 1)) == (0,)
        if present and not empty:
            return rule(node, edit)
        if attribute(node, "noop_with_empty_axes", 0):
            return _nothing_reduced(node, edit)
        if not present:
            return rule(node, edit)
        f = Formula(node, edit)
        keep = attribute(node, "keepdims", 1)
        return f.finish(f.reduce(node.op_type, required(node, 0), None, keepdims=keep))

    return checked


def _nothing_reduced(node: ir.Node, edit: Edit) -> bool:
    """Over no axis at all: what the reduction makes of single elements."""
    f = Formula(node, edit)
    x = required(node, 0)
    single: dict[str, Callable[[], ir.Value]] = {
        "ReduceL1": lambda: f.abs(x),
        "ReduceL2": lambda: f.abs(x),
        "ReduceLogSum": lambda: f.log(x),
        "ReduceSumSquare": lambda: f.mul(x, x),
    }
    return f.finish(single.get(node.op_type, lambda: f.op("Identity", x))())


def _keep(node: ir.Node, edit: Edit) -> bool:
    return False


def _greatest(f: Formula, x: ir.Value, reduce: Reduce) -> ir.Value:
    return f.neg(reduce("ReduceMin", f.neg(x)))


def _log_sum_exp(f: Formula, x: ir.Value, reduce: Reduce) -> ir.Value:
    """Take log sum e^(x - m) + m for the greatest element m, lest it overflow."""
    negated = f.neg(x)
    kept = f.add(x, reduce("ReduceMin", negated, keepdims=1))
    return f.sub(f.log(reduce("ReduceSum", f.exp(kept))), reduce("ReduceMin", negated))


def _l2(f: Formula, x: ir.Value, reduce: Reduce) -> ir.Value:
    return f.sqrt(reduce("ReduceSum", f.mul(x, x)))


def _arg_min(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    x = f.neg(required(node, 0))
    found = f.op(
        "ArgMax",
        x,
        axis=attribute(node, "axis", 0),
        keepdims=attribute(node, "keepdims", 1),
        select_last_index=attribute(node, "select_last_index", 0),
    )
    return f.finish(found)


def _arg_max(node: ir.Node, edit: Edit) -> bool:
    x = required(node, 0)
    depth = rank(x)
    if depth is None:
        return set_default(node, keepdims=1)
    f = Formula(node, edit)
    axis, keep = attribute(node, "axis", 0) % max(depth, 1), attribute(node, "keepdims", 1)
    if attribute(node, "select_last_index", 0):
        shape = static_dims(x)
        if shape is None:
            return False
        first = f.op("ArgMax", f.reverse(x, axis), axis=axis, keepdims=keep)
        counted = f.sub(f.constant(np.int64(shape[axis] - 1)), first)
        return f.finish(counted)
    if depth == 1 and not keep:
        return f.finish(f.reshape(f.op("ArgMax", x, axis=0, keepdims=1), ()))
    if depth > 4 and keep:
        return f.finish(f.unsqueeze(f.op("ArgMax", x, axis=axis, keepdims=0), (axis,)))
    if depth > 5:
        return _flattened(f, x, axis)
    return set_default(node, keepdims=1, axis=0)


def _flattened(f: Formula, x: ir.Value, axis: int) -> bool:
    """Over three dimensions: those before the axis, the axis, those after it."""
    shape = static_dims(x)
    if shape is None:
        return False
    three = f.reshape(x, (prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])))
    found = f.op("ArgMax", three, axis=1, keepdims=0)
    return f.finish(f.reshape(found, (*shape[:axis], *shape[axis + 1 :])))


def _softmax(node: ir.Node, edit: Edit) -> bool:
    x = required(node, 0)
    shape = static_dims(x)
    if shape is None or len(shape) < 6:
        return set_default(node, axis=-1)
    f = Formula(node, edit)
    axis = attribute(node, "axis", -1) % len(shape)
    three = f.reshape(x, (prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])))
    return f.finish(f.reshape(f.op(node.op_type, three, axis=1), shape))


def _cum_sum(node: ir.Node, edit: Edit) -> bool:
    exclusive, reverse = attribute(node, "exclusive", 0), attribute(node, "reverse", 0)
    axis = scalar_of(node.inputs[1])
    if not (exclusive or reverse) or not isinstance(axis, int):
        return False
    f = Formula(node, edit)
    x = required(node, 0)
    start = f.reverse(x, axis) if reverse else x
    total = f.op("CumSum", start, node.inputs[1])
    if exclusive:
        total = f.sub(total, start)
    return f.finish(f.reverse(total, axis) if reverse else total)


def _hardmax(node: ir.Node, edit: Edit) -> bool:
    """One at the first of the greatest, zero elsewhere."""
    x = required(node, 0)
    shape = static_dims(x)
    if shape is None or dtype_of(x) != ir.DataType.FLOAT:
        return False
    f = Formula(node, edit)
    axis = attribute(node, "axis", -1) % len(shape)
    best = f.op("ArgMax", x, axis=axis, keepdims=1)
    along = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return f.finish(f.cast(f.equal(best, f.constant(along)), ir.DataType.FLOAT))


RULES: dict[str, Rule] = {
    "ArgMax": _arg_max,
    "ArgMin": _arg_min,
    "CumSum": _cum_sum,
    "Hardmax": _hardmax,
    "LogSoftmax": _softmax,
    "ReduceL1": _reduction(lambda f, x, reduce: reduce("ReduceSum", f.abs(x))),
    "ReduceL2": _reduction(_l2),
    "ReduceLogSum": _reduction(lambda f, x, reduce: f.log(reduce("ReduceSum", x))),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    "ReduceMax": _reduction(_greatest),
    "ReduceMean": _unless_empty(_keep),
    "ReduceMin": _unless_empty(_keep),
    "ReduceProd": _unless_empty(_keep),
    "ReduceSum": _unless_empty(_keep),
    "ReduceSumSquare": _reduction(lambda f, x, reduce: reduce("ReduceSum", f.mul(x, x))),
    "Softmax": _softmax,
}

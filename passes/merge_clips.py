"""Bounds on the same value, merged.

    Relu(Relu(x))            ->  Relu(x)
    Clip(Relu(x), a, b)      ->  Clip(x, max(a, 0), b)       also Relu(Clip(x, a, b))
    Clip(Clip(x, a, b), c, d) -> Clip(x, max(a, c), min(b, d))
    Min(Max(x, a), b)        ->  Clip(x, a, b)               also the other way round
    Max(x, 0)                ->  Relu(x)

Bounds are constants with one element, and the intervals meet: where they do not, the result is a
constant that depends on the order. Floating point only. Clip-6 holds its bounds as attributes,
Clip-11 and later as inputs of rank zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    FLOATS,
    Edit,
    attribute,
    broadcasts_into,
    dims,
    dtype_of,
    given,
    rewrite,
    scalar_of,
    sole_consumer,
    split_constant,
)

Bounds = tuple[float | None, float | None]


class MergeClips(ir.passes.InPlacePass):
    """Merge Relu, Clip, Min and Max."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node once."""
        return rewrite(model, dict.fromkeys(("Relu", "Clip", "Min", "Max"), _merge))


def _merge(node: ir.Node, edit: Edit) -> bool:
    outer = _bounds(node)
    if outer is None:
        return False
    x, (low, high) = outer
    inner_node = x.producer()
    inner = _bounds(inner_node) if inner_node is not None else None
    y = node.outputs[0]
    if inner_node is None or inner is None:
        return node.op_type == "Max" and low == 0 and _emit(y, x, (0.0, None), edit)
    source, (first_low, first_high) = inner
    if node.op_type == "Relu" and first_low is not None and first_low >= 0:
        return edit.forward(y, x)
    if sole_consumer(x) is not node:
        return False
    bounds = _pick(max, low, first_low), _pick(min, high, first_high)
    if bounds[0] is not None and bounds[1] is not None and bounds[0] > bounds[1]:
        return False
    return _emit(y, source, bounds, edit)


def _pick(choose: Callable[[list[float]], float], a: float | None, b: float | None) -> float | None:
    given_bounds = [bound for bound in (a, b) if bound is not None]
    return choose(given_bounds) if given_bounds else None


def _bounds(node: ir.Node) -> tuple[ir.Value, Bounds] | None:
    """(x, (low, high)) where `node` keeps x between constants; None for "no bound"."""
    if node.domain or not node.inputs or node.inputs[0] is None:
        return None
    x = node.inputs[0]
    low: float | None = None
    high: float | None = None
    if node.op_type == "Relu":
        low = 0.0
    elif node.op_type == "Clip":
        for i, name in ((1, "min"), (2, "max")):
            value = given(node, i)
            bound = attribute(node, name) if value is None else scalar_of(value)
            if bound is None and value is not None:
                return None
            low, high = (bound, high) if i == 1 else (low, bound)
    elif node.op_type in ("Min", "Max"):
        parts = split_constant(node)
        bound = scalar_of(parts[1]) if parts is not None else None
        if parts is None or bound is None:
            return None
        x, c = parts
        shape = dims(c)
        if shape and not broadcasts_into(shape, dims(x)):
            return None
        low, high = (bound, None) if node.op_type == "Max" else (None, bound)
    else:
        return None
    if dtype_of(x) not in FLOATS or any(b is not None and math.isnan(b) for b in (low, high)):
        return None
    if low is not None and high is not None and low > high:
        return None
    return x, (low, high)


def _emit(y: ir.Value, x: ir.Value, bounds: Bounds, edit: Edit) -> bool:
    """Let y be x between `bounds`."""
    low, high = bounds
    node = y.producer()
    dtype = dtype_of(x)
    if node is None or dtype is None:
        return False
    if low == 0 and high is None:
        edit.replace(y, "Relu", [x])
    elif edit.opset < 11:
        if dtype != ir.DataType.FLOAT or low is None or high is None:
            return False
        edit.replace(y, "Clip", [x], {"min": float(low), "max": float(high)})
    else:
        values = [
            None
            if bound is None
            else edit.constant(
                ir.tensor(np.array(bound, dtype.numpy()), dtype=dtype), f"{y.name}_{name}", node
            )
            for name, bound in (("min", low), ("max", high))
        ]
        edit.replace(y, "Clip", [x, *values] if high is not None else [x, values[0]])
    return True

"""Layer and RMS normalisation spelled out, recognised.

    d = x - mean(x);  d / sqrt(mean(d * d) + eps) * scale + bias  ->  LayerNormalization  opset 17
    x / sqrt(mean(x * x) + eps) * scale                           ->  RMSNormalization    opset 23

Means keep their dimensions and go over the same last ones. Scale and bias are optional and have
exactly the shape of those; a scale of ones is written where there is none and their number is
known. float32 and float16: both operators compute their statistics in float32, which would take
digits from a double. Sources: the ONNX functions of LayerNormalization-17, RMSNormalization-23.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    Edit,
    attribute,
    closed,
    dims,
    dtype_of,
    int_list,
    normal_axes,
    other_input,
    producer,
    rank,
    rewrite,
    scalar_of,
    sole_consumer,
    split_constant,
)

TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


class FuseNormalization(ir.passes.InPlacePass):
    """Recognise LayerNormalization and RMSNormalization."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node once."""
        return rewrite(model, {"Div": _divided, "Mul": _multiplied})


@dataclass(frozen=True, slots=True)
class Spread:
    """sqrt(mean(squared * squared, last `axes` dimensions) + epsilon), by these nodes."""

    squared: ir.Value
    axes: int
    epsilon: float
    nodes: frozenset[ir.Node]


def _divided(node: ir.Node, edit: Edit) -> bool:
    d, root = node.inputs
    spread = _spread(root)
    return spread is not None and spread.squared is d and _fuse(node, spread, edit)


def _multiplied(node: ir.Node, edit: Edit) -> bool:
    """D * (1 / root), as exporters of rsqrt write it."""
    for d, inverse in (node.inputs, reversed(node.inputs)):
        inverted = producer(inverse, "Reciprocal", "Div")
        if inverted is None:
            continue
        if inverted.op_type == "Div" and scalar_of(inverted.inputs[0]) != 1:
            continue
        spread = _spread(inverted.inputs[-1])
        if spread is not None and spread.squared is d:
            nodes = spread.nodes | {inverted}
            found = Spread(spread.squared, spread.axes, spread.epsilon, nodes)
            return _fuse(node, found, edit)
    return False


def _spread(value: ir.Value | None) -> Spread | None:
    root = producer(value, "Sqrt")
    added = producer(root.inputs[0], "Add") if root is not None else None
    parts = split_constant(added) if added is not None else None
    if root is None or added is None or parts is None:
        return None
    mean, epsilon = producer(parts[0], "ReduceMean"), scalar_of(parts[1])
    last = _last_axes(mean) if mean is not None else None
    if mean is None or last is None or epsilon is None or epsilon < 0:
        return None
    square = producer(mean.inputs[0], "Mul", "Pow")
    if square is None:
        return None
    d, again = square.inputs
    twice = scalar_of(again) == 2 if square.op_type == "Pow" else again is d
    if d is None or not twice:
        return None
    return Spread(d, last, float(epsilon), frozenset((root, added, mean, square)))


def _last_axes(mean: ir.Node) -> int | None:
    """How many of the last dimensions a ReduceMean goes over, keeping them; None for others."""
    axes = int_list(mean, "axes", 1)
    into = rank(mean.inputs[0])
    if not axes or attribute(mean, "keepdims", 1) != 1:
        return None
    if into is None:
        return 1 if axes == (-1,) else None
    found = normal_axes(axes, into)
    if found is None or sorted(found) != list(range(into - len(found), into)):
        return None
    return len(found)


def _fuse(node: ir.Node, spread: Spread, edit: Edit) -> bool:
    """Replace the normalisation that ends in `node`, with the scale and bias that follow it."""
    nodes = set(spread.nodes) | {node}
    x, op_type = spread.squared, "RMSNormalization"
    centred = producer(x, "Sub")
    if centred is not None:
        mean = producer(centred.inputs[1], "ReduceMean")
        source = centred.inputs[0]
        same = mean is not None and mean.inputs[0] is source
        if mean is not None and source is not None and same and _last_axes(mean) == spread.axes:
            x, op_type = source, "LayerNormalization"
            nodes |= {centred, mean}
    if edit.opset < (17 if op_type == "LayerNormalization" else 23):
        return False
    shape = dims(x)
    if dtype_of(x) not in TYPES or shape is None or not closed(nodes, node):
        return False
    tail = shape[len(shape) - spread.axes :]
    y = node.outputs[0]
    inputs: list[ir.Value | None] = [x]
    scaled = _follower(y, "Mul", tail)
    if scaled is not None:
        y = scaled[0]
        inputs.append(scaled[1])
        shifted = _follower(y, "Add", tail) if op_type == "LayerNormalization" else None
        if shifted is not None:
            y = shifted[0]
            inputs.append(shifted[1])
    else:
        sizes = [n for n in tail if isinstance(n, int)]
        if len(sizes) != len(tail):
            return False
        dtype = dtype_of(x) or ir.DataType.FLOAT
        ones = ir.tensor(np.ones(sizes, dtype.numpy()), dtype=dtype)
        inputs.append(edit.constant(ones, f"{y.name}_scale", node))
    attributes = {"axis": -spread.axes, "epsilon": spread.epsilon}
    edit.replace(y, op_type, inputs, attributes)
    return True


def _follower(
    y: ir.Value, op_type: str, tail: tuple[int | str | None, ...]
) -> tuple[ir.Value, ir.Value] | None:
    """(result, operand) of the node of this type that alone reads y, its operand of shape tail."""
    node = sole_consumer(y)
    if node is None or node.op_type != op_type or node.domain:
        return None
    operand = other_input(node, y)
    if operand is None or None in tail or dims(operand) != tail:
        return None
    if dtype_of(operand) != dtype_of(y):
        return None
    return node.outputs[0], operand

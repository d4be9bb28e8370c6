"""Constant arithmetic per channel folded into the operator before or after it, or merged.

    Conv(x, w, b) * s + t   ->  Conv(x, w * s, b * s + t)
    Conv(x * s, w, b)       ->  Conv(x, w * s, b)
    BN(x) * s + t           ->  BN(x) with gamma * s, beta * s + t
    Transpose(Reshape(x @ w + b)) * s  ->  Transpose(Reshape(x @ (w * s) + b * s))   one number s
    ((x @ w) @ y) * s                  ->  (x @ (w * s)) @ y
    (x * a) * b             ->  x * (a * b)         (x + a) + b  ->  x + (a + b)

with Sub, Div and Neg as the Add and Mul they are, for Conv, ConvTranspose, Gemm and MatMul. The
constant has one element, or one per channel of the operator: anything else is a broadcast or
another function. A shift before a convolution folds only where that pads nothing. Merging is for
floating point: integer division does not associate. A number so large that adding it rounds to
whole steps stays where it is: that is how some exporters write a rounding.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infc.passes.affine import ABSORBERS, Affine, absorb_after, absorb_before, absorb_into
from infc.passes.rewriting import (
    FLOATS,
    Array,
    Edit,
    broadcasts_into,
    const_array,
    dims,
    dtype_of,
    producer,
    rank,
    rewrite,
    sole_consumer,
    split_constant,
    weights,
)


class FoldConstantArithmetic(ir.passes.InPlacePass):
    """Fold constant scales and shifts into their neighbours."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node once."""
        return rewrite(model, dict.fromkeys(("Add", "Sub", "Mul", "Div", "Neg"), _fold))


def _fold(node: ir.Node, edit: Edit) -> bool:
    found = _affine(node)
    if found is None:
        return False
    x, affine = found
    y = node.outputs[0]
    return (
        absorb_before(x, y, affine, edit)
        or absorb_after(x, y, affine, edit)
        or _scale_source(x, y, affine, edit)
        or _merge(node, x, edit)
    )


def _affine(node: ir.Node) -> tuple[ir.Value, Affine] | None:
    """(x, affine) where `node` is y = affine(x) with the shape of x; None where it is not."""
    one, none = np.ones(()), np.zeros(())
    if node.op_type == "Neg":
        x = node.inputs[0]
        return None if x is None or dtype_of(x) not in FLOATS else (x, Affine(-one, none, None))
    found = split_constant(node)
    if found is None:
        return None
    x, c = found
    array = const_array(c)
    if array is None or dtype_of(c) not in FLOATS or not np.isfinite(array).all():
        return None
    if node.op_type in ("Add", "Sub") and _rounds(array):
        return None
    placed = _placed(array, x)
    if placed is None:
        return None
    values, axis = placed
    if node.op_type == "Mul":
        return x, Affine(values, none, axis)
    if node.op_type == "Add":
        return x, Affine(one, values, axis)
    if node.op_type == "Sub":
        if c is node.inputs[1]:
            return x, Affine(one, -values, axis)
        return x, Affine(-one, values, axis)
    if c is node.inputs[1] and values.all():
        return x, Affine(1 / values, none, axis)
    return None


def _rounds(array: Array) -> bool:
    """Whether adding `array` may be meant to round: x + 1.5 * 2**23 - 1.5 * 2**23."""
    bits = {2: 9, 4: 20}.get(array.dtype.itemsize, 49)
    return bool((np.abs(array.astype(np.float64)) >= 2.0**bits).any())


def _placed(array: Array, x: ir.Value) -> tuple[Array, int | None] | None:
    """The elements, float64, and the dimension of `x` they run along, which x already has."""
    into = _rank(x)
    if array.size == 1:
        fits = array.ndim == 0 or (into is not None and array.ndim <= into)
        return (array.astype(np.float64).reshape(()), None) if fits else None
    if into is None or array.ndim > into:
        return None
    along = [i for i, n in enumerate(array.shape) if n != 1]
    if len(along) != 1:
        return None
    return array.astype(np.float64).reshape(-1), along[0] + into - array.ndim


def _rank(x: ir.Value) -> int | None:
    """The rank of `x`, if need be from the weights of the operator that gives it."""
    known = rank(x)
    if known is None and producer(x, "Gemm") is not None:
        return 2
    node = producer(x, "Conv", "ConvTranspose")
    return rank(node.inputs[1]) if known is None and node is not None else known


MOVERS = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity")
"""Operators that only move elements: a scale of all commutes with them."""
MAX_DEPTH = 8
"""Nodes between a scale and the weights that take it."""


def _scale_source(x: ir.Value, y: ir.Value, affine: Affine, edit: Edit) -> bool:
    """Scale the weights that x comes from, over operators that a scale of all commutes with."""
    reader = y.producer()
    if affine.shift.any() or affine.scale.size != 1 or reader is None:
        return False
    value = _scalable(x, reader, MAX_DEPTH)
    if value is None or value is x:
        return False
    added = producer(value, "Add")
    parts = split_constant(added) if added is not None else None
    if added is None or parts is None:
        source = value.producer()
        return (
            source is not None and absorb_into(source, value, affine, edit) and edit.forward(y, x)
        )
    product, c = parts
    source, bias = product.producer(), const_array(c)
    if source is None or bias is None:
        return False
    scaled = (bias.astype(np.float64) * affine.scale).astype(bias.dtype)
    if not np.isfinite(scaled).all() or not absorb_into(source, product, affine, edit):
        return False
    constant = edit.constant(scaled, f"{c.name}_folded", added)
    edit.replace(value, "Add", [constant if v is c else v for v in added.inputs])
    return edit.forward(y, x)


def _scalable(value: ir.Value, reader: ir.Node, depth: int) -> ir.Value | None:
    """The weighted value behind `value`, each on the way read by the next alone."""
    node = value.producer()
    if node is None or node.domain or depth == 0 or sole_consumer(value) is not reader:
        return None
    if node.op_type in MOVERS and node.inputs[0] is not None:
        return _scalable(node.inputs[0], node, depth - 1)
    if node.op_type == "Add":
        parts = split_constant(node)
        fits = parts is not None and _scalable(parts[0], node, 1) is parts[0]
        return value if fits else None
    if node.op_type not in ABSORBERS or len(node.inputs) < 2:
        return None
    if weights(node.inputs[1]) is not None:
        return value
    if node.op_type != "MatMul":
        return None
    for operand in node.inputs:
        found = _scalable(operand, node, depth - 1) if operand is not None else None
        if found is not None:
            return found
    return None


_KIND = {"Mul": "Mul", "Div": "Mul", "Add": "Add", "Sub": "Add"}


def _merge(node: ir.Node, x: ir.Value, edit: Edit) -> bool:
    """Merge with the node before, of the same kind, that nobody else reads."""
    inner = producer(x, *_KIND)
    if inner is None or sole_consumer(x) is not node or node.op_type not in _KIND:
        return False
    if _KIND[inner.op_type] != _KIND[node.op_type]:
        return False
    first, second = split_constant(inner), split_constant(node)
    if first is None or second is None:
        return False
    source, a = first
    _, b = second
    left, right = const_array(a), const_array(b)
    if left is None or right is None or dtype_of(a) != dtype_of(b):
        return False
    if not broadcasts_into(left.shape, dims(source)) and left.ndim > 0:
        return False
    dtype = left.dtype
    left, right = left.astype(np.float64), right.astype(np.float64)
    if any(n.op_type in ("Sub", "Div") and n.inputs[0] is c for n, c in ((inner, a), (node, b))):
        return False
    if _KIND[node.op_type] == "Add":
        if _rounds(left.astype(dtype)):
            return False
        left, right = (
            (-left if inner.op_type == "Sub" else left),
            (-right if node.op_type == "Sub" else right),
        )
        merged = left + right
    else:
        if (inner.op_type == "Div" and not left.all()) or (
            node.op_type == "Div" and not right.all()
        ):
            return False
        left = 1 / left if inner.op_type == "Div" else left
        merged = left * (1 / right if node.op_type == "Div" else right)
    with np.errstate(over="ignore", under="ignore"):
        rounded = merged.astype(dtype)
    if not np.isfinite(rounded).all() or ((rounded == 0) != (merged == 0)).any():
        return False
    if rounded.size and (np.abs(merged[merged != 0]) < np.finfo(np.float32).tiny).any():
        return False
    constant = edit.constant(rounded, f"{a.name}_merged", node)
    edit.replace(node.outputs[0], _KIND[node.op_type], [source, constant])
    return True

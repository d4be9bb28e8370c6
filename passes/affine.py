"""A scale and a shift per channel, absorbed by the constants of an operator next to it.

Shared by the folds of BatchNormalization and of constant arithmetic:

    (w * x + b) * s + t  =  (w * s) * x + (b * s + t)
    w * (x * s + t) + b  =  (w * s) * x + (b + sum(w * t))

Scales and shifts are float64; weights are multiplied in float32 or wider and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from infc.passes.linear_weights import (
    base_name,
    bias_of,
    own_weights,
    rebuild,
    tensor_dims,
)
from infc.passes.rewriting import (
    Array,
    Edit,
    attribute,
    const_array,
    elements,
    given,
    kept,
    producer,
    rank,
    recomputed,
    sole_consumer,
    weights,
)

ABSORBERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization")


@dataclass(frozen=True, slots=True)
class Affine:
    """y = x * scale + shift along dimension `axis` of x; float64, one element or one per channel.

    `axis` counts from the front; None where both have one element.
    """

    scale: Array
    shift: Array
    axis: int | None

    def over(self, channels: int, axis: int | None) -> tuple[Array, Array] | None:
        """Scale and shift of `channels` elements along `axis`; None where they do not fit."""
        sizes = {self.scale.size, self.shift.size}
        if not sizes <= {1, channels} or (self.axis != axis and sizes != {1}):
            return None
        scale, shift = self.scale.reshape(-1), self.shift.reshape(-1)
        return np.broadcast_to(scale, (channels,)), np.broadcast_to(shift, (channels,))


def absorb_before(x: ir.Value, y: ir.Value, affine: Affine, edit: Edit) -> bool:
    """Fold y = affine(x) into the node that gives x to nobody else."""
    node, reader = producer(x, *ABSORBERS), y.producer()
    if node is None or reader is None or sole_consumer(x) is not reader:
        return False
    return _BEFORE[node.op_type](node, y, affine, edit)


def absorb_into(node: ir.Node, y: ir.Value, affine: Affine, edit: Edit) -> bool:
    """Let `node` give affine(y) in the place of its output y."""
    fold = None if node.domain else _BEFORE.get(node.op_type)
    return fold is not None and fold(node, y, affine, edit)


def absorb_after(x: ir.Value, y: ir.Value, affine: Affine, edit: Edit) -> bool:
    """Fold y = affine(x) into every reader of y: each a Conv, Gemm or MatMul that can take it."""
    home, readers = y.producer(), y.consumers()
    if home is None or not readers or y.is_graph_output() or len(y.uses()) != len(readers):
        return False
    for node in readers:
        fold = None if node.domain else _AFTER.get(node.op_type)
        if fold is None or node.graph is not home.graph or node.inputs[0] is not y:
            return False
        if not fold(node, x, affine, None):
            return False
    folded = [_AFTER[node.op_type](node, x, affine, edit) for node in readers]
    return any(folded)


def _conv_before(node: ir.Node, y: ir.Value, affine: Affine, edit: Edit) -> bool:
    w = own_weights(node)
    if w is None or len(w.shape) < 3:
        return False
    shape = tensor_dims(w)
    group = int(attribute(node, "group", 1))
    out = shape[0] if node.op_type == "Conv" else shape[1] * group
    parts = affine.over(out, 1)
    bias = bias_of(given(node, 2), out)
    if parts is None or bias is None:
        return False
    scale, shift = parts
    spread = (-1,) + (1,) * (len(shape) - 1)
    factor = scale.reshape(spread)
    if node.op_type == "ConvTranspose":
        if shape[0] % group:
            return False
        rows = np.repeat(scale.reshape(group, shape[1]), shape[0] // group, axis=0)
        factor = rows.reshape(*rows.shape, *spread[2:])
    return rebuild(node, y, node.inputs[0], factor, bias * scale + shift, edit)


def _gemm_before(node: ir.Node, y: ir.Value, affine: Affine, edit: Edit) -> bool:
    w = own_weights(node)
    if w is None or len(w.shape) != 2:
        return False
    columns = 0 if attribute(node, "transB", 0) else 1
    parts = affine.over(tensor_dims(w)[columns], 1)
    c = given(node, 2)
    bias = np.zeros(()) if c is None else const_array(c)
    if parts is None or bias is None:
        return False
    scale, shift = parts
    total = bias.astype(np.float64) * float(attribute(node, "beta", 1.0)) * scale + shift
    factor = scale[:, None] if columns == 0 else scale
    return rebuild(node, y, node.inputs[0], factor, total, edit)


def _matmul_before(node: ir.Node, y: ir.Value, affine: Affine, edit: Edit) -> bool:
    w = own_weights(node)
    out = rank(node.outputs[0]) or rank(y)
    if w is None or len(w.shape) != 2 or out is None or out < 2:
        return False
    parts = affine.over(tensor_dims(w)[1], out - 1)
    if parts is None:
        return False
    scale, shift = parts
    if shift.any() and (out != 2 or rank(node.inputs[0]) != 2):
        return False
    return rebuild(node, y, node.inputs[0], scale, shift, edit)


def _batchnorm_before(node: ir.Node, y: ir.Value, affine: Affine, edit: Edit) -> bool:
    gamma, beta = (weights(given(node, i)) for i in (1, 2))
    if gamma is None or beta is None or attribute(node, "training_mode", 0):
        return False
    if len(node.outputs) != 1 or attribute(node, "spatial", 1) != 1 or len(gamma.shape) != 1:
        return False
    parts = affine.over(tensor_dims(gamma)[0], 1)
    if parts is None:
        return False
    scale, shift = parts
    new_gamma = recomputed(gamma, tensor_dims(gamma), lambda g: g * scale)
    new_beta = recomputed(beta, tensor_dims(beta), lambda b: b * scale + shift)
    if new_gamma is None or new_beta is None:
        return False
    x, gamma_value, beta_value, mean, var = node.inputs
    inputs = [
        x,
        edit.constant(new_gamma, f"{base_name(gamma_value)}_folded", node),
        edit.constant(new_beta, f"{base_name(beta_value)}_folded", node),
        mean,
        var,
    ]
    edit.replace(y, "BatchNormalization", inputs, kept(node))
    return True


def _conv_after(node: ir.Node, x: ir.Value, affine: Affine, edit: Edit | None) -> bool:
    w = own_weights(node)
    if w is None or len(w.shape) < 3:
        return False
    shape = tensor_dims(w)
    group = int(attribute(node, "group", 1))
    parts = affine.over(shape[1] * group, 1)
    bias = bias_of(given(node, 2), shape[0])
    if parts is None or bias is None or shape[0] % group:
        return False
    scale, shift = parts
    pads_nothing = not any(attribute(node, "pads", ())) and attribute(
        node, "auto_pad", "NOTSET"
    ) in ("NOTSET", "VALID")
    if shift.any() and not pads_nothing:
        return False

    def per_weight(part: Array) -> Array:
        rows = np.repeat(part.reshape(group, shape[1]), shape[0] // group, axis=0)
        return rows.reshape(*rows.shape, *(1,) * (len(shape) - 2))

    if shift.any():
        shifted = elements(w).astype(np.float64) * per_weight(shift)
        bias = bias + shifted.reshape(shape[0], -1).sum(axis=1)
    return rebuild(node, node.outputs[0], x, per_weight(scale), bias, edit)


def _gemm_after(node: ir.Node, x: ir.Value, affine: Affine, edit: Edit | None) -> bool:
    w = own_weights(node)
    if w is None or len(w.shape) != 2 or attribute(node, "transA", 0):
        return False
    rows = 1 if attribute(node, "transB", 0) else 0
    parts = affine.over(tensor_dims(w)[rows], 1)
    c = given(node, 2)
    bias = np.zeros(()) if c is None else const_array(c)
    if parts is None or bias is None:
        return False
    scale, shift = parts
    total = bias.astype(np.float64) * float(attribute(node, "beta", 1.0))
    factor = scale if rows == 1 else scale[:, None]
    if shift.any():
        product = shift @ (elements(w).T if rows == 1 else elements(w)).astype(np.float64)
        total = total + product * float(attribute(node, "alpha", 1.0))
    return rebuild(node, node.outputs[0], x, factor, total, edit)


def _matmul_after(node: ir.Node, x: ir.Value, affine: Affine, edit: Edit | None) -> bool:
    w = own_weights(node)
    into = rank(x)
    if w is None or len(w.shape) != 2 or into is None or into < 2:
        return False
    parts = affine.over(tensor_dims(w)[0], into - 1)
    if parts is None:
        return False
    scale, shift = parts
    if shift.any() and into != 2:
        return False
    bias = shift @ elements(w).astype(np.float64) if shift.any() else np.zeros(())
    return rebuild(node, node.outputs[0], x, scale[:, None], bias, edit)


_BEFORE: dict[str, Callable[[ir.Node, ir.Value, Affine, Edit], bool]] = {
    "Conv": _conv_before,
    "ConvTranspose": _conv_before,
    "Gemm": _gemm_before,
    "MatMul": _matmul_before,
    "BatchNormalization": _batchnorm_before,
}

_AFTER: dict[str, Callable[[ir.Node, ir.Value, Affine, Edit | None], bool]] = {
    "Conv": _conv_after,
    "Gemm": _gemm_after,
    "MatMul": _matmul_after,
}

"""What is between sums of integers and the Q that rounds them, made less.

Q(Clip(x)) where Q cuts off no less  ->  Q(x)
Q(Relu(i * m + b), s)                ->  Q(Relu(i * (m / s) + b / s), 1)      i: sums of integers
Q(Transpose(x))                      ->  Transpose(Q(x))
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from infc.passes.activations import clip_bounds
from infc.passes.rewriting import Edit, const_array, is_op, producer, sole_consumer
from infc.targets.tvm_lowering.channels_last import DOMAIN
from infc.targets.tvm_lowering.integer_flow import lift, parameters
from infc.targets.tvm_lowering.quantized_values import Affine, affine_of, real_of

SCALED = 4
"""The number of operands, at least, of IntegerConv and IntegerMatMul that give float32."""
CUT = 1e-3
"""Steps of Q that a Clip may cut off more than Q does, and be dropped."""


def fold_scales(model: ir.Model) -> None:
    """What Q does by itself, and what can be divided by its scale beforehand."""
    edit = Edit(model)
    for node in list(model.graph):
        found = affine_of(node) if is_op(node, "QuantizeLinear") else None
        if found is not None:
            _drop_clips(node, found, edit)
            _divide(node, found, edit)
    for node in list(model.graph):
        if is_op(node, "QuantizeLinear") and is_op(_source(node), "Transpose"):
            lift(node, edit)


def _source(node: ir.Node) -> ir.Node | None:
    value = node.inputs[0]
    return value.producer() if value is not None else None


def _drop_clips(node: ir.Node, found: Affine, edit: Edit) -> None:
    """Leave out a Relu or Clip that cuts off no more than Q does."""
    least, greatest = (0, 255) if found.dtype == "uint8" else (-128, 127)
    while True:
        value = node.inputs[0]
        clip = producer(value, "Relu", "Clip")
        if clip is None or value is None or sole_consumer(value) is not node:
            return
        bounds = (0.0, np.inf) if clip.op_type == "Relu" else clip_bounds(clip)
        if bounds is None or bounds[0] > bounds[1]:
            return
        low = bounds[0] / found.scale + found.zero
        high = bounds[1] / found.scale + found.zero
        if low > least + CUT or high < greatest - CUT:
            return
        node.replace_input_with(0, clip.inputs[0])
        edit.erase(clip)


def _divide(node: ir.Node, found: Affine, edit: Edit) -> None:
    """Put the scale of Q into the factors of what it reads."""
    scaled = _factors(node.inputs[0], node)
    if not scaled or all(is_op(n, "DequantizeLinear") for n in scaled):
        return
    for source in scaled:
        for index in (1,) if is_op(source, "DequantizeLinear") else (3, 4):
            value = source.inputs[index]
            array = const_array(value)
            if value is None or array is None:
                return
            steps = (array.astype(np.float64) / found.scale).astype(np.float32)
            source.replace_input_with(index, edit.constant(steps, f"{value.name}_steps", source))
    one = parameters(replace(found, scale=1.0), edit, node, node.outputs[0].name or "bytes")
    edit.replace(node.outputs[0], "QuantizeLinear", [node.inputs[0], *one])


def _factors(value: ir.Value | None, reader: ir.Node) -> list[ir.Node] | None:
    """The nodes whose factors `value` is proportional to; None where it is to none.

    Only `reader` reads it.
    """
    node = value.producer() if value is not None else None
    if value is None or node is None or sole_consumer(value) is not reader:
        return None
    if node.domain == DOMAIN:
        return [node] if len(node.inputs) > SCALED else None
    if is_op(node, "DequantizeLinear"):
        return [node] if real_of(value) is not None else None
    if is_op(node, "Relu", "LeakyRelu", "Transpose"):
        return _factors(node.inputs[0], node)
    if not is_op(node, "Add"):
        return None
    found: list[ir.Node] = []
    for operand in node.inputs:
        part = _factors(operand, node)
        if part is None:
            return None
        found += part
    return found

"""Convolutions of an image, which a back end may compute faster in float.

An integer kernel that multiplies four channels at once leaves most of its lanes empty over one or
three of them, and a float kernel for images does not. So a convolution of an input's few channels
over many positions stays in float, and what it gives is rounded:

    x -> Q/DQ -> Conv -> Relu -> Q/DQ      ->      x -> Conv -> Relu -> Q/DQ

But not before an operator that moves values: ONNX Runtime 1.31 rounds before such a MaxPool all the
same, and then takes 5 ms for 24 x 176 x 176 bytes that it otherwise pools in 0.1.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from infc.passes.quantization.units import WEIGHTED, Unit
from infc.passes.rewriting import attribute, const_tensor, dims, is_op
from infc.quantization import Scheme

MANY_POSITIONS = 64 * 64
"""Below it an image's convolution takes little time either way."""


def faster_in_float(unit: Unit, scheme: Scheme) -> bool:
    """Whether `unit` convolves an image, or what is as shallow, and is rounded right after."""
    if scheme.least_channels <= 1:
        return False
    if unit.node.op_type != "Conv" or unit.weight is None or attribute(unit.node, "group", 1) != 1:
        return False
    channels = (dims(unit.weight) or (0, 0))[1]
    if not isinstance(channels, int) or channels >= scheme.least_channels:
        return False
    output = unit.outputs[0]
    sizes = [d for d in (dims(output) or ())[2:] if isinstance(d, int)]
    if len(sizes) != len(dims(unit.weight) or ()) - 2 or math.prod(sizes) < MANY_POSITIONS:
        return False
    moved = any(is_op(use.node, *scheme.shared) for use in output.uses())
    return not moved and _comes_in(unit.inputs[0])


def _comes_in(value: ir.Value) -> bool:
    """Whether `value` is an input of the graph, or made of one by itself without weights."""
    while (node := value.producer()) is not None:
        read = [v for v in node.inputs if v is not None and const_tensor(v) is None]
        if len(read) != 1 or node.op_type in WEIGHTED:
            return False
        value = read[0]
    return value.is_graph_input()

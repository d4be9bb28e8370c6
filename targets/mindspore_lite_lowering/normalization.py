"""Normalisations as the arithmetic that they are.

| operator | what MindSpore Lite 2.0.0 does with it |
|---|---|
| LayerNormalization, also spelled with `Pow(d, 2)`, of less than 512 elements | some rows only |
| InstanceNormalization of another rank than 4 | refused |
| RMSNormalization, LpNormalization | refused |
| BatchNormalization whose parameters are computed | refused |
| LRN | its power is off by 1e-3 |

The runtime gives each of several threads the same first rows. `Mul(d, d)` for the square keeps the
converter from finding the layer normalisation again.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from infc.passes.rewriting import Edit, attribute, const_tensor, given, rank, static_dims
from infc.targets.mindspore_lite_lowering.formula import Formula, required


def _deviation(
    f: Formula, x: ir.Value, axes: Sequence[int], epsilon: float
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The mean, x minus that, and 1 / sqrt(variance + epsilon)."""
    mean = f.reduce("ReduceMean", x, axes)
    centred = f.sub(x, mean)
    variance = f.reduce("ReduceMean", f.mul(centred, centred), axes)
    return mean, centred, f.div(1.0, f.sqrt(f.add(variance, epsilon)))


def _layer(node: ir.Node, edit: Edit) -> bool:
    x = required(node, 0)
    depth = rank(x)
    if depth is None:
        return False
    f = Formula(node, edit)
    axes = range(attribute(node, "axis", -1) % depth, depth)
    mean, centred, inverse = _deviation(f, x, axes, attribute(node, "epsilon", 1e-5))
    result = f.mul(f.mul(centred, inverse), required(node, 1))
    bias = given(node, 2)
    if bias is not None:
        result = f.add(result, bias)
    for output, value in zip(node.outputs[1:], (mean, inverse), strict=False):
        if output.uses() or output.is_graph_output():
            take_over(output, value)
    return f.finish(result)


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Let `new` be the output `old`, by its name and type."""
    name, old.name = old.name, None
    new.name, new.type, new.shape = name, old.type, old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def _rms(node: ir.Node, edit: Edit) -> bool:
    x = required(node, 0)
    depth = rank(x)
    if depth is None:
        return False
    f = Formula(node, edit)
    axes = range(attribute(node, "axis", -1) % depth, depth)
    mean = f.reduce("ReduceMean", f.mul(x, x), axes)
    root = f.sqrt(f.add(mean, attribute(node, "epsilon", 1e-5)))
    return f.finish(f.mul(f.div(x, root), required(node, 1)))


def _per_channel(f: Formula, value: ir.Value, depth: int) -> ir.Value:
    return f.reshape(value, (1, -1, *[1] * (depth - 2)))


def _instance(node: ir.Node, edit: Edit) -> bool:
    x = required(node, 0)
    depth = rank(x)
    if depth is None:
        return False
    f = Formula(node, edit)
    scale, bias = (_per_channel(f, required(node, i), depth) for i in (1, 2))
    _, centred, inverse = _deviation(f, x, range(2, depth), attribute(node, "epsilon", 1e-5))
    return f.finish(f.add(f.mul(f.mul(centred, inverse), scale), bias))


def _batch(node: ir.Node, edit: Edit) -> bool:
    """With parameters that are computed, or of one dimension."""
    parameters = [required(node, i) for i in range(1, 5)]
    depth = rank(node.inputs[0])
    if attribute(node, "training_mode", 0) or depth is None or depth < 2:
        return False
    if all(const_tensor(v) is not None for v in parameters):
        return False
    f = Formula(node, edit)
    scale, bias, mean, variance = (_per_channel(f, v, depth) for v in parameters)
    root = f.sqrt(f.add(variance, attribute(node, "epsilon", 1e-5)))
    centred = f.sub(required(node, 0), mean)
    return f.finish(f.add(f.mul(f.div(centred, root), scale), bias))


def norm_of(f: Formula, node: ir.Node) -> ir.Value:
    """The norm along `axis`, which is kept, that an LpNormalization divides by."""
    x, axis = required(node, 0), (attribute(node, "axis", -1),)
    if attribute(node, "p", 2) == 1:
        return f.reduce("ReduceSum", f.abs(x), axis)
    return f.sqrt(f.reduce("ReduceSum", f.mul(x, x), axis))


def _lp(node: ir.Node, edit: Edit) -> bool:
    """Divide by the norm, 0 where the norm is 0."""
    f = Formula(node, edit)
    x, norm = required(node, 0), norm_of(f, node)
    absent = f.cast(f.equal(norm, 0.0), ir.DataType.FLOAT)
    return f.finish(f.div(x, f.add(norm, absent)))


def _local_response(node: ir.Node, edit: Edit) -> bool:
    """Y = x / (bias + alpha / size sum x^2)^beta, the sum over `size` channels around each.

    The sum is an AveragePool over the channels, laid out as a spatial dimension.
    """
    x = required(node, 0)
    shape = static_dims(x)
    if shape is None or len(shape) != 4:
        return False
    n, c, h, w = shape
    size = attribute(node, "size")
    low = (size - 1) // 2
    f = Formula(node, edit)
    squares = f.reshape(f.mul(x, x), (n, 1, c, h * w))
    padded = f.op("Pad", squares, f.ints((0, 0, low, 0, 0, 0, size - 1 - low, 0)), mode="constant")
    means = f.op("AveragePool", padded, kernel_shape=[size, 1], strides=[1, 1], pads=[0] * 4)
    scaled = f.mul(f.reshape(means, shape), attribute(node, "alpha", 1e-4))
    base = f.add(scaled, attribute(node, "bias", 1.0))
    power = f.exp(f.mul(f.log(base), -attribute(node, "beta", 0.75)))
    return f.finish(f.mul(x, power))


RULES = {
    "BatchNormalization": _batch,
    "InstanceNormalization": _instance,
    "LRN": _local_response,
    "LayerNormalization": _layer,
    "LpNormalization": _lp,
    "RMSNormalization": _rms,
}

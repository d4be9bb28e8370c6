"""Normalisations whose other outputs, types or modes TVM's importer leaves out.

| operator | what TVM 0.27 does with it |
|---|---|
| LayerNormalization with Mean or InvStdDev | gives the result in their place |
| BatchNormalization in training mode | takes the running statistics |
| RMSNormalization over several axes | no kernel |
| LpNormalization | no converter |
"""

from __future__ import annotations

import onnx_ir as ir

from infc.passes.rewriting import Edit, attribute, const_array, given, rank, static_dims
from infc.targets.mindspore_lite_lowering import normalization
from infc.targets.mindspore_lite_lowering.formula import Formula, required


def is_read(value: ir.Value) -> bool:
    """Whether anything depends on `value`."""
    return bool(value.uses()) or value.is_graph_output()


def _layer(node: ir.Node, edit: Edit) -> bool:
    if not any(is_read(v) for v in node.outputs[1:]):
        return False
    return normalization.RULES["LayerNormalization"](node, edit)


def _rms(node: ir.Node, edit: Edit) -> bool:
    if attribute(node, "axis", -1) == -1:
        return False
    return normalization.RULES["RMSNormalization"](node, edit)


def _batch(node: ir.Node, edit: Edit) -> bool:
    """(x - mean(x)) / sqrt(var(x) + e) * s + b; the running ones: r * m + own * (1 - m)."""
    x = required(node, 0)
    shape = static_dims(x)
    if not attribute(node, "training_mode", 0) or shape is None:
        return False
    f = Formula(node, edit)
    axes = [i for i in range(len(shape)) if i != 1]
    mean = f.reduce("ReduceMean", x, axes)
    centred = f.sub(x, mean)
    variance = f.reduce("ReduceMean", f.mul(centred, centred), axes)
    momentum = attribute(node, "momentum", 0.9)
    for output, own, index in zip(node.outputs[1:], (mean, variance), (3, 4), strict=False):
        if is_read(output):
            kept = f.mul(required(node, index), momentum)
            new = f.add(kept, f.mul(f.reshape(own, (shape[1],)), 1.0 - momentum))
            normalization.take_over(output, new)
    wide = (1, shape[1], *[1] * (len(shape) - 2))
    scale, bias = (f.reshape(required(node, i), wide) for i in (1, 2))
    root = f.sqrt(f.add(variance, attribute(node, "epsilon", 1e-5)))
    return f.finish(f.add(f.mul(f.div(centred, root), scale), bias))


def _lp(node: ir.Node, edit: Edit) -> bool:
    """Divided by the norm, and 0 where that is 0."""
    f = Formula(node, edit)
    x, norm = required(node, 0), normalization.norm_of(f, node)
    return f.finish(f.div(x, f.op("Where", f.equal(norm, 0.0), f.value(1.0), norm)))


def _dropout(node: ir.Node, edit: Edit) -> bool:
    """At inference the input is handed on, and the mask is true everywhere."""
    import numpy as np

    training, ratio = const_array(given(node, 2)), const_array(given(node, 1))
    off = given(node, 2) is None or (training is not None and not training.any())
    none = ratio is not None and not ratio.any()
    shape = static_dims(node.inputs[0])
    if not (off or none) or shape is None or rank(node.inputs[0]) is None:
        return False
    f = Formula(node, edit)
    for mask in node.outputs[1:]:
        if is_read(mask):
            normalization.take_over(mask, f.op("Identity", f.constant(np.ones(shape, np.bool_))))
    return edit.forward(node.outputs[0], required(node, 0))


RULES = {
    "BatchNormalization": _batch,
    "Dropout": _dropout,
    "LayerNormalization": _layer,
    "LpNormalization": _lp,
    "RMSNormalization": _rms,
}

"""What rounded weights add to the mean of an output channel, taken off its bias.

    b'[o] = b[o] - sum over i, k of (w'[o, i, k] - w[o, i, k]) E[x[i]] c[k]

c[k] is the part of the output positions at which the tap k lies on the input and not on its
padding: in a 3 x 3 kernel over 7 x 7 values, 36/49 for the corners.

Source: M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
2019 (arXiv:1906.04721), section 4.2, which has no c[k].
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infc.passes.quantization.affine import Weights
from infc.passes.quantization.units import Unit
from infc.passes.rewriting import Array, attribute, dims


def correction(unit: Unit, array: Array, rounded: Weights, mean: Array | None) -> Array | None:
    """What to add to the bias of a Conv, ConvTranspose or Gemm: (channels,) float32.

    `array` are its weights, `mean` (C,) is the mean of each channel (axis 1) of its input. None
    where it cannot be told.
    """
    node = unit.node
    if mean is None or unit.axis is None or node.op_type == "MatMul":
        return None
    error = rounded.error(array, unit.axis if rounded.scale.ndim else None).astype(np.float64)
    if node.op_type == "Conv":
        error *= _coverage(node, array.shape[2:])
    error = error.reshape(*error.shape[:2], -1).sum(axis=2)
    if unit.axis == 1:
        error = error.T
    group = int(attribute(node, "group", 1)) if node.op_type == "Conv" else 1
    channels, inputs = error.shape
    if mean.size != group * inputs or not np.isfinite(mean).all():
        return None
    by_group = mean.reshape(group, inputs).astype(np.float64)
    seen = np.repeat(by_group, channels // group, axis=0)
    return np.asarray(-(error * seen).sum(axis=1), np.float32)


def _coverage(node: ir.Node, kernel: tuple[int, ...]) -> Array:
    """The c[k] of a Conv, in the shape of its kernel; 1 where the sizes are not known."""
    rank = len(kernel)
    size = (dims(node.inputs[0]) or ())[2:]
    sizes = [d for d in size if isinstance(d, int)]
    if len(sizes) != rank:
        return np.ones(kernel)
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return np.ones(kernel)
    pads = attribute(node, "pads", [0] * 2 * rank)
    strides = attribute(node, "strides", [1] * rank)
    dilations = attribute(node, "dilations", [1] * rank)
    whole = np.ones(kernel)
    for axis, (n, taps, begin, end, stride, dilation) in enumerate(
        zip(sizes, kernel, pads[:rank], pads[rank:], strides, dilations, strict=True)
    ):
        count = (n + begin + end - dilation * (taps - 1) - 1) // stride + 1
        starts = np.arange(count) * stride - begin
        places = starts[:, None] + np.arange(taps) * dilation
        share = ((places >= 0) & (places < n)).mean(axis=0)
        whole = whole * share.reshape([-1 if i == axis else 1 for i in range(rank)])
    return whole

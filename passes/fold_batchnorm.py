"""BatchNormalization folded into the convolution or matrix product before it, or after it.

    s = gamma / sqrt(var + eps)            t = beta - mean * s

    BN(Conv(x, w, b))     ->  Conv(x, w * s, b * s + t)      s along the output channels of w
    Conv(BN(x), w, b)     ->  Conv(x, w * s, b + sum(w * t)) s and t along its input channels

The second only where the convolution pads nothing (its zeros would have become t) and is the only
reader. ConvTranspose, Gemm and MatMul (rank two, where channels are last) likewise for the first.
BatchNormalization-7, -9, -14, -15 in inference only: ONNX operators, `training_mode` 0, one output.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infc.passes.affine import Affine, absorb_after, absorb_before
from infc.passes.rewriting import Edit, attribute, const_array, rewrite


class FoldBatchnorm(ir.passes.InPlacePass):
    """Fold BatchNormalization into a neighbouring linear operator."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node once."""
        return rewrite(model, {"BatchNormalization": _fold})


def _fold(node: ir.Node, edit: Edit) -> bool:
    x = node.inputs[0]
    affine = _affine(node)
    if affine is None or x is None:
        return False
    if absorb_before(x, node.outputs[0], affine, edit):
        return True
    return absorb_after(x, node.outputs[0], affine, edit)


def _affine(node: ir.Node) -> Affine | None:
    """Y = x * scale + shift per channel (dimension 1), float64; None where that is not all."""
    if attribute(node, "training_mode", 0) or attribute(node, "spatial", 1) != 1:
        return None
    if any(extra.uses() or extra.is_graph_output() for extra in node.outputs[1:]):
        return None
    arrays = [const_array(value) for value in node.inputs[1:5]]
    if len(arrays) != 4 or any(array is None or array.ndim != 1 for array in arrays):
        return None
    gamma, beta, mean, var = (np.asarray(array, np.float64) for array in arrays)
    spread = var + attribute(node, "epsilon", 1e-5)
    if not (spread > 0).all():
        return None
    scale = gamma / np.sqrt(spread)
    return Affine(scale, beta - mean * scale, 1)

"""Operators that only move elements, by Reshape, Transpose and Gather.

| operator | what TVM 0.27 does with it |
|---|---|
| DepthToSpace, SpaceToDepth | the former in mode CRD and the latter are wrong for several blocks |
| Compress, ReverseSequence | no converter, or an extern function; a Gather with constants |
| Einsum | one loop over everything; as a MatMul it is tiled |
"""

from __future__ import annotations

import onnx_ir as ir

from infc.passes.rewriting import Edit, attribute, static_dims
from infc.targets.mindspore_lite_lowering import indexing, matrix, shaping
from infc.targets.mindspore_lite_lowering.formula import Formula, required


def _depth_to_space(node: ir.Node, edit: Edit) -> bool:
    shape = static_dims(node.inputs[0])
    if shape is None:
        return False
    n, c, h, w = shape
    b = attribute(node, "blocksize")
    f = Formula(node, edit)
    x = required(node, 0)
    if attribute(node, "mode", "DCR") == "DCR":
        blocks = f.transpose(f.reshape(x, (n, b, b, c // b**2, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        blocks = f.transpose(f.reshape(x, (n, c // b**2, b, b, h, w)), (0, 1, 4, 2, 5, 3))
    return f.finish(f.reshape(blocks, (n, c // b**2, h * b, w * b)))


def _space_to_depth(node: ir.Node, edit: Edit) -> bool:
    shape = static_dims(node.inputs[0])
    if shape is None:
        return False
    n, c, h, w = shape
    b = attribute(node, "blocksize")
    f = Formula(node, edit)
    blocks = f.reshape(required(node, 0), (n, c, h // b, b, w // b, b))
    order = (0, 3, 5, 1, 2, 4) if attribute(node, "mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return f.finish(f.reshape(f.transpose(blocks, order), (n, c * b * b, h // b, w // b)))


RULES = {
    "Compress": indexing.RULES["Compress"],
    "DepthToSpace": _depth_to_space,
    "Einsum": matrix.RULES["Einsum"],
    "EyeLike": shaping.RULES["EyeLike"],
    "ReverseSequence": indexing.RULES["ReverseSequence"],
    "Shape": shaping.RULES["Shape"],
    "SpaceToDepth": _space_to_depth,
}

"""Operators that only move elements, by Reshape, Transpose and Gather.

| operator | what TVM 0.27 does with it |
|---|---|
| DepthToSpace, SpaceToDepth | the former in mode CRD and the latter are wrong for several blocks |
| Compress | an extern function; a Gather with constants |
| Split with a part of no element | a kernel of nothing |
| Einsum | one loop over everything; as a MatMul it is tiled |
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import Edit, attribute, dims, dtype_of, static_dims
from infc.targets.mindspore_lite_lowering import indexing, matrix, shaping
from infc.targets.mindspore_lite_lowering.formula import Formula, required, static_shape
from infc.targets.mindspore_lite_lowering.normalization import take_over


def _of_known_images(node: ir.Node) -> tuple[int, int, int] | None:
    """C, H, W of an input of (N, C, H, W), where they are known."""
    shape = dims(node.inputs[0])
    if shape is None or len(shape) != 4:
        return None
    c, h, w = (d if isinstance(d, int) else 0 for d in shape[1:])
    return (c, h, w) if c and h and w else None


def _depth_to_space(node: ir.Node, edit: Edit) -> bool:
    shape = _of_known_images(node)
    if shape is None:
        return False
    c, h, w = shape
    n, b = -1, attribute(node, "blocksize")
    f = Formula(node, edit)
    x = required(node, 0)
    if attribute(node, "mode", "DCR") == "DCR":
        blocks = f.transpose(f.reshape(x, (n, b, b, c // b**2, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        blocks = f.transpose(f.reshape(x, (n, c // b**2, b, b, h, w)), (0, 1, 4, 2, 5, 3))
    return f.finish(f.reshape(blocks, (n, c // b**2, h * b, w * b)))


def _space_to_depth(node: ir.Node, edit: Edit) -> bool:
    shape = _of_known_images(node)
    if shape is None:
        return False
    c, h, w = shape
    n, b = -1, attribute(node, "blocksize")
    f = Formula(node, edit)
    blocks = f.reshape(required(node, 0), (n, c, h // b, b, w // b, b))
    order = (0, 3, 5, 1, 2, 4) if attribute(node, "mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return f.finish(f.reshape(f.transpose(blocks, order), (n, c * b * b, h // b, w // b)))


def _eye_like(node: ir.Node, edit: Edit) -> bool:
    """A constant, which the value of the input has no part in."""
    shape = static_dims(node.inputs[0])
    dtype = ir.DataType(attribute(node, "dtype", int(dtype_of(node.inputs[0]) or 1)))
    if shape is None:
        return False
    f = Formula(node, edit)
    rows, columns = shape
    eye = np.eye(rows, columns, int(attribute(node, "k", 0)), dtype=dtype.numpy())
    return f.finish(f.op("Identity", f.constant(eye)))


def _split(node: ir.Node, edit: Edit) -> bool:
    """With parts of no element: a Slice for each of the others."""
    parts = [static_shape(v) for v in node.outputs]
    known = [p for p in parts if p is not None]
    axis = attribute(node, "axis", 0)
    if len(known) != len(parts) or all(0 not in p for p in known):
        return False
    f = Formula(node, edit)
    start = 0
    for output, part in zip(node.outputs, known, strict=True):
        end = start + part[axis % len(part)]
        if (output.uses() or output.is_graph_output()) and 0 not in part:
            take_over(output, f.slice(required(node, 0), axis, start, end))
        start = end
    return _rest_is_empty(node, f)


def _rest_is_empty(node: ir.Node, f: Formula) -> bool:
    for output in node.outputs:
        if output.uses() or output.is_graph_output():
            shape, dtype = static_shape(output), output.dtype
            assert shape is not None
            assert dtype is not None
            nothing = ir.tensor(np.zeros(shape, dtype.numpy()), dtype=dtype)
            take_over(output, f.op("Identity", f.edit.constant(nothing, "empty", node)))
    f.edit.erase(node)
    return True


RULES = {
    "Compress": indexing.RULES["Compress"],
    "DepthToSpace": _depth_to_space,
    "Einsum": matrix.RULES["Einsum"],
    "EyeLike": _eye_like,
    "Shape": shaping.RULES["Shape"],
    "Split": _split,
    "SpaceToDepth": _space_to_depth,
}

"""Weights that are stored in 16 bits, and widened to float32 where they are multiplied.

    Cast(w: float16)        ->  Widened(w)              while the passes run that would fold it
    Conv(x, Widened(w), b)  ->  ChannelsLastConv(x, w, b)                 (channels_last.py)
    MatMul(x, Widened(w))   ->  StoredMatMul(x, w)
    Gemm(x, Widened(w), b)  ->  StoredMatMul(x, w) * alpha + b * beta
    Widened(w)              ->  Cast(w)                 what is left then, and is folded

A kernel loads a vector of weights once for all rows of a tile, and widens it there in one
instruction: half the memory at nearly no time. `infc.passes.precision.store` has stored them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    Edit,
    attribute,
    const_tensor,
    dims,
    dtype_of,
    elements,
    given,
    is_op,
)
from infc.targets.tvm_lowering.channels_last import DOMAIN, WIDENED, stored_of

FLOAT = ir.DataType.FLOAT
STORED = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
MULTIPLIED = ("Conv", "Gemm", "MatMul")


def hide(model: ir.Model) -> bool:
    """Let no pass fold the widening of weights that are multiplied; whether there are any."""
    found = False
    for node in list(model.graph):
        if not is_op(node, "Cast") or attribute(node, "to") != int(FLOAT):
            continue
        if const_tensor(node.inputs[0]) is None or dtype_of(node.inputs[0]) not in STORED:
            continue
        uses = node.outputs[0].uses()
        if node.outputs[0].is_graph_output() or not uses:
            continue
        if all(use.idx == 1 and _is_multiplied(use.node) for use in uses):
            node.domain, node.op_type = DOMAIN, WIDENED
            found = True
    if found:
        model.opset_imports[DOMAIN] = 1
    return found


def _is_multiplied(node: ir.Node) -> bool:
    """Whether `node` has many products for each weight; those of a depthwise one are few."""
    return is_op(node, *MULTIPLIED) and attribute(node, "group", 1) == 1


def multiply(model: ir.Model) -> bool:
    """Products with widened weights as the private operator; whether there are any."""
    edit, found = Edit(model), False
    for node in list(model.graph):
        if is_op(node, "MatMul", "Gemm") and stored_of(given(node, 1)) is not None:
            found |= _product(node, edit)
    return found


def restore(model: ir.Model) -> None:
    """A Cast for every widening that is left."""
    for node in list(model.graph):
        if node.domain == DOMAIN and node.op_type == WIDENED:
            if node.outputs[0].uses():
                node.domain, node.op_type = "", "Cast"
                node.attributes["to"] = ir.AttrInt64("to", int(FLOAT))
            else:
                model.graph.remove(node, safe=True)


def _product(node: ir.Node, edit: Edit) -> bool:
    x, w = given(node, 0), stored_of(given(node, 1))
    tensor = const_tensor(w)
    if x is None or w is None or tensor is None or len(tensor.shape) != 2:
        return False
    if attribute(node, "transA", 0) or len(dims(x) or ()) < 2:
        return False
    y = node.outputs[0]
    if attribute(node, "transB", 0):
        turned = np.ascontiguousarray(elements(tensor).T)
        w = edit.constant(ir.tensor(turned, dtype=tensor.dtype), f"{w.name}_turned", node)
    value = ir.Value(name=edit.fresh(f"{y.name}_product"), type=ir.TensorType(FLOAT))
    value.shape = y.shape
    title = edit.fresh_node(f"{node.name}/product") if node.name else ""
    made = ir.Node(DOMAIN, "StoredMatMul", [x, w], outputs=[value], name=title)
    assert node.graph is not None
    node.graph.insert_before(node, made)
    value = _times(value, attribute(node, "alpha", 1.0), edit, node)
    bias = given(node, 2)
    if bias is None:
        return edit.forward(y, value)
    edit.replace(y, "Add", [value, _times(bias, attribute(node, "beta", 1.0), edit, node)])
    return True


def _times(value: ir.Value, factor: float, edit: Edit, at: ir.Node) -> ir.Value:
    if factor == 1.0:
        return value
    constant = edit.constant(np.asarray(factor, np.float32), f"{value.name}_factor", at)
    return edit.emit("Mul", [value, constant], at=at, dtype=FLOAT, shape=dims(value))

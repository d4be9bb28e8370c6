"""LSTM with int8 weights becomes ONNX Runtime's DynamicQuantizeLSTM.

    LSTM(x, w, r, ...)    ->    com.microsoft.DynamicQuantizeLSTM(x, wq, rq, ..., scales, zeros)

w (D, 4H, I) and r (D, 4H, H), float32 constants, become (D, I, 4H) and (D, H, 4H), int8, with a
scale for each of the 4H columns. What the gates read is rounded at run time. There is no kernel of
that kind for GRU and RNN.

Source: onnxruntime 1.31 ContribOperators.md, com.microsoft.DynamicQuantizeLSTM-1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from infc.passes.rewriting import Edit, attribute, elements, given, is_op, weights

if TYPE_CHECKING:
    import onnx_ir as ir

DOMAIN = "com.microsoft"
OPTIONAL = 8
"""LSTM has so many inputs; the scales and zero points come after them."""


def quantize_lstm(model: ir.Model, keep_float: frozenset[str]) -> tuple[tuple[str, ...], int, int]:
    """Rewrite the LSTMs of the main graph in place, but for those in `keep_float`.

    Returns the names of the nodes, and the bytes of their weights before and after.
    """
    from infc.passes.remove_unused import RemoveUnused

    edit = Edit(model)
    names, before, after = [], 0, 0
    for node in model.graph:
        if not is_op(node, "LSTM") or {node.name, *(v.name for v in node.outputs)} & keep_float:
            continue
        sizes = _rewrite(node, edit)
        if sizes is not None:
            names.append(node.name or str(node.outputs[0].name))
            before, after = before + sizes[0], after + sizes[1]
    if names:
        RemoveUnused()(model)
        model.opset_imports.setdefault(DOMAIN, 1)
    return tuple(names), before, after


def _rewrite(node: ir.Node, edit: Edit) -> tuple[int, int] | None:
    import numpy as np
    import onnx_ir as ir

    from infc.passes.dynamic_quantization import round_columns

    if attribute(node, "layout", 0):
        return None
    found = [weights(given(node, index)) for index in (1, 2)]
    if any(t is None or t.dtype != ir.DataType.FLOAT for t in found):
        return None
    arrays = [elements(t) for t in found if t is not None]
    if not all(np.isfinite(array).all() for array in arrays):
        return None
    before, after = 0, 0
    made: list[ir.Value] = []
    for index, array in zip((1, 2), arrays, strict=True):
        value = node.inputs[index]
        name = value.name if value is not None else "weights"
        parts = [round_columns(part.T) for part in array]
        integers = np.stack([rows for rows, _ in parts])
        scale = np.stack([steps for _, steps in parts])
        node.replace_input_with(index, edit.constant(integers, f"{name}_quantized", node))
        zero = np.zeros(scale.shape, np.int8)
        made.append(edit.constant(scale, f"{name}_scale", node))
        made.append(edit.constant(zero, f"{name}_zero_point", node))
        before, after = before + array.nbytes, after + integers.nbytes + scale.nbytes
    node.resize_inputs(OPTIONAL + len(made))
    for index, value in enumerate(made, OPTIONAL):
        node.replace_input_with(index, value)
    node.op_type, node.domain = "DynamicQuantizeLSTM", DOMAIN
    return before, after

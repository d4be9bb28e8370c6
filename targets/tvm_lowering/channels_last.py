"""Convolution and pooling in channels-last order, where vectors run over the channels.

    Conv(x, w, b)   ->  Transpose(ChannelsLastConv(Transpose(x), w', b))
    MaxPool(x)      ->  Transpose(ChannelsLastMaxPool(Transpose(x)))

`x`: (N, C, spatial...); inside (N, spatial..., C), and `w'` is (kernel..., C / group, O). The
neutral passes then cancel the transposes between one convolution and the next. The operators in the
private domain have the attributes of ONNX's own, with padding written out. Source: ONNX Conv-11,
MaxPool-12, AveragePool-19.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    Dim,
    Edit,
    attribute,
    const_tensor,
    dims,
    dtype_of,
    given,
    graphs,
    recomputed,
    static_dims,
)

DOMAIN = "infc.channels_last"
WIDENED = "Widened"
POOLS = ("AveragePool", "MaxPool")
BYTES = (ir.DataType.UINT8, ir.DataType.INT8)
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)


def to_channels_last(model: ir.Model) -> bool:
    """Rewrite every convolution and pooling that can be; whether there was any."""
    edit = Edit(model)
    changed = False
    for graph in graphs(model):
        for node in list(graph):
            if node.domain or node.op_type not in ("Conv", *POOLS):
                continue
            changed |= _conv(node, edit) if node.op_type == "Conv" else _pool(node, edit)
    if changed:
        model.opset_imports[DOMAIN] = 1
    return changed


def _conv(node: ir.Node, edit: Edit) -> bool:
    x, w, bias = given(node, 0), given(node, 1), given(node, 2)
    shape, kernel = dims(x), static_dims(w)
    tensor = const_tensor(stored_of(w) or w)
    if x is None or tensor is None or shape is None or kernel is None:
        return False
    if dtype_of(x) not in FLOATS or len(shape) < 3:
        return False
    window = window_of(node, shape[2:], kernel[2:])
    if window is None:
        return False
    rank = len(shape)
    order = [*kernel[2:], kernel[1], kernel[0]]
    moved = recomputed(tensor, order, lambda array: np.moveaxis(array, (0, 1), (-1, -2)))
    if moved is None:
        return False
    weights = edit.constant(moved, f"{w.name if w else 'w'}_channels_last", node)
    inputs = [channels_last(x, edit, node), weights, *([bias] if bias is not None else [])]
    attributes = {**window, "group": attribute(node, "group", 1)}
    return _finish(node, "Conv", inputs, attributes, rank, edit)


def stored_of(w: ir.Value | None) -> ir.Value | None:
    """The 16 bits that float32 weights are widened from (stored_weights.py)."""
    node = w.producer() if w is not None else None
    widened = node is not None and (node.domain, node.op_type) == (DOMAIN, WIDENED)
    return node.inputs[0] if widened and node is not None else None


def _pool(node: ir.Node, edit: Edit) -> bool:
    x = given(node, 0)
    shape = dims(x)
    kernel = attribute(node, "kernel_shape")
    types = (*FLOATS, *BYTES) if node.op_type == "MaxPool" else FLOATS
    if x is None or shape is None or kernel is None or dtype_of(x) not in types:
        return False
    if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return False
    if attribute(node, "ceil_mode", 0):
        return False
    window = window_of(node, shape[2:], tuple(kernel))
    if window is None:
        return False
    attributes = {**window, "kernel_shape": list(kernel)}
    if node.op_type == "AveragePool":
        attributes["count_include_pad"] = attribute(node, "count_include_pad", 0)
    inputs = [channels_last(x, edit, node)]
    return _finish(node, node.op_type, inputs, attributes, len(shape), edit)


def window_of(
    node: ir.Node, sizes: Sequence[Dim], kernel: tuple[int, ...]
) -> dict[str, Any] | None:
    """Strides, dilations and pads in full; None for what cannot be written out.

    Padding that depends on the input's size is not, where that is open.
    """
    rank = len(sizes)
    strides = list(attribute(node, "strides", (1,) * rank))
    dilations = list(attribute(node, "dilations", (1,) * rank))
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        before, after = [], []
        for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
            if not isinstance(size, int):
                return None
            total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
            small, large = total // 2, total - total // 2
            before.append(small if mode == "SAME_UPPER" else large)
            after.append(large if mode == "SAME_UPPER" else small)
        pads = [*before, *after]
    elif mode == "VALID":
        pads = [0] * (2 * rank)
    else:
        pads = list(attribute(node, "pads", (0,) * (2 * rank)))
    if any(p < 0 for p in pads):
        return None
    return {"strides": strides, "dilations": dilations, "pads": pads}


def channels_last(x: ir.Value, edit: Edit, node: ir.Node) -> ir.Value:
    """`x` with its channels last."""
    shape = dims(x)
    assert shape is not None
    perm = [0, *range(2, len(shape)), 1]
    return edit.emit(
        "Transpose",
        [x],
        {"perm": perm},
        at=node,
        dtype=dtype_of(x),
        shape=[shape[i] for i in perm],
    )


def _finish(
    node: ir.Node,
    op_type: str,
    inputs: list[ir.Value],
    attributes: dict[str, Any],
    rank: int,
    edit: Edit,
) -> bool:
    """Replace `node` by its twin and the transpose back."""
    y = node.outputs[0]
    shape = dims(y)
    if shape is None or y.dtype is None:
        return False
    value = ir.Value(name=edit.fresh(f"{y.name}_channels_last"), type=ir.TensorType(y.dtype))
    value.shape = ir.Shape([shape[0], *shape[2:], shape[1]])
    attrs = [
        ir.AttrInt64s(k, v) if isinstance(v, list) else ir.AttrInt64(k, v)
        for k, v in attributes.items()
    ]
    title = edit.fresh_node(f"{node.name}/channels_last") if node.name else ""
    twin = ir.Node(DOMAIN, f"ChannelsLast{op_type}", inputs, attrs, outputs=[value], name=title)
    assert node.graph is not None
    node.graph.insert_before(node, twin)
    edit.replace(y, "Transpose", [value], {"perm": [0, rank - 1, *range(1, rank - 1)]})
    return True

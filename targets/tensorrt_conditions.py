"""What TensorRT's parser asks of a node beyond its operator and type.

Source: the restrictions in onnx-tensorrt's docs/operators.md (`tensorrt_operators`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import attribute, const_array, const_tensor, given, rank, static_dims

Condition = Callable[[ir.Node], str]

MAX_TOP_K = 3840
COORDINATES = (
    "half_pixel",
    "pytorch_half_pixel",
    "tf_half_pixel_for_nn",
    "asymmetric",
    "align_corners",
)


def constant(index: int, what: str) -> Condition:
    """Input `index`, called `what`, has to be known when the engine is built."""

    def condition(node: ir.Node) -> str:
        value = given(node, index)
        return "" if value is None or const_tensor(value) is not None else f"{what} must be known"

    return condition


def rank_of_first(wanted: int) -> Condition:
    """The first input has to have this rank."""

    def condition(node: ir.Node) -> str:
        found = rank(given(node, 0))
        return "" if found in (None, wanted) else f"of rank {found}; {wanted} is taken"

    return condition


def static_first(node: ir.Node) -> str:
    """The shape of the first input has to be known."""
    return "" if static_dims(given(node, 0)) is not None else "the shape of its input must be known"


def attention(node: ir.Node) -> str:
    """No cache, no soft cap, one output."""
    if sum(bool(v.name) and bool(v.uses()) for v in node.outputs) > 1:
        return "with one output only"
    if attribute(node, "softcap", 0.0):
        return "without a soft cap only"
    past = any(given(node, i) is not None for i in range(4, len(node.inputs)))
    return "without past keys and values only" if past else ""


def pool(node: ir.Node) -> str:
    """In 2 or 3 dimensions, without dilations and indices."""
    if any(d != 1 for d in attribute(node, "dilations", ())):
        return "without dilations only"
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return "its second output, indices, is not computed"
    found = rank(given(node, 0))
    return "" if found in (None, 4, 5) else "over 2 or 3 spatial dimensions only"


def quantization(node: ir.Node) -> str:
    """Symmetric int8."""
    point = given(node, 2)
    if point is None:
        return "" if node.op_type == "DequantizeLinear" else "to int8 only: it has no zero point"
    if point.dtype not in (None, ir.DataType.INT8):
        return f"int8 only, not {str(point.dtype).lower()}"
    array = const_array(point)
    return "" if array is not None and not np.any(array) else "a zero point of 0 only"


def same_pads(node: ir.Node) -> str:
    """The same padding at both ends."""
    pads = list(attribute(node, "pads", ()))
    half = len(pads) // 2
    return "" if pads[:half] == pads[half:] else "with the same padding at both ends only"


def training(node: ir.Node) -> str:
    """Not in training."""
    mode = const_array(given(node, 2))
    trains = given(node, 2) is not None and (mode is None or bool(np.any(mode)))
    return "not in training" if trains else ""


def lstm(node: ir.Node) -> str:
    """Time first, independent gates."""
    if attribute(node, "layout", 0):
        return "`layout` 0 only"
    return "`input_forget` 0 only" if attribute(node, "input_forget", 0) else ""


def first_output_only(node: ir.Node) -> str:
    """Nobody reads the others."""
    others = (v for v in node.outputs[1:] if v.uses() or v.is_graph_output())
    return "its first output only" if any(others) else ""


def reduced_axes(node: ir.Node) -> str:
    """Axes that are known."""
    return constant(1, "its axes")(node)


def resize(node: ir.Node) -> str:
    """Nearest or linear, stretched."""
    if attribute(node, "mode", "nearest") not in ("nearest", "linear"):
        return "`nearest` and `linear` only"
    if attribute(node, "coordinate_transformation_mode", "half_pixel") not in COORDINATES:
        return "not in this coordinate transformation mode"
    if attribute(node, "antialias", 0):
        return "without antialiasing only"
    policy = attribute(node, "keep_aspect_ratio_policy", "stretch")
    return "" if policy == "stretch" else "the aspect ratio policy `stretch` only"


def scatter(node: ir.Node) -> str:
    """Without a reduction."""
    return "" if attribute(node, "reduction", "none") == "none" else "without a reduction only"


def stft(node: ir.Node) -> str:
    """Of a real signal, with a known step and window."""
    for index, what in ((1, "its frame step"), (2, "its window")):
        reason = constant(index, what)(node)
        if reason:
            return reason
    shape = static_dims(given(node, 0))
    return "a real signal only" if shape is not None and shape[-1] != 1 else ""


def top_k(node: ir.Node) -> str:
    """Sorted, and not too many."""
    if not attribute(node, "sorted", 1):
        return "sorted only"
    k = const_array(given(node, 1))
    return f"fewer than {MAX_TOP_K} only" if k is not None and k.max() >= MAX_TOP_K else ""

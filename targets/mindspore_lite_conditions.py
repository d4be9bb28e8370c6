"""Conditions on single nodes: functions that return a reason against one, or "".

What they let pass is what was measured to be right; see `mindspore_lite_operators`.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from infc.passes.rewriting import (
    const_tensor,
    dtype_of,
    given,
    rank,
    same_dims,
    scalar_of,
    static_dims,
)
from infc.targets.mindspore_lite_lowering.formula import shape_of

Condition = Callable[[ir.Node], str]

FLOAT = ("FLOAT",)
INTEGERS = ("INT32", "INT64")
SPELLED = "this form of it is not among those that MindSpore Lite computes rightly"


def _attribute(node: ir.Node, name: str, default: object) -> object:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.value


def _listed(node: ir.Node, name: str) -> list[int]:
    value = _attribute(node, name, [])
    return list(value) if isinstance(value, list | tuple) else []


def two_operands(node: ir.Node) -> str:
    """Chains of operands are written out before."""
    return "" if len(node.inputs) == 2 else SPELLED


def power(node: ir.Node) -> str:
    """A float exponent: one number, or of the shape of the base."""
    x, y = node.inputs[:2]
    same = static_dims(x) is not None and static_dims(x) == static_dims(y)
    floats = y is not None and y.dtype is not None and y.dtype.name == "FLOAT"
    return "" if floats and (same or scalar_of(y) is not None) else SPELLED


def equal_shapes(node: ir.Node) -> str:
    """Where takes three operands of one shape, and chooses among these types."""
    shapes = [shape_of(v) for v in node.inputs]
    if not all(same_dims(s, shapes[0]) for s in shapes):
        return "its operands are not known to be of one shape"
    dtype = dtype_of(node.inputs[1])
    names = (*FLOAT, *INTEGERS)
    return "" if dtype is not None and dtype.name in names else "it does not choose among these"


_CASTS = {
    "FLOAT": ("INT32", "INT64", "BOOL", "UINT8"),
    "INT32": ("FLOAT", "INT64"),
    "INT64": ("FLOAT", "INT32"),
    "BOOL": ("FLOAT", "INT32", "INT64"),
    "UINT8": ("FLOAT",),
}


def conversion(node: ir.Node) -> str:
    """The pairs of types that Cast has a kernel for."""
    source, to = dtype_of(node.inputs[0]), ir.DataType(int(str(_attribute(node, "to", 1))))
    if source is not None and to.name in _CASTS.get(source.name, ()):
        return ""
    return f"there is no conversion to {to.name.lower()}"


def bounded_below(node: ir.Node) -> str:
    """A Clip without a lower bound takes its upper one for that."""
    return "" if len(node.inputs) > 1 and node.inputs[1] is not None else SPELLED


def slope(node: ir.Node) -> str:
    """One constant slope for each channel."""
    tensor = const_tensor(node.inputs[1])
    return "" if tensor is not None and len(tensor.shape) >= 3 else SPELLED


def none_left(*names: str) -> Condition:
    """None of these attributes, which a rule would have taken away."""

    def condition(node: ir.Node) -> str:
        left = [n for n in names if _attribute(node, n, None) not in (None, 0, "NOTSET")]
        return f"`{left[0]}` is not taken" if left else ""

    return condition


def convolution(node: ir.Node) -> str:
    """One or two dimensions, attributes and groups that there are kernels for."""
    kernel = static_dims(node.inputs[1])
    if kernel is None:
        return "the shape of its weights is not known"
    if len(kernel) != 4:
        return f"it is taken over two dimensions, not over {len(kernel) - 2}"
    if rank(node.inputs[0]) != len(kernel):
        return "the rank of its input is not that of its weights"
    group = int(str(_attribute(node, "group", 1)))
    constant = const_tensor(node.inputs[1]) is not None
    if group > 1 and not constant and (kernel[0] != group or kernel[1] != 1):
        return "its weights are computed and in groups"
    if node.op_type == "ConvTranspose" and group > 1 and kernel[1] != 1:
        return "its groups are not single channels"
    dilated = any(d != 1 for d in _listed(node, "dilations"))
    if node.op_type == "ConvTranspose" and dilated and kernel[0] == group:
        return "it is not dilated over single channels"
    return none_left("auto_pad", "output_shape")(node)


def pool(node: ir.Node) -> str:
    """Two dimensions, pads in numbers, no indices."""
    kernel = _attribute(node, "kernel_shape", ())
    if not isinstance(kernel, list | tuple) or len(kernel) != 2:
        return "it is taken over two dimensions, of static shape otherwise"
    if len([v for v in node.outputs if v.name]) > 1:
        return "its indices are not computed"
    return none_left("auto_pad", "ceil_mode", "dilations", "count_include_pad")(node)


def inference(node: ir.Node) -> str:
    """Not in training mode."""
    return "it is not computed in training mode" if _attribute(node, "training_mode", 0) else ""


def unscaled(node: ir.Node) -> str:
    """A Gemm whose factors are one."""
    plain = all(_attribute(node, n, 1.0) == 1.0 for n in ("alpha", "beta"))
    return "" if plain else SPELLED


def matrices(node: ir.Node) -> str:
    """No operand of less than two dimensions."""
    return SPELLED if any(rank(v) in (None, 0, 1) for v in node.inputs) else ""


def argmax(node: ir.Node) -> str:
    """The ranks at which the result has its shape."""
    depth, keep = rank(node.inputs[0]) or 0, _attribute(node, "keepdims", 1)
    wide = (depth > 4 and keep) or (depth == 1 and not keep)
    return SPELLED if wide else none_left("select_last_index")(node)


def resize(node: ir.Node) -> str:
    """Of known sizes, without filters."""
    known = static_dims(node.inputs[0]) is not None
    return none_left("antialias", "exclude_outside")(node) if known else "its sizes are not known"


def recurrent(node: ir.Node) -> str:
    """The LSTM with everything given and named, forward or both ways, of several steps."""
    steps = static_dims(node.inputs[0])
    whole = all(given(node, i) is not None for i in (3, 5, 6)) and given(node, 4) is None
    named = len(node.outputs) == 3 and all(v.name for v in node.outputs)
    forward = _attribute(node, "direction", "forward") != "reverse"
    if steps is None or steps[0] == 1 or not (whole and named and forward):
        return SPELLED
    return none_left("layout", "clip", "input_forget", "activations")(node)


def space_to_depth(node: ir.Node) -> str:
    """The only mode there is a kernel for."""
    return SPELLED if _attribute(node, "mode", "DCR") == "CRD" else ""


def remainder(node: ir.Node) -> str:
    """With the sign of the dividend."""
    return "" if _attribute(node, "fmod", 0) else "only `fmod` 1 is taken, of floats"

"""Channels through what is computed element by element, with ONNX's broadcasting."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from infc.passes.pruning.channels import Axis
from infc.passes.pruning.tracking import Rule, Tracked, Tracker
from infc.passes.rewriting import Dim, const_array, dims, rank

KEEP_ZERO = (
    frozenset(("Abs", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu", "Dropout", "Elu"))
    | frozenset(("Erf", "Floor", "Gelu", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg"))
    | frozenset(("Relu", "Round", "Selu", "Shrink", "Sign", "Sin", "Sinh", "Softsign", "Sqrt"))
    | frozenset(("Swish", "Tan", "Tanh", "ThresholdedRelu"))
)
"""f(0) = 0."""
OTHER_UNARY = frozenset(
    ("Acos", "Acosh", "Clip", "Cos", "Cosh", "Exp", "HardSigmoid", "IsInf", "IsNaN", "Log", "Not")
) | frozenset(("Reciprocal", "Sigmoid", "Softplus"))
SUMS = frozenset(("Add", "Sub", "Sum"))
"""Zero where all operands are; a constant operand is set to zero with its channel."""
PRODUCTS = frozenset(("Mul", "And", "BitwiseAnd"))
"""Zero where one operand is."""
QUOTIENTS = frozenset(("Div", "Pow", "PRelu", "Mod"))
"""Zero where the first operand is."""
OTHERS = frozenset(
    ("Max", "Mean", "Min", "Where", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
) | frozenset(("Or", "Xor", "BitwiseOr", "BitwiseXor"))


def broadcast(
    tracker: Tracker, operands: Iterable[tuple[list[Axis], tuple[Dim, ...]]], size: int
) -> list[Axis]:
    """The last `size` axes of what several operands broadcast to; each is (axes, shape)."""
    found: list[Axis] = []
    rows = list(operands)
    for back in range(size, 0, -1):
        there = [(a[-back], d[-back]) for a, d in rows if len(d) >= back and d[-back] != 1]
        axes = [axis for axis, _ in there]
        found.append(tracker.channels.tie(*axes) if axes else None)
    return found


def _unary(node: ir.Node, tracker: Tracker) -> bool:
    x = tracker.of(node, 0)
    zero = x.zero and (node.op_type in KEEP_ZERO or _clips_around_zero(node))
    for output in range(len(node.outputs)):
        tracker.give(node, x.axes, zero=zero, output=output)
    return True


def _clips_around_zero(node: ir.Node) -> bool:
    if node.op_type != "Clip":
        return False
    for index, name, below in ((1, "min", True), (2, "max", False)):
        attr = node.attributes.get(name)
        value = node.inputs[index] if index < len(node.inputs) else None
        bound = attr.as_float() if attr is not None else None
        if value is not None:
            array = const_array(value)
            if array is None or array.size != 1:
                return False
            bound = float(array.reshape(()))
        if bound is not None and (bound > 0 if below else bound < 0):
            return False
    return True


def _nary(node: ir.Node, tracker: Tracker) -> bool:
    shapes = [dims(value) for value in node.inputs]
    size = rank(node.outputs[0])
    if size is None or any(shape is None for shape in shapes):
        return False
    if "axis" in node.attributes or "broadcast" in node.attributes:  # before opset 7
        return False
    operands = [tracker.of(node, index) for index in range(len(node.inputs))]
    axes = broadcast(
        tracker,
        [(o.axes, shape) for o, shape in zip(operands, shapes, strict=True) if shape is not None],
        size,
    )
    tracker.give(node, axes, zero=_zero(node, tracker, operands))
    return True


def _zero(node: ir.Node, tracker: Tracker, operands: list[Tracked]) -> bool:
    if node.op_type in PRODUCTS:
        return any(operand.zero for operand in operands)
    if node.op_type in QUOTIENTS:
        return operands[0].zero
    if node.op_type not in SUMS:
        return False
    computed = [i for i in range(len(operands)) if tracker.use(node, i) is None]
    constant = [i for i in range(len(operands)) if i not in computed]
    spread = all(any(axis is not None for axis in operands[i].axes) for i in constant)
    if spread and all(operands[i].zero for i in computed):
        tracker.mask(node, *constant)
        return True
    return False


RULES: dict[str, Rule] = {
    **dict.fromkeys(KEEP_ZERO | OTHER_UNARY, _unary),
    **dict.fromkeys(SUMS | PRODUCTS | QUOTIENTS | OTHERS, _nary),
}

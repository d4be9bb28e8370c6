"""How an operator that reads a transposed tensor would read the tensor itself.

    g(Transpose(x, p), ...)  =  Transpose(g'(x, ...), q)

`plan` gives g' and q, where both are provable: axes are remapped through p, constants are
transposed back, other operands must be transposed by the same p. Nothing is changed yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    Edit,
    attribute,
    const_array,
    const_tensor,
    given,
    int_list,
    is_given,
    kept,
    normal_axes,
    producer,
    rank,
)

Perm = tuple[int, ...]

ELEMENTWISE = frozenset(
    [
        "Abs",
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "BitwiseNot",
        "Cast",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
        "Cosh",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "IsInf",
        "IsNaN",
        "LeakyRelu",
        "Log",
        "Mish",
        "Neg",
        "Not",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Shrink",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sinh",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Swish",
        "Tan",
        "Tanh",
        "ThresholdedRelu",
    ]
)
BROADCASTING = frozenset(
    [
        "Add",
        "And",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Max",
        "Mean",
        "Min",
        "Mod",
        "Mul",
        "Or",
        "Pow",
        "Sub",
        "Sum",
        "Where",
        "Xor",
    ]
)
REDUCTIONS = frozenset(
    [
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
    ]
)

REMAPPED = ELEMENTWISE | BROADCASTING | REDUCTIONS
REMAPPED |= {"Concat", "Softmax", "LogSoftmax", "Hardmax", "Squeeze", "Pad", "Gather"}
REMAPPED |= {"QuantizeLinear", "DequantizeLinear"}

Input = ir.Value | Callable[[Edit], ir.Value] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """g' has these inputs (some of them made when the plan is carried out) and attributes.

    `perm` restores the order afterwards; `transposes` counts the operands that were transposed.
    """

    inputs: Sequence[Input]
    perm: Perm
    attributes: dict[str, Any] = field(default_factory=dict)
    transposes: int = 1


def perm_of(node: ir.Node) -> Perm | None:
    """The permutation of a Transpose; reversed order is the default, for a known rank."""
    perm = attribute(node, "perm")
    if perm is not None:
        return normal_axes(perm, len(perm))
    into = rank(node.inputs[0])
    return None if into is None else tuple(reversed(range(into)))


def inverse(perm: Perm) -> Perm:
    """The permutation that undoes `perm`."""
    return tuple(sorted(range(len(perm)), key=perm.__getitem__))


def plan(node: ir.Node, y: ir.Value, perm: Perm, edit: Edit) -> Plan | None:
    """How `node`, which reads y = Transpose(x, perm), reads x."""
    transpose = y.producer()
    if node.domain or len(node.outputs) != 1 or transpose is None:
        return None
    x = transpose.inputs[0]
    kind = node.op_type
    if kind in ELEMENTWISE:
        return Plan([x, *node.inputs[1:]], perm, kept(node)) if node.inputs[0] is y else None
    if kind in BROADCASTING:
        return _broadcasting(node, perm)
    if kind == "Concat":
        return _concat(node, perm)
    if node.inputs[0] is not y or x is None:
        return None
    if kind in ("Softmax", "LogSoftmax", "Hardmax") and edit.opset >= 13:
        return _one_axis(node, x, perm, -1)
    if kind in REDUCTIONS:
        return _reduction(node, x, perm)
    if kind == "Squeeze":
        return _squeeze(node, x, perm)
    if kind == "Pad":
        return _pad(node, x, perm)
    if kind == "Gather":
        return _gather(node, x, perm)
    if kind in ("QuantizeLinear", "DequantizeLinear"):
        scale = const_tensor(given(node, 1))
        if scale is not None and scale.size == 1:
            return Plan([x, *node.inputs[1:]], perm, kept(node))
    return None


def _broadcasting(node: ir.Node, perm: Perm) -> Plan | None:
    inputs: list[Input] = []
    count = 0
    for value in node.inputs:
        source = producer(value, "Transpose")
        if source is not None and perm_of(source) == perm:
            inputs.append(source.inputs[0])
            count += 1
            continue
        constant = _transposed_constant(value, perm)
        if constant is None:
            return None
        inputs.append(constant)
    return Plan(inputs, perm, kept(node), count)


def _transposed_constant(value: ir.Value | None, perm: Perm) -> Input:
    """A constant as it must be before the transpose; None where it is none, or is too big."""
    array = const_array(value)
    if value is None or array is None or array.ndim > len(perm):
        return None
    if array.size == 1:
        return value
    full = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
    turned = np.ascontiguousarray(full.transpose(inverse(perm)))

    def make(edit: Edit) -> ir.Value:
        node = next(iter(value.uses())).node
        return edit.constant(turned, f"{value.name}_transposed", node)

    return make


def _concat(node: ir.Node, perm: Perm) -> Plan | None:
    axes = normal_axes([attribute(node, "axis")], len(perm))
    sources = [producer(value, "Transpose") for value in node.inputs]
    if axes is None or any(s is None or perm_of(s) != perm for s in sources):
        return None
    inputs = [source.inputs[0] for source in sources if source is not None]
    return Plan(inputs, perm, {"axis": perm[axes[0]]}, len(inputs))


def _one_axis(node: ir.Node, x: ir.Value, perm: Perm, default: int) -> Plan | None:
    axes = normal_axes([attribute(node, "axis", default)], len(perm))
    return None if axes is None else Plan([x], perm, {**kept(node), "axis": perm[axes[0]]})


def _without(perm: Perm, gone: Sequence[int]) -> Perm:
    """`perm` after the dimensions `gone` (of the transposed tensor) were dropped."""
    left = [axis for i, axis in enumerate(perm) if i not in gone]
    return tuple(sorted(left).index(axis) for axis in left)


def _axes_form(
    node: ir.Node, x: ir.Value, axes: Sequence[int]
) -> tuple[list[Input], dict[str, Any]]:
    """Inputs and attributes with new axes, in the form that the node has them in."""
    if "axes" in node.attributes:
        return [x], {**kept(node), "axes": list(axes)}
    hint = f"{node.outputs[0].name}_axes"
    return [x, lambda edit: edit.ints(axes, hint, node)], kept(node)


def _reduction(node: ir.Node, x: ir.Value, perm: Perm) -> Plan | None:
    listed = int_list(node, "axes", 1)
    if not listed:
        return None
    axes = normal_axes(listed, len(perm))
    if axes is None:
        return None
    inputs, attributes = _axes_form(node, x, sorted(perm[axis] for axis in axes))
    after = perm if attribute(node, "keepdims", 1) else _without(perm, axes)
    return Plan(inputs, after, attributes)


def _squeeze(node: ir.Node, x: ir.Value, perm: Perm) -> Plan | None:
    listed = int_list(node, "axes", 1)
    axes = None if listed is None else normal_axes(listed, len(perm))
    if axes is None:
        return None
    inputs, attributes = _axes_form(node, x, sorted(perm[axis] for axis in axes))
    return Plan(inputs, _without(perm, axes), attributes)


def _pad(node: ir.Node, x: ir.Value, perm: Perm) -> Plan | None:
    pads = int_list(node, "pads", 1)
    n = len(perm)
    if pads is None or len(pads) != 2 * n or is_given(node, "axes", 3):
        return None
    back = inverse(perm)
    turned = [pads[back[i]] for i in range(n)] + [pads[n + back[i]] for i in range(n)]
    if "pads" in node.attributes:
        return Plan([x], perm, {**kept(node), "pads": turned})
    hint = f"{node.outputs[0].name}_pads"
    inputs: list[Input] = [x, lambda edit: edit.ints(turned, hint, node), *node.inputs[2:]]
    return Plan(inputs, perm, kept(node))


def _gather(node: ir.Node, x: ir.Value, perm: Perm) -> Plan | None:
    """One index drops the dimension, a list of them keeps it; more would add dimensions."""
    indices = rank(given(node, 1))
    axes = normal_axes([attribute(node, "axis", 0)], len(perm))
    if axes is None or indices not in (0, 1):
        return None
    after = perm if indices == 1 else _without(perm, axes)
    return Plan([x, node.inputs[1]], after, {"axis": perm[axes[0]]})

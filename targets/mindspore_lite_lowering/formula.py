"""Formulas in standard operators: what a rule replaces its node by.

    f = Formula(node, edit);  f.finish(f.div(x, f.add(f.abs(x), 1.0)))   # Softsign

A Python number becomes a constant of rank 0 of the type of the node's first input. Axes are
written as the model's opset wants them, as an attribute or as an input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import Dim, Edit, const_tensor, dims, dtype_of, given

Operand = ir.Value | float | int | None

AXES_INPUT = {"ReduceSum": 13, "Squeeze": 13, "Unsqueeze": 13}
"""The opset from which the axes are an input; of the other reductions it is 18."""

_NAMES = {
    "abs": "Abs",
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "neg": "Neg",
    "floor": "Floor",
    "sin": "Sin",
    "tanh": "Tanh",
    "min": "Min",
    "max": "Max",
    "relu": "Relu",
    "less": "Less",
    "greater": "Greater",
    "equal": "Equal",
    "logical_not": "Not",
    "logical_and": "And",
    "logical_or": "Or",
    "matmul": "MatMul",
    "sigmoid": "Sigmoid",
}


class Formula:
    """The nodes that replace `node`, written before it."""

    def __init__(self, node: ir.Node, edit: Edit) -> None:
        self.node = node
        self.edit = edit
        self.dtype = dtype_of(given(node, 0)) or ir.DataType.FLOAT

    def __getattr__(self, name: str) -> Callable[..., ir.Value]:
        """A method for each of the operators that need no attribute: `f.add(a, b)`."""
        if name not in _NAMES:
            raise AttributeError(name)
        return lambda *operands: self.op(_NAMES[name], *operands)

    def op(self, op_type: str, *operands: Operand, **attributes: Any) -> ir.Value:
        """A node with one output."""
        inputs = [self.value(o) for o in operands]
        return self.edit.emit(op_type, inputs, attributes or None, at=self.node)

    def value(self, operand: Operand) -> ir.Value | None:
        """The operand itself, or the constant that a number stands for."""
        if operand is None or isinstance(operand, ir.Value):
            return operand
        return self.constant(np.array(operand, self.dtype.numpy()))

    def constant(self, array: Any) -> ir.Value:
        """A constant tensor."""
        laid_out = np.asarray(array, order="C")  # ascontiguousarray makes a scalar a list
        return self.edit.constant(laid_out, f"{self._stem}_const", self.node)

    def ints(self, numbers: Sequence[int]) -> ir.Value:
        """A constant list of int64."""
        return self.edit.ints(numbers, f"{self._stem}_ints", self.node)

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """`value` in another type."""
        return self.op("Cast", value, to=int(dtype))

    def reshape(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """`value` in another shape; 0 copies a dimension and -1 is what is left.

        To rank 0 by a sum over its one element: the empty list of dimensions is not taken.
        """
        if not shape:
            return self.reduce("ReduceSum", value, None, keepdims=0)
        return self.op("Reshape", value, self.ints(shape))

    def transpose(self, value: ir.Value, perm: Sequence[int]) -> ir.Value:
        """`value` with its axes in the order `perm`."""
        if tuple(perm) == tuple(range(len(perm))):
            return value
        return self.op("Transpose", value, perm=list(perm))

    def unsqueeze(self, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """`value` with dimensions of one at `axes`."""
        return self._with_axes("Unsqueeze", value, axes)

    def squeeze(self, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """`value` without the dimensions of one at `axes`."""
        return self._with_axes("Squeeze", value, axes)

    def reduce(
        self, op_type: str, value: ir.Value, axes: Sequence[int] | None, keepdims: int = 1
    ) -> ir.Value:
        """A reduction over `axes`, all where it is None."""
        return self._with_axes(op_type, value, axes, keepdims=keepdims)

    def slice(self, value: ir.Value, axis: int, start: int, end: int, step: int = 1) -> ir.Value:
        """`value[start:end:step]` along `axis`."""
        return self.op("Slice", value, *(self.ints([i]) for i in (start, end, axis, step)))

    def reverse(self, value: ir.Value, axis: int) -> ir.Value:
        """`value` back to front along `axis`."""
        return self.slice(value, axis, -1, -(2**31), -1)

    def concat(self, values: Sequence[ir.Value], axis: int) -> ir.Value:
        """`values` joined along `axis`."""
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def gather(self, value: ir.Value, indices: Any, axis: int) -> ir.Value:
        """`value` at constant `indices` along `axis`."""
        return self.op("Gather", value, self.constant(np.asarray(indices, np.int64)), axis=axis)

    def finish(self, value: ir.Value) -> bool:
        """Let `value` be what the node gave."""
        old = self.node.outputs[0]
        if value.type is None:
            value.type = old.type
        if value.shape is None:
            value.shape = old.shape
        return self.edit.forward(old, value)

    @property
    def _stem(self) -> str:
        return self.node.outputs[0].name or self.node.op_type

    def _with_axes(
        self, op_type: str, value: ir.Value, axes: Sequence[int] | None, **attributes: Any
    ) -> ir.Value:
        if axes is None:
            return self.op(op_type, value, **attributes)
        if self.edit.opset >= AXES_INPUT.get(op_type, 18):
            return self.op(op_type, value, self.ints(axes), **attributes)
        return self.op(op_type, value, axes=list(axes), **attributes)


def shape_of(value: ir.Value | None) -> tuple[Dim, ...] | None:
    """The shape, with dimensions of zero, which `rewriting.dims` takes for unknown."""
    if value is None or value.shape is None:
        return dims(value)
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape where every dimension is a known number, zero included."""
    shape = shape_of(value)
    if shape is None:
        return None
    numbers = tuple(d for d in shape if isinstance(d, int))
    return numbers if len(numbers) == len(shape) else None


def broadcast(*values: ir.Value | None) -> tuple[int, ...] | None:
    """The static shape that `values` broadcast to."""
    shapes = [static_shape(v) for v in values]
    known = [s for s in shapes if s is not None]
    if len(known) != len(shapes):
        return None
    try:
        return tuple(int(d) for d in np.broadcast_shapes(*known))
    except ValueError:
        return None


def required(node: ir.Node, index: int) -> ir.Value:
    """The input at `index`, which the operator's schema requires."""
    value = given(node, index)
    if value is None:
        raise ValueError(f"`{node.op_type}` has no input {index}")
    return value


_SETTLED = "infc.mindspore_lite.settled"


def settled(node: ir.Node) -> bool:
    """Whether `settle` has been called: what a rule made is not to be made again by it."""
    return bool(node.meta.get(_SETTLED))


def settle(value: ir.Value) -> ir.Value:
    """Mark the node that gives `value` as one that a rule has had its way with."""
    node = value.producer()
    if node is not None:
        node.meta[_SETTLED] = True
    return value


def own_constants(node: ir.Node, edit: Edit, *indices: int) -> bool:
    """Give `node` constants of its own in the place of those that other nodes read as well.

    The runtime packs a weight once for all kernels that read it, in the layout of one of them:
    convolutions of several sizes that share a weight are wrong at more than one thread.
    """
    changed = False
    for index in indices:
        value = given(node, index)
        tensor = const_tensor(value)
        if value is None or tensor is None or len(value.uses()) < 2:
            continue
        copy = edit.constant(
            ir.tensor(tensor.numpy(), dtype=tensor.dtype), f"{value.name}_own", node
        )
        node.replace_input_with(index, copy)
        changed = True
    return changed


def set_attributes(node: ir.Node, **attributes: Any) -> bool:
    """Write what is not there as given; an attribute of None is removed. Whether any changed."""
    changed = False
    for name, wanted in attributes.items():
        present = node.attributes.get(name)
        if wanted is None:
            changed |= node.attributes.pop(name, None) is not None
        elif present is None or _plain(present.value) != _plain(wanted):
            node.attributes.add(_attribute(name, wanted))
            changed = True
    return changed


def set_default(node: ir.Node, **attributes: Any) -> bool:
    """Write the defaults of attributes that are absent. Whether any was."""
    absent = {k: v for k, v in attributes.items() if k not in node.attributes}
    return set_attributes(node, **absent)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _attribute(name: str, value: Any) -> ir.Attr:
    if isinstance(value, float):
        return ir.AttrFloat32(name, value)
    if isinstance(value, int):
        return ir.AttrInt64(name, value)
    if isinstance(value, str):
        return ir.AttrString(name, value)
    return ir.AttrInt64s(name, [int(v) for v in value])

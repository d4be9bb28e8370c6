"""Shape arithmetic on partly known shapes becomes constant.

    Reshape(x, Concat(Gather(Shape(x), 0), c))  ->  Reshape(x, [0, c])

Small integer tensors are followed element by element from `Shape` through the operators that
exporters build target shapes with. An element is a number, or a *dimension*: the symbol or the
unnamed axis it was read from. A tensor of numbers only becomes an initializer. A Reshape whose
target has dimensions left gets a constant target where each of them is the dimension that `x` has
at the same place (0 copies it), save for one (-1 computes it), so dynamic shapes stay dynamic
while the arithmetic goes. Source: ONNX Reshape-5 to -25; Shape-15 `start` and `end`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from infc.passes.infer_shapes import InferShapes, input_symbols
from infc.passes.rewriting import (
    Edit,
    attribute,
    const_array,
    dims,
    given,
    graphs,
    int_list,
    is_given,
    rank,
)

MAX_ELEMENTS = 64

Element = int | str | tuple[ir.Value, int]
"""A number, a symbol, or (value, axis) for a dimension without a name."""


class Elements:
    """The elements of a small integer tensor of rank 0 or 1."""

    __slots__ = ("is_scalar", "items")

    def __init__(self, items: Sequence[Element], *, is_scalar: bool = False) -> None:
        self.items = tuple(items)
        self.is_scalar = is_scalar

    def numbers(self) -> tuple[int, ...] | None:
        """The elements where all are numbers."""
        found = tuple(i for i in self.items if isinstance(i, int))
        return found if len(found) == len(self.items) else None


Known = dict[ir.Value, Elements]


class FoldShapes(ir.passes.InPlacePass):
    """Fold what is known of shapes into constants."""

    def __init__(self) -> None:
        super().__init__()
        self._inference = InferShapes()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit nodes in order; what outer graphs know holds in their bodies.

        What a settled Reshape gives is inferred at once, and so are the nodes after it: a layer's
        target shape is computed from the one before, and would need a round of its own.
        """
        edit = Edit(model)
        symbols = input_symbols(model)
        known: Known = {}
        modified = False
        for graph in graphs(model):
            for node in graph:
                if node.domain:
                    continue
                if node.op_type == "Reshape":
                    modified |= _fix_reshape(node, known, edit)
                elif node.op_type in _FOLLOWED and len(node.outputs) == 1:
                    modified |= _follow(node, known, edit)
                if modified and node.graph is not None:
                    self._inference.infer(node, symbols, model)
        return ir.passes.PassResult(model, modified=modified)


def _follow(node: ir.Node, known: Known, edit: Edit) -> bool:
    found = _FOLLOWED[node.op_type](node, known)
    output = node.outputs[0]
    if found is None or len(found.items) > MAX_ELEMENTS:
        return False
    numbers = found.numbers()
    if numbers is None or output.is_graph_output():
        known[output] = found
        return False
    dtype = np.int64 if node.op_type in ("Shape", "Size") else _numpy_dtype(node)
    if dtype is None:
        return False
    array = np.array(numbers, dtype)
    constant = edit.constant(array.reshape(()) if found.is_scalar else array, _name(output), node)
    output.replace_all_uses_with(constant)
    edit.erase(node)
    return True


def _name(value: ir.Value) -> str:
    """The name of a value that is about to go."""
    name, value.name = str(value.name), None
    return name


def _numpy_dtype(node: ir.Node) -> type[np.integer] | None:
    declared = node.outputs[0].dtype
    if declared is None and node.op_type != "Cast" and node.inputs[0] is not None:
        declared = node.inputs[0].dtype
    if declared is None and node.op_type == "Cast":
        declared = ir.DataType(attribute(node, "to"))
    if declared == ir.DataType.INT64:
        return np.int64
    return np.int32 if declared == ir.DataType.INT32 else None


def _elements(value: ir.Value | None, known: Known) -> Elements | None:
    """What is known of `value`, a constant or the result of followed operators."""
    if value is None:
        return None
    if value in known:
        return known[value]
    array = const_array(value)
    if array is None or array.dtype.kind != "i" or array.ndim > 1 or array.size > MAX_ELEMENTS:
        return None
    return Elements([int(i) for i in array.reshape(-1)], is_scalar=array.ndim == 0)


def _shape(node: ir.Node, known: Known) -> Elements | None:
    x = node.inputs[0]
    shape = dims(x)
    if x is None or shape is None:
        return None
    axes: list[Element] = [(x, i) if d is None else d for i, d in enumerate(shape)]
    return Elements(axes[slice(attribute(node, "start", 0), attribute(node, "end"))])


def _size(node: ir.Node, known: Known) -> Elements | None:
    shape = dims(node.inputs[0])
    if shape is None or not all(isinstance(d, int) for d in shape):
        return None
    return Elements(
        [int(np.prod([int(d) for d in shape if d is not None], dtype=np.int64))], is_scalar=True
    )


def _same(node: ir.Node, known: Known) -> Elements | None:
    return _elements(node.inputs[0], known)


def _cast(node: ir.Node, known: Known) -> Elements | None:
    to = ir.DataType(attribute(node, "to"))
    source = node.inputs[0]
    if to not in (ir.DataType.INT64, ir.DataType.INT32) or source is None:
        return None
    found = _elements(source, known)
    if found is None or any(isinstance(i, int) and abs(i) >= 1 << 31 for i in found.items):
        return None
    return found


def _gather(node: ir.Node, known: Known) -> Elements | None:
    data, indices = _elements(node.inputs[0], known), const_array(node.inputs[1])
    if data is None or data.is_scalar or indices is None or indices.ndim > 1:
        return None
    size = len(data.items)
    if attribute(node, "axis", 0) not in (0, -1) or not all(
        -size <= i < size for i in indices.flat
    ):
        return None
    return Elements([data.items[int(i)] for i in indices.flat], is_scalar=indices.ndim == 0)


def _slice(node: ir.Node, known: Known) -> Elements | None:
    data = _elements(node.inputs[0], known)
    starts, ends = int_list(node, "starts", 1), int_list(node, "ends", 2)
    steps = int_list(node, "steps", 4) if is_given(node, "steps", 4) else (1,)
    axes = int_list(node, "axes", 3) if is_given(node, "axes", 3) else (0,)
    if data is None or data.is_scalar or starts is None or ends is None or not steps:
        return None
    if axes not in ((0,), (-1,)) or len(starts) != 1 or steps[0] < 1:
        return None
    return Elements(data.items[starts[0] : ends[0] : steps[0]])


def _concat(node: ir.Node, known: Known) -> Elements | None:
    items: list[Element] = []
    for value in node.inputs:
        part = _elements(value, known)
        if part is None or part.is_scalar:
            return None
        items.extend(part.items)
    return Elements(items)


def _unsqueeze(node: ir.Node, known: Known) -> Elements | None:
    data, axes = _elements(node.inputs[0], known), int_list(node, "axes", 1)
    if data is None or not data.is_scalar or axes not in ((0,), (-1,)):
        return None
    return Elements(data.items)


def _squeeze(node: ir.Node, known: Known) -> Elements | None:
    data = _elements(node.inputs[0], known)
    axes = int_list(node, "axes", 1) if is_given(node, "axes", 1) else (0,)
    if data is None or data.is_scalar or len(data.items) != 1 or axes not in ((0,), (-1,)):
        return None
    return Elements(data.items, is_scalar=True)


def _reshape_elements(node: ir.Node, known: Known) -> Elements | None:
    """Reshape of a shape: between a scalar and a vector of one, or to a vector."""
    data, target = _elements(node.inputs[0], known), const_array(given(node, 1))
    if data is None or target is None or target.size > 1:
        return None
    if target.size == 0:
        return Elements(data.items, is_scalar=True)
    return Elements(data.items) if int(target[0]) in (-1, len(data.items)) else None


def _arithmetic(function: Callable[[int, int], int | None], neutral: int) -> _Rule:
    """Elementwise, numbers with numbers; a dimension only with the neutral right operand."""

    def rule(node: ir.Node, known: Known) -> Elements | None:
        a, b = _elements(node.inputs[0], known), _elements(node.inputs[1], known)
        if a is None or b is None:
            return None
        count = max(len(a.items), len(b.items))
        if len(a.items) not in (1, count) or len(b.items) not in (1, count):
            return None
        items: list[Element] = []
        for i in range(count):
            x, y = a.items[i % len(a.items)], b.items[i % len(b.items)]
            item = function(x, y) if isinstance(x, int) and isinstance(y, int) else None
            if item is None and not isinstance(x, int) and y == neutral:
                items.append(x)
            elif item is None:
                return None
            else:
                items.append(item)
        return Elements(items, is_scalar=a.is_scalar and b.is_scalar)

    return rule


_Rule = Callable[[ir.Node, Known], Elements | None]

_FOLLOWED: dict[str, _Rule] = {
    "Add": _arithmetic(lambda x, y: x + y, 0),
    "Cast": _cast,
    "Concat": _concat,
    "Div": _arithmetic(lambda x, y: x // y if x >= 0 and y > 0 else None, 1),
    "Gather": _gather,
    "Identity": _same,
    "Mul": _arithmetic(lambda x, y: x * y, 1),
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _arithmetic(lambda x, y: x - y, 0),
    "Unsqueeze": _unsqueeze,
}


def _fix_reshape(node: ir.Node, known: Known, edit: Edit) -> bool:
    """Give a Reshape a constant target; where it reshapes a shape, follow it."""
    x, target = given(node, 0), given(node, 1)
    followed = _reshape_elements(node, known)
    if followed is not None:
        numbers = followed.numbers()
        if numbers is None:
            known[node.outputs[0]] = followed
            return False
    if x is None or target is None or target not in known:
        return False
    wanted = known[target]
    if wanted.is_scalar or attribute(node, "allowzero", 0):
        return False
    final = _constant_target(x, wanted.items)
    if final is None:
        return False
    node.replace_input_with(1, edit.ints(final, f"{node.outputs[0].name}_shape", node))
    source = target.producer()
    if source is not None:
        edit.erase(source)
    return True


def _constant_target(x: ir.Value, wanted: Sequence[Element]) -> list[int] | None:
    """The target with 0 and at most one -1 in the place of dimensions."""
    shape = dims(x)
    final: list[int] = []
    for i, item in enumerate(wanted):
        if isinstance(item, int):
            final.append(item)
        elif shape is not None and i < len(shape) and item in (shape[i] or (x, i), (x, i)):
            final.append(0)
        else:
            final.append(-1)
    numbers = [n for n, item in zip(final, wanted, strict=True) if isinstance(item, int)]
    if final.count(-1) > 1 or any(n == 0 for n in numbers):
        return None
    return final if rank(x) is not None else None

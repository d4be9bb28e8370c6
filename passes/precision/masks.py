"""Additive attention masks: constants such as -1e9 whose only use is to make a softmax give 0.

    softmax(scores + (1 - keep) * -3.4e38)     softmax(where(keep, scores, -3.4e38))

float16 cannot hold them, and they need not be held: whatever is far below every score serves. A
constant is taken for a mask only where everything that it reaches is a shape operator, a sum, a
product with zeros and ones, a Where or a Max, and ends in a Softmax (or as the mask of an
Attention).
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from infc.passes.rewriting import const_array, const_tensor, is_op, other_input
from infc.quantization import Range

_SHAPE = frozenset(
    (
        *("Expand", "Gather", "Identity", "Reshape", "Slice"),
        *("Squeeze", "Tile", "Transpose", "Unsqueeze"),
    )
)
_SUMS = frozenset(("Add", "Sum", "Max", "Concat"))
_MAX_BYTES = 1 << 26


def masked_values(
    model: ir.Model, ranges: Mapping[str, Range] | None, largest: float
) -> tuple[frozenset[ir.Value], frozenset[ir.Value]]:
    """The constants that are additive masks, and the values that hold masked entries.

    Of the latter only the upper end says anything about overflow.
    """
    masks, holding = set(), set()
    for value in (*model.graph.initializers.values(), *_constants(model.graph)):
        if not _is_low(value, largest):
            continue
        reached = _reached(value, ranges or {})
        if reached is not None:
            masks.add(value)
            holding |= reached
    return frozenset(masks), frozenset(holding)


def _constants(graph: ir.Graph) -> list[ir.Value]:
    return [n.outputs[0] for n in graph if is_op(n, "Constant")]


def _is_low(value: ir.Value, largest: float) -> bool:
    """Whether some element is below what the type holds, and none above."""
    if value.dtype != ir.DataType.FLOAT:
        return False
    array = const_array(value, _MAX_BYTES)
    return array is not None and bool(
        array.size and array.min() < -largest and array.max() <= largest
    )


def _reached(mask: ir.Value, ranges: Mapping[str, Range]) -> set[ir.Value] | None:
    """The values that `mask` reaches before a Softmax; None where it is something else too."""
    reached: set[ir.Value] = set()
    pending = [mask]
    while pending:
        value = pending.pop()
        if value in reached:
            continue
        reached.add(value)
        if value.is_graph_output() or not value.uses():
            return None
        for node, index in value.uses():
            if _ends(node, index):
                continue
            if node.graph is not mask.graph and mask.graph is not None:
                return None
            if not _hands_on(node, index, value, ranges):
                return None
            pending.append(node.outputs[0])
    return reached - {mask}


def _ends(node: ir.Node, index: int) -> bool:
    if is_op(node, "Softmax"):
        return True
    return is_op(node, "Attention") and index == 3


def _hands_on(node: ir.Node, index: int, value: ir.Value, ranges: Mapping[str, Range]) -> bool:
    """Whether what `node` gives is masked where `value` is, and nothing else."""
    if node.domain:
        return False
    if node.op_type in _SHAPE:
        return index == 0
    if node.op_type in _SUMS:
        return True
    if node.op_type == "Where":
        return index > 0
    if node.op_type == "Mul" and const_tensor(value) is not None:
        return _is_indicator(other_input(node, value), ranges)
    return False


def _is_indicator(value: ir.Value | None, ranges: Mapping[str, Range]) -> bool:
    """Whether `value` is 0 or 1 everywhere: a bool, one less that, or so measured."""
    if value is None:
        return False
    node = value.producer()
    if node is not None and not node.domain:
        if node.op_type == "Cast":
            source = node.inputs[0]
            return source is not None and (
                source.dtype == ir.DataType.BOOL or _is_measured(value, ranges)
            )
        if node.op_type == "Sub" and node.inputs[0] is not None:
            one = const_array(node.inputs[0])
            if one is not None and one.size == 1 and one.item() == 1.0:
                return _is_indicator(node.inputs[1], ranges)
        if node.op_type in _SHAPE:
            return _is_indicator(node.inputs[0], ranges)
    return _is_measured(value, ranges)


def _is_measured(value: ir.Value, ranges: Mapping[str, Range]) -> bool:
    found = ranges.get(value.name or "")
    return found is not None and found.low >= 0.0 and found.high <= 1.0

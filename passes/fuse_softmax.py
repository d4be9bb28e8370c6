"""Softmax spelled out, recognised.

    e / sum(e, axis)    with e = exp(x) or exp(x - max(x, axis))    ->  Softmax(x, axis)

The reductions keep their dimension and go over the one same axis; the opset is 13 or later, before
which Softmax flattens its input. Softmax subtracts the maximum itself: without it in the graph the
two differ only where exp overflowed.
"""

from __future__ import annotations

import onnx_ir as ir

from infc.passes.rewriting import (
    FLOATS,
    Edit,
    attribute,
    closed,
    dtype_of,
    int_list,
    producer,
    rank,
    rewrite,
)


class FuseSoftmax(ir.passes.InPlacePass):
    """Recognise Softmax."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node once."""
        return rewrite(model, {"Div": _fuse})


def _fuse(node: ir.Node, edit: Edit) -> bool:
    e, total = node.inputs
    exp, summed = producer(e, "Exp"), producer(total, "ReduceSum")
    if exp is None or summed is None or summed.inputs[0] is not e or edit.opset < 13:
        return False
    axis = _axis(summed)
    argument = exp.inputs[0]
    if axis is None or argument is None or dtype_of(argument) not in FLOATS:
        return False
    nodes = {node, exp, summed}
    x = argument
    shifted = producer(argument, "Sub")
    if shifted is not None:
        top = producer(shifted.inputs[1], "ReduceMax")
        source = shifted.inputs[0]
        same = top is not None and top.inputs[0] is source and _axis(top) == axis
        if top is not None and source is not None and same and closed({*nodes, shifted, top}, node):
            nodes |= {shifted, top}
            x = source
    if not closed(nodes, node):
        return False
    edit.replace(node.outputs[0], "Softmax", [x], {"axis": axis})
    return True


def _axis(node: ir.Node) -> int | None:
    """The one axis of a reduction that keeps it, from the back where the rank is known."""
    axes = int_list(node, "axes", 1)
    if axes is None or len(axes) != 1 or attribute(node, "keepdims", 1) != 1:
        return None
    into = rank(node.inputs[0])
    return axes[0] if into is None or axes[0] < 0 else axes[0] - into

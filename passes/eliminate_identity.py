"""Nodes that hand their input on are removed: Identity(x) -> x.

Also Dropout at inference (Dropout-7 to -10 always; from 12 where `training_mode` is absent or a
constant false) whose mask nobody reads, and Sum, Max, Min, Mean and Concat of one input. A graph
output keeps its name; an Identity that gives an input, a constant or a value of an outer graph as
a graph output stays, because an output must be given by a node of its own graph.
"""

from __future__ import annotations

import onnx_ir as ir

from infc.passes.eliminate_common_subexpressions import is_deterministic
from infc.passes.rewriting import Edit, rewrite


class EliminateIdentity(ir.passes.InPlacePass):
    """Remove nodes whose output is their input."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node, subgraphs included."""
        rules = dict.fromkeys(("Sum", "Max", "Min", "Mean", "Concat"), _of_one)
        return rewrite(model, {"Identity": _of_one, "Dropout": _dropout, **rules})


def _of_one(node: ir.Node, edit: Edit) -> bool:
    if len(node.inputs) != 1 or node.inputs[0] is None:
        return False
    return edit.forward(node.outputs[0], node.inputs[0])


def _dropout(node: ir.Node, edit: Edit) -> bool:
    data = node.inputs[0]
    mask = node.outputs[1] if len(node.outputs) > 1 else None
    if data is None or (mask is not None and (mask.uses() or mask.is_graph_output())):
        return False
    if not is_deterministic(node):
        return False
    return edit.forward(node.outputs[0], data)

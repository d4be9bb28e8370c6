"""What no graph output depends on is removed.

Nodes, initializers of every graph (those that are also inputs stay: they are the interface), the
outputs of an `If` that nobody reads together with what computes them in both branches, and
optional outputs (the mask of Dropout, the indices of MaxPool, the running statistics of
BatchNormalization at inference, the last states of LSTM): a node that no longer gives them can be
rewritten and built where one that does cannot. Source: formal parameters marked optional in the
ONNX operator schemas; position matters, so an output in the middle is unnamed, not removed.
"""

from __future__ import annotations

import onnx_ir as ir

from infc.passes.rewriting import attribute, bodies

OPTIONAL_FROM = {
    "BatchNormalization": 1,
    "DynamicQuantizeLSTM": 0,
    "Dropout": 1,
    "GRU": 0,
    "LSTM": 0,
    "LayerNormalization": 1,
    "MaxPool": 1,
    "RNN": 0,
    "Unique": 1,
}
"""Operator -> the first output that may be absent; from there on all may."""


class RemoveUnused(ir.passes.InPlacePass):
    """Remove unused nodes, initializers and optional outputs."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Walk each graph from its end, so that one walk removes whole chains."""
        return ir.passes.PassResult(model, modified=_clean(model.graph))


def _clean(graph: ir.Graph) -> bool:
    modified = False
    for node in reversed(graph):
        if not any(v.uses() or v.is_graph_output() for v in node.outputs):
            graph.remove(node, safe=True)
            modified = True
            continue
        if node.op_type == "If" and not node.domain:
            modified |= _trim_branches(node)
        elif len(node.outputs) > 1:
            modified |= _trim_outputs(node)
        for body in bodies(node):
            modified |= _clean(body)
    for name, value in list(graph.initializers.items()):
        if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
            del graph.initializers[name]
            modified = True
    return modified


def _trim_outputs(node: ir.Node) -> bool:
    """Drop optional outputs that nobody reads; True where the number of outputs changed."""
    first = OPTIONAL_FROM.get(node.op_type)
    if node.domain or first is None:
        return False
    if node.op_type == "BatchNormalization" and attribute(node, "training_mode", 0):
        return False
    count = len(node.outputs)
    for i in range(first, count):
        output = node.outputs[i]
        if not output.uses() and not output.is_graph_output():
            output.name = ""
    while len(node.outputs) > max(first, 1) and not node.outputs[-1].name:
        node.resize_outputs(len(node.outputs) - 1)
    return len(node.outputs) != count


def _trim_branches(node: ir.Node) -> bool:
    """Drop the outputs of an `If` that nobody reads, in the node and in both branches."""
    branches = bodies(node)
    if any(len(b.outputs) != len(node.outputs) for b in branches):
        return False
    used = [bool(v.uses()) or v.is_graph_output() for v in node.outputs]
    if all(used):
        return False
    for branch in branches:
        kept = [v for v, keep in zip(branch.outputs, used, strict=True) if keep]
        branch.outputs.clear()
        branch.outputs.extend(kept)
    old = [v for v, keep in zip(node.outputs, used, strict=True) if keep]
    new = ir.Node(
        "",
        "If",
        node.inputs,
        node.attributes.values(),
        outputs=[ir.Value(name=v.name, type=v.type, shape=v.shape) for v in old],
        name=node.name,
    )
    graph = node.graph
    if graph is None:
        return False
    graph.insert_before(node, new)
    for before, after in zip(old, new.outputs, strict=True):
        before.name = None
        before.replace_all_uses_with(after, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return True

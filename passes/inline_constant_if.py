"""An `If` whose condition is constant becomes the branch that is taken.

    If(true) { then: body } -> body

The values of the branch keep their names, made unique where the outer graph has them already; its
outputs take the names of the outputs of the `If`. Initializers of the branch move out with it.
Loop and Scan are left alone: their trip counts are data. Source: ONNX If-1 to -25.
"""

from __future__ import annotations

import onnx_ir as ir

from infc.passes.rewriting import Edit, attribute, const_array, rewrite


class InlineConstantIf(ir.passes.InPlacePass):
    """Replace an `If` by the branch that its constant condition takes."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node, subgraphs included; an inlined `If` is seen in the next round."""
        return rewrite(model, {"If": _inline})


def _inline(node: ir.Node, edit: Edit) -> bool:
    condition = const_array(node.inputs[0])
    outer = node.graph
    if condition is None or condition.size != 1 or outer is None:
        return False
    branch = attribute(node, "then_branch" if condition.reshape(-1)[0] else "else_branch")
    if not isinstance(branch, ir.Graph) or len(branch.outputs) != len(node.outputs):
        return False
    for name, value in list(branch.initializers.items()):
        del branch.initializers[name]
        value.name = edit.fresh(f"{name}_inlined")
        outer.initializers[value.name] = value
    inside = list(branch)
    results = list(branch.outputs)
    branch.outputs.clear()
    for inner in inside:
        branch.remove(inner)
        for value in inner.outputs:
            if value.name:
                value.name = edit.fresh(f"{value.name}_inlined")
        outer.insert_before(node, inner)
    for old, new in zip(node.outputs, results, strict=True):
        _connect(outer, node, old, new)
    outer.remove(node, safe=True)
    return True


def _connect(outer: ir.Graph, node: ir.Node, old: ir.Value, new: ir.Value) -> None:
    """Let `new` stand for `old`, an output of the `If`, under the name of `old`.

    An Identity is put between them; where `new` can take the name, eliminate-identity removes it.
    """
    value = ir.Value(name=old.name, type=old.type or new.type, shape=new.shape or old.shape)
    old.name = None
    outer.insert_before(node, ir.Node("", "Identity", [new], outputs=[value]))
    old.replace_all_uses_with(value, replace_graph_outputs=True)

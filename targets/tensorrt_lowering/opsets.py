"""The opset that a release knows, where the graph means the same in it.

    Relu-22 -> Relu-14        most later versions of an operator take more types, and no more

Source: onnx.defs; onnx, docs/Changelog.md.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

CHANGED = frozenset(("GroupNormalization",))
"""Of the same inputs as before, with another meaning: the scale of 21 is one for each channel."""


def lower_opset(model: ir.Model, release: str) -> bool:
    """State the greatest opset of `release` where every node means the same there."""
    from infc.targets.tensorrt_operators import RELEASES

    limit, stated = RELEASES[release].opset, model.opset_imports.get("", 1)
    if stated <= limit:
        return False
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    if not all(means_the_same(node, stated, limit) for node in nodes):
        return False
    model.opset_imports[""] = limit
    model.graph.opset_imports[""] = limit
    return True


def means_the_same(node: ir.Node, stated: int, limit: int) -> bool:
    """Whether `node`, of the opset `stated`, is one of the opset `limit` too."""
    if node.domain not in ("", "ai.onnx"):
        return True
    try:
        now = onnx.defs.get_schema(node.op_type, stated, "")
        then = onnx.defs.get_schema(node.op_type, min(stated, limit), "")
    except onnx.defs.SchemaError:
        return False
    if now.since_version == then.since_version:
        return True
    if node.op_type in CHANGED or len(node.inputs) > then.max_input:
        return False
    return set(node.attributes) <= set(then.attributes) and len(node.outputs) <= then.max_output

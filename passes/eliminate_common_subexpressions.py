"""Equal nodes are computed once: y1 = f(x), y2 = f(x) -> y1 for both.

Nodes are equal when operator, attributes, inputs and number of outputs are. A node inside the
body of an `If` or `Loop` may be equal to one of an outer graph that comes before it, which then
serves both. Left alone: what draws random numbers, nodes with bodies, custom operators (they may
have state), and pairs that both give a graph output. Source: ONNX operators are pure functions
of their inputs but for those in `NONDETERMINISTIC`.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import bodies, const_tensor

NONDETERMINISTIC = frozenset(
    (
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    )
)
PURE_DOMAINS = frozenset(("", "ai.onnx", "ai.onnx.ml"))
MAX_TENSOR_BYTES = 1 << 12

Seen = dict[Hashable, ir.Node]


class EliminateCommonSubexpressions(ir.passes.InPlacePass):
    """Let equal nodes share one computation."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Walk the graphs in order, bodies with what was seen before their node."""
        return ir.passes.PassResult(model, modified=_visit(model.graph, {}))


def _visit(graph: ir.Graph, outer: Seen) -> bool:
    seen = dict(outer) if outer else outer
    modified = False
    for node in graph:
        inner = bodies(node)
        if inner:
            for body in inner:
                modified |= _visit(body, dict(seen))
            continue
        key = _key(node)
        if key is None:
            continue
        first = seen.setdefault(key, node)
        if first is not node:
            modified |= _merge(graph, first, node)
    return modified


def _key(node: ir.Node) -> Hashable | None:
    """What equal nodes have in common; None for a node that is never merged."""
    if node.domain not in PURE_DOMAINS or node.op_type in NONDETERMINISTIC:
        return None
    if node.op_type == "BatchNormalization" and len(node.outputs) > 1:
        return None
    attributes = []
    for name in sorted(node.attributes):
        attr = node.attributes[name]
        value = _attribute_key(attr)
        if value is None:
            return None
        attributes.append((name, attr.type, value))
    return (
        node.op_type,
        node.domain,
        tuple(None if v is None else id(v) for v in node.inputs),
        tuple(bool(v.name) for v in node.outputs),
        tuple(attributes),
    )


def _attribute_key(attr: ir.Attr) -> Hashable | None:
    if attr.is_ref():
        return None
    if attr.type in (ir.AttributeType.INT, ir.AttributeType.STRING):
        return str(attr.value)
    if attr.type == ir.AttributeType.FLOAT:
        return np.float32(attr.value).tobytes()
    if attr.type in (ir.AttributeType.INTS, ir.AttributeType.STRINGS):
        return tuple(attr.value)
    if attr.type == ir.AttributeType.FLOATS:
        return np.array(attr.value, np.float32).tobytes()
    if attr.type == ir.AttributeType.TENSOR:
        tensor = attr.as_tensor()
        if tensor.dtype != ir.DataType.STRING and tensor.nbytes <= MAX_TENSOR_BYTES:
            return tensor.dtype, tuple(tensor.shape), tensor.tobytes()
    return None


def _merge(graph: ir.Graph, first: ir.Node, node: ir.Node) -> bool:
    """Let the users of `node` read `first`; whether that could be done."""
    pairs = list(zip(first.outputs, node.outputs, strict=True))
    same_graph = first.graph is graph
    for kept, dropped in pairs:
        if dropped.is_graph_output() and (kept.is_graph_output() or not same_graph):
            return False
    for kept, dropped in pairs:
        if dropped.is_graph_output():
            name, dropped.name = dropped.name, None
            kept.name = name
            kept.type, kept.shape = dropped.type or kept.type, dropped.shape or kept.shape
        dropped.replace_all_uses_with(kept, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return True


def is_deterministic(node: ir.Node) -> bool:
    """Whether a standard node gives the same outputs for the same inputs, every time."""
    if node.op_type != "Dropout":
        return node.op_type not in NONDETERMINISTIC
    training = node.inputs[2] if len(node.inputs) > 2 else None
    tensor = const_tensor(training)
    return training is None or (tensor is not None and not tensor.numpy().any())

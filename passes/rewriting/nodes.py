"""Nodes: their operators, inputs, attributes and readers; the graphs that they are in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import onnx_ir as ir

from infc.passes.rewriting.constants import const_array, const_tensor

WITH_BODY = frozenset(("If", "Loop", "Scan", "SequenceMap"))


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether `node` is one of these standard operators."""
    return node is not None and node.op_type in op_types and not node.domain


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The standard node of one of these types (any, where none is given) that gives `value`."""
    node = value.producer() if value is not None else None
    if node is None or node.domain or (op_types and node.op_type not in op_types):
        return None
    return node


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The only node that reads `value`, once, in its own graph; None for a graph output."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = next(iter(uses)).node
    home = value.producer()
    return node if home is None or home.graph is node.graph else None


def feeds_only(value: ir.Value, node: ir.Node) -> bool:
    """Whether `node` is the sole consumer of `value`."""
    return sole_consumer(value) is node


def closed(nodes: Iterable[ir.Node], root: ir.Node) -> bool:
    """Whether nothing but `nodes` sees what they compute, save for the outputs of `root`."""
    inside = set(nodes)
    return all(
        not value.is_graph_output() and all(use.node in inside for use in value.uses())
        for node in inside
        if node is not root
        for value in node.outputs
    )


def given(node: ir.Node, index: int) -> ir.Value | None:
    """The input at `index`, where there is one."""
    return node.inputs[index] if index < len(node.inputs) else None


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The value of an attribute; ONNX's default is the caller's to know."""
    attr = node.attributes.get(name)
    return default if attr is None else attr.value


def int_list(node: ir.Node, name: str, index: int) -> tuple[int, ...] | None:
    """A list that older opsets hold in the attribute `name`, newer ones in a constant input.

    None where it is absent or not constant; `is_given` tells which.
    """
    attr = node.attributes.get(name)
    if attr is not None:
        return tuple(attr.value) if isinstance(attr.value, Sequence) else (int(attr.value),)
    array = const_array(given(node, index))
    if array is None or array.dtype.kind not in "iu":
        return None
    return tuple(int(i) for i in array.reshape(-1))


def is_given(node: ir.Node, name: str, index: int) -> bool:
    """Whether `name` is there, as an attribute or as the input at `index`."""
    return name in node.attributes or given(node, index) is not None


def other_input(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """The other operand of a binary node."""
    a, b = node.inputs
    return b if a is value else a


def split_constant(node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """The (variable, constant) operands of a commutative binary node with one constant."""
    if len(node.inputs) != 2:
        return None
    a, b = node.inputs
    if a is None or b is None:
        return None
    if const_tensor(b) is not None:
        return (a, b) if const_tensor(a) is None else None
    return (b, a) if const_tensor(a) is not None else None


def graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph and every graph inside it, outer before inner."""
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph:
            if node.op_type in WITH_BODY or node.domain:
                pending.extend(bodies(node))


def bodies(node: ir.Node) -> list[ir.Graph]:
    """The subgraphs among the attributes of a node."""
    found: list[ir.Graph] = []
    for attr in node.attributes.values():
        if attr.type == ir.AttributeType.GRAPH and not attr.is_ref():
            found.append(attr.as_graph())
        elif attr.type == ir.AttributeType.GRAPHS and not attr.is_ref():
            found.extend(attr.as_graphs())
    return found


def opset(model: ir.Model) -> int:
    """The version of the standard operator set."""
    imports = model.opset_imports
    return imports.get("", imports.get("ai.onnx", 1))


def kept(node: ir.Node, *without: str) -> dict[str, Any]:
    """The attributes of `node`, to be given to its replacement, save for those named."""
    return {name: attr for name, attr in node.attributes.items() if name not in without}

"""Operands of a type that the operator takes, and of one type where they must agree."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from infc.frontends.findings import Findings, quoted
from infc.frontends.onnx_context import Context, function_id, subgraphs
from infc.frontends.onnx_operators import Operator, operator_of
from infc.frontends.onnx_tensors import type_name


def check_types(
    graph: onnx.GraphProto, context: Context, outer: Mapping[str, str | None] | None = None
) -> None:
    """Add an E104 for every operand of a type that its operator does not take."""
    types: dict[str, str | None] = dict(outer or {})
    for value in (*graph.input, *graph.value_info, *graph.output):
        types[value.name] = spell_type(value.type)
    for tensor in graph.initializer:
        types[tensor.name] = f"tensor({type_name(tensor.data_type)})"
    for index, node in enumerate(graph.node):
        version = context.opsets.get(node.domain)
        operator = None
        if version is not None and function_id(node) not in context.functions:
            operator = operator_of(node.op_type, node.domain, version)
        if operator is not None and operator.inputs:
            _check_operands(node, operator, types, context.place(node, index), context.findings)
        for inner in subgraphs(node):
            check_types(inner, context, types)


def _check_operands(
    node: onnx.NodeProto,
    operator: Operator,
    types: Mapping[str, str | None],
    place: str,
    findings: Findings,
) -> None:
    bound: dict[str, tuple[str, str]] = {}
    for i, name in enumerate(node.input):
        kind = types.get(name) if name else None
        if kind is None:
            continue
        formal = operator.inputs[min(i, len(operator.inputs) - 1)]
        operand = f"input {quoted(name)} ({formal.name})"
        if kind not in formal.takes:
            takes = sorted(formal.takes)
            wants = ", ".join(takes) if len(takes) <= 6 else f"{len(takes)} other types"
            findings.add("E104", f"{operand} is {kind}; the operator takes {wants}", place)
            continue
        if formal.free:
            continue
        first, by = bound.setdefault(formal.kind, (kind, name))
        if first != kind:
            what = f"{operand} is {kind}, but {quoted(by)} is {first}: they must agree"
            findings.add("E104", what, place)


def spell_type(kind: onnx.TypeProto) -> str | None:
    """A type as ONNX's schemas spell it, `tensor(float)`; None where it is not known."""
    field = kind.WhichOneof("value")
    if field in ("tensor_type", "sparse_tensor_type"):
        element = getattr(kind, field).elem_type
        word = "tensor" if field == "tensor_type" else "sparse_tensor"
        return f"{word}({type_name(element)})" if element else None
    if field in ("sequence_type", "optional_type"):
        inner = spell_type(getattr(kind, field).elem_type)
        word = "seq" if field == "sequence_type" else "optional"
        return f"{word}({inner})" if inner else None
    return None

"""Nodes one by one: their attributes, and what ONNX's own schemas say about their operators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import onnx

from infc.frontends.findings import Findings, quoted
from infc.frontends.onnx_context import Context, function_id, subgraphs
from infc.frontends.onnx_tensors import check_sparse, check_tensor

_A = onnx.AttributeProto
_ELEMENT_TYPES = ("to", "dtype", "output_dtype", "stash_type")
_PAYLOAD = {_A.TENSOR: "t", _A.GRAPH: "g", _A.SPARSE_TENSOR: "sparse_tensor", _A.TYPE_PROTO: "tp"}


@dataclass(frozen=True, slots=True)
class Formal:
    """A formal input of an operator: `takes` are the types it may have, `kind` what ties some."""

    name: str
    kind: str
    takes: frozenset[str]
    required: bool
    free: bool
    """One of several of which each may have its own type."""


@dataclass(frozen=True, slots=True)
class Operator:
    """What is used here of ONNX's schema, whose own attributes are made anew at each access.

    `attributes` maps names to (required, type, name of the type); the counts are (least, most).
    """

    deprecated: bool
    inputs: tuple[Formal, ...]
    input_count: tuple[int, int]
    output_count: tuple[int, int]
    attributes: Mapping[str, tuple[bool, int, str]]


@cache
def operator_of(op_type: str, domain: str, version: int) -> Operator | None:
    """The operator as ONNX defines it; None where ONNX does not know it."""
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    option = onnx.defs.OpSchema.FormalParameterOption
    allowed = {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}
    return Operator(
        schema.deprecated,
        tuple(
            Formal(
                i.name,
                i.type_str,
                allowed.get(i.type_str, frozenset({i.type_str})),
                i.option == option.Single,
                i.option == option.Variadic and not i.is_homogeneous,
            )
            for i in schema.inputs
        ),
        (schema.min_input, schema.max_input),
        (schema.min_output, schema.max_output),
        {k: (a.required, a.type.value, a.type.name) for k, a in schema.attributes.items()},
    )


def check_attributes(
    node: onnx.NodeProto, place: str, context: Context
) -> Iterator[onnx.GraphProto]:
    """Add what is wrong with the attributes of `node`; yield the graphs in them."""
    found = context.findings
    names: set[str] = set()
    for attribute in node.attribute:
        name = quoted(attribute.name)
        if not is_text(attribute.name):
            found.add("E102", f"the attribute name {name} is not UTF-8", place)
            continue
        if attribute.name in names:
            found.add("E104", f"attribute {name} is given twice", place)
        names.add(attribute.name)
        if attribute.ref_attr_name:
            if attribute.ref_attr_name not in (context.parameters or ()):
                parameter = quoted(attribute.ref_attr_name)
                found.add("E104", f"attribute {name} refers to {parameter}: none here", place)
            continue
        if attribute.type == _A.UNDEFINED:
            found.add("E104", f"attribute {name} has no type", place)
        payload = _PAYLOAD.get(attribute.type)
        if payload is not None and not attribute.HasField(payload):
            found.add("E104", f"attribute {name} has no value", place)
        if attribute.type == _A.STRINGS and not all(_is_utf8(s) for s in attribute.strings):
            found.add("E102", f"attribute {name} is not UTF-8", place)
        if attribute.type in (_A.SPARSE_TENSORS, _A.TYPE_PROTOS):
            found.add("E104", f"attribute {name} is of a kind that no operator takes", place)
        for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
            check_tensor(tensor, found, place)
        if attribute.HasField("sparse_tensor"):
            check_sparse(attribute.sparse_tensor, found, place)
    yield from subgraphs(node)


def check_operator(node: onnx.NodeProto, place: str, context: Context) -> None:
    """Hold the node against its schema, or against the function it calls."""
    found = context.findings
    function = context.functions.get(function_id(node))
    if function is not None:
        if len(node.input) > len(function.input) or len(node.output) > len(function.output):
            found.add("E104", "the call has more inputs or outputs than the function", place)
        return
    if not node.op_type:
        found.add("E104", "the node has no operator", place)
        return
    version = context.opsets.get(node.domain)
    if version is None:
        what = quoted(node.domain or "ai.onnx")
        found.add("E104", f"the model does not say which opset of {what} it uses", place)
        return
    operator = operator_of(node.op_type, node.domain, version)
    if operator is None:
        return
    if operator.deprecated:
        found.add("E104", f"{quoted(node.op_type)} was removed in opset {version}", place)
        return
    _check_arity(node, operator, place, found)
    given = {a.name: a for a in node.attribute}
    for name, (required, _, _) in operator.attributes.items():
        if required and name not in given:
            found.add("E104", f"the required attribute {quoted(name)} is missing", place)
    for name, value in given.items():
        known = operator.attributes.get(name)
        if known is None:
            found.add("E104", f"{quoted(node.op_type)} has no attribute {quoted(name)}", place)
        elif value.type not in (known[1], _A.UNDEFINED):
            has = _A.AttributeType.Name(value.type)
            found.add("E104", f"attribute {quoted(name)} is {has}, not {known[2]}", place)
        elif name in _ELEMENT_TYPES and value.i not in onnx.TensorProto.DataType.values():
            found.add("E104", f"attribute {quoted(name)} is {value.i}, not an element type", place)


def _check_arity(node: onnx.NodeProto, operator: Operator, place: str, found: Findings) -> None:
    inputs, outputs = list(node.input), list(node.output)
    for what, names, (least, most) in (
        ("inputs", inputs, operator.input_count),
        ("outputs", outputs, operator.output_count),
    ):
        while names and not names[-1]:
            names.pop()
        if not least <= len(names) <= most:
            wants = f"{least}" if least == most else f"{least} to {most}"
            if most >= 2**31 - 1:
                wants = f"at least {least}"
            found.add("E104", f"the node has {len(names)} {what}, the operator {wants}", place)
            return
    for name, formal in zip(inputs, operator.inputs, strict=False):
        if not name and formal.required:
            found.add("E104", f"the required input {quoted(formal.name)} is missing", place)


def is_text(name: object) -> bool:
    """Whether a string of the file is one."""
    # Protobuf hands out bytes where a string field does not hold UTF-8.
    return isinstance(name, str)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True

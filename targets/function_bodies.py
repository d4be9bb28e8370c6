"""Operators that a back end lacks -> the body that the ONNX standard itself gives them.

    y = AnOperator(x)   ->   y = the nodes of its function, inlined

Source: onnx.defs, `function_body` of an operator's schema; where the body depends on types and on
which optional inputs are there, onnx makes it for the node at hand.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

Operators = Container[tuple[str, str]]
"""Those that a back end has, as (domain, operator type)."""

DOMAIN = "infc.expanded"
MAX_ROUNDS = 8
"""A body may hold operators that need expanding themselves; onnx nests them four deep."""


def expand_functions(model: ir.Model, known: Operators) -> bool:
    """Inline the function bodies of all operators that have one and are not `known`.

    A body is taken only where all its operators are known in their turn, or have bodies. Returns
    whether any was.
    """
    from onnx_ir.passes.common import InlinePass, ShapeInferencePass

    modified = False
    for _ in range(MAX_ROUNDS):
        nodes = [n for n in _all_nodes(model) if _is_candidate(n, model, known)]
        if not nodes:
            break
        ShapeInferencePass(check_type=False, strict_mode=False)(model)
        done = [_expand(model, node, i, known) for i, node in enumerate(nodes)]
        if not any(done):
            break
        modified = True
        model.opset_imports[DOMAIN] = 1
        InlinePass(lambda function: function.domain == DOMAIN)(model)
        model.opset_imports.pop(DOMAIN, None)
        _drop_unread_constants(model)
    return modified


def _drop_unread_constants(model: ir.Model) -> None:
    """What stood for an output that is left out: it has no name, and no output once it is saved."""
    for node in list(_all_nodes(model)):
        value = node.outputs[0]
        unread = not value.uses() and not value.is_graph_output()
        if node.op_type == "Constant" and not node.domain and unread and node.graph is not None:
            node.graph.remove(node, safe=True)


def _all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    import onnx_ir as ir

    yield from ir.traversal.RecursiveGraphIterator(model.graph)


def _is_candidate(node: ir.Node, model: ir.Model, known: Operators) -> bool:
    import onnx_ir as ir

    if (node.domain, node.op_type) in known:
        return False
    schema = _schema(node, model)
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in _values(node)):
        return False  # onnx_ir inlines no function with a graph for an attribute
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def _values(node: ir.Node) -> list[ir.Attr]:
    return list(node.attributes.values())


def _schema(node: ir.Node, model: ir.Model) -> onnx.defs.OpSchema | None:
    import onnx

    try:
        version = model.opset_imports.get(node.domain, 1)
        return onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return None


def _expand(model: ir.Model, node: ir.Node, number: int, known: Operators) -> bool:
    """Turn `node` into a call of a function of its own; False where onnx makes none for it."""
    import onnx_ir as ir

    schema = _schema(node, model)
    proto = None if schema is None else _body(schema, node, model, known)
    if schema is None or proto is None:
        return False
    for name, attribute in schema.attributes.items():
        if name not in node.attributes and attribute.default_value.name:
            node.attributes[name] = ir.from_proto(attribute.default_value)
    proto.domain, proto.name = DOMAIN, f"{node.op_type}_{number}"
    function = ir.from_proto(proto)
    model.functions[function.identifier()] = function
    for domain, version in function.opset_imports.items():
        model.opset_imports.setdefault(domain, version)
        function.opset_imports[domain] = model.opset_imports[domain]
    node.domain, node.op_type, node.overload = DOMAIN, proto.name, ""
    return True


def _body(
    schema: Any, node: ir.Node, model: ir.Model, known: Operators
) -> onnx.FunctionProto | None:
    """The body that is valid at the model's opset, or None."""
    import onnx
    import onnx_ir as ir

    opset = model.opset_imports.get("", 1)
    version = max((v for v in _versions(schema) if v <= opset), default=None)
    if version is None:
        return None
    if schema.has_context_dependent_function:
        types = [_type(v) for v in node.inputs]
        data = schema.get_context_dependent_function_with_opset_version(
            version, ir.to_proto(node).SerializeToString(), types
        )
    else:
        data = schema.get_function_with_opset_version(version)
    if not data:
        return None
    proto = onnx.FunctionProto.FromString(data)
    del proto.output[len(node.outputs) :]
    _fill_absent_outputs(proto)
    helps = _still_valid(proto, opset) and _can_be_lowered(proto, opset, known)
    return proto if helps else None


def _fill_absent_outputs(proto: onnx.FunctionProto) -> None:
    """Give a value to the outputs that a body made for this node leaves out: nobody reads them."""
    import onnx

    made = {name for node in proto.node for name in node.output} | set(proto.input)
    for name in proto.output:
        if name not in made:
            proto.node.append(onnx.helper.make_node("Constant", [], [name], value_int=0))


def _versions(schema: Any) -> list[int]:
    return [
        *schema.function_opset_versions,
        *schema.context_dependent_function_opset_versions,
    ]


def _still_valid(proto: onnx.FunctionProto, opset: int) -> bool:
    """Whether every operator of the body means at `opset` what it meant when it was written."""
    import onnx

    written = max((o.version for o in proto.opset_import if o.domain == ""), default=opset)
    return all(
        onnx.defs.get_schema(n.op_type, written, "").since_version
        == onnx.defs.get_schema(n.op_type, opset, "").since_version
        for n in proto.node
        if n.domain == ""
    )


def _can_be_lowered(proto: onnx.FunctionProto, opset: int, known: Operators) -> bool:
    """Whether expanding helps: else the user's own node is the one to report."""
    import onnx

    for node in proto.node:
        if (node.domain, node.op_type) in known or node.op_type == "Constant":
            continue
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
        if not (schema.has_function or schema.has_context_dependent_function):
            return False
    return True


def _type(value: ir.Value | None) -> bytes:
    """The type of an operand as a serialised TypeProto."""
    import onnx
    import onnx_ir as ir

    if value is None:
        return bytes(onnx.TypeProto().SerializeToString())
    return bytes(ir.to_proto(value).type.SerializeToString())

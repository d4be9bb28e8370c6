"""Ask a back end about each node alone: which ones does it refuse, and why.

A vendor's loader stops at the first node it cannot take. Here each distinct node becomes a model
of its own, with the types and shapes inferred for the whole, and its small constants; what is
refused then is refused for the node's sake. That takes a millisecond or so for each distinct
node and is done only once the whole model has been refused.

A node with a body (If, Loop, Scan) is not asked about: the nodes of its body are. Runs in a
worker; needs onnx.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

from infc.targets import Unsupported

MAX_CONSTANT_BYTES = 1 << 16
"""Constants up to this size (axes, shapes, scalars) come along; larger ones become inputs."""

UNKNOWN = "there is no operator of this name"

Node = tuple[Any, dict[str, Any], dict[str, Any]]
"""A NodeProto, and the types and the constants in scope by name."""


def refused(
    path: Path,
    reason_of: Callable[[bytes], str],
    *,
    only: Container[str] | None = None,
    known: Container[str] | None = None,
) -> list[Unsupported]:
    """Return every node of the model at `path` that `reason_of` gives a reason against.

    `reason_of` takes a serialised ONNX model with one node and returns "" where it is accepted.
    `only` holds the full names of the operators in question; None means all. A node with a body,
    or with an operand of unknown type, is no valid model alone: of those, operators that are not
    among the `known` ones are refused. Where the versions that the model states are refused
    with an Identity too, no node is to blame.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    if reason_of(_identity(model)):
        return []
    asked: dict[bytes, str] = {}
    found = []
    for node, types, constants in nodes(model):
        if only is not None and full_name(node) not in only:
            continue
        single = _single(model, node, types, constants)
        if single is None:
            if known is not None and full_name(node) not in known and not _is_local(model, node):
                found.append(unsupported(node, UNKNOWN))
            continue
        if single not in asked:
            asked[single] = reason_of(single)
        if asked[single]:
            found.append(unsupported(node, asked[single]))
    return found


def full_name(node: Any) -> str:
    """`Conv`, or `com.microsoft.FusedConv`."""
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def unsupported(node: Any, reason: str) -> Unsupported:
    """The row for a NodeProto; one without a name goes by its first output."""
    name = node.name or next((o for o in node.output if o), "")
    domain = "" if node.domain == "ai.onnx" else node.domain
    return Unsupported(name, node.op_type, domain, reason)


def nodes(model: Any) -> Iterator[Node]:
    """Every node of a ModelProto in graph order, bodies after the node they belong to."""
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # A model that cannot be inferred still has the types it states.
        inferred = model
    yield from _nodes(inferred.graph, {}, {})


def _nodes(graph: Any, types: dict[str, Any], constants: dict[str, Any]) -> Iterator[Node]:
    from onnx import AttributeProto, helper

    types, constants = dict(types), dict(constants)
    for value in (*graph.input, *graph.value_info, *graph.output):
        types[value.name] = value.type
    for tensor in graph.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        if not tensor.external_data and tensor.ByteSize() <= MAX_CONSTANT_BYTES:
            constants[tensor.name] = tensor
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].type == AttributeProto.TENSOR:
            tensor = node.attribute[0].t
            types[node.output[0]] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            constants[node.output[0]] = tensor
        yield node, types, constants
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
            for body in bodies:
                yield from _nodes(body, types, constants)


def _is_local(model: Any, node: Any) -> bool:
    return any((f.domain, f.name) == (node.domain, node.op_type) for f in model.functions)


def _single(
    model: Any, node: Any, types: dict[str, Any], constants: dict[str, Any]
) -> bytes | None:
    """`node` as a serialised model, its operands renamed so that equal nodes give equal bytes."""
    import onnx
    from onnx import AttributeProto, helper

    graph_types = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
    if _is_local(model, node) or any(a.type in graph_types for a in node.attribute):
        return None
    names = {name: f"i{i}" for i, name in enumerate(dict.fromkeys(filter(None, node.input)))}
    if any(name not in types for name in names):
        return None
    single = onnx.NodeProto()
    single.CopyFrom(node)
    single.name, single.doc_string = "", ""
    single.input[:] = [names.get(name, "") for name in node.input]
    single.output[:] = [f"o{i}" if name else "" for i, name in enumerate(node.output)]
    del single.metadata_props[:]
    graph = helper.make_graph([single], "node", [], [])
    for name, new in names.items():
        if name in constants:
            tensor = graph.initializer.add()
            tensor.CopyFrom(constants[name])
            tensor.name = new
        else:
            graph.input.append(helper.make_value_info(new, types[name]))
    for name, new in zip(node.output, single.output, strict=True):
        if name:
            # Without a type where none was inferred: the back end infers its own.
            info = graph.output.add(name=new)
            if name in types:
                info.type.CopyFrom(types[name])
    return _model_of(model, graph)


def _identity(model: Any) -> bytes:
    """The model with the versions of `model` that asks the least."""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    node = helper.make_node("Identity", ["x"], ["y"])
    return _model_of(model, helper.make_graph([node], "identity", [x], [y]))


def _model_of(model: Any, graph: Any) -> bytes:
    """`graph` with the versions of `model`, serialised."""
    from onnx import helper

    whole = helper.make_model(graph, opset_imports=model.opset_import)
    whole.ir_version = model.ir_version
    return bytes(whole.SerializeToString(deterministic=True))

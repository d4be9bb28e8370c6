"""Frozen TensorFlow graphs: placeholders are inputs, what nothing reads is an output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from infc.frontends.containers import tensorflow_messages as messages
from infc.frontends.containers.archives import damaged
from infc.frontends.containers.description import MAX_LISTED, Description, Value, Weights, text

PLACEHOLDERS = (b"Placeholder", b"PlaceholderV2", b"PlaceholderWithDefault")
NO_RESULT = (*PLACEHOLDERS, b"Const", b"NoOp", b"Assert")
VARIABLES = (b"Variable", b"VariableV2", b"VarHandleOp")


def describe(path: Path) -> Description:
    """The graph in `path`.

    Raises:
        InfcError: E117 where it does not parse or is empty.
    """
    graph = messages.read(path, "GraphDef")
    if not graph.node:
        raise damaged(str(path), "its graph has no nodes")
    constants = list(constants_in(graph.node))
    counted = Counter(node.op for node in graph.node)
    details = {}
    if graph.versions.producer:
        details["producer"] = str(graph.versions.producer)
    variables = sum(node.op in VARIABLES for node in graph.node)
    if variables:
        details["variables"] = f"{variables}, whose values are not in the file"
    return Description(
        "graph-def",
        "TensorFlow graph" if variables else "frozen TensorFlow graph",
        inputs=[_input(node) for node in graph.node if node.op in PLACEHOLDERS][:MAX_LISTED],
        outputs=_outputs(graph),
        weights=Weights.of(constants),
        operators=Counter({text(op): n for op, n in counted.items()}),
        details=details,
    )


def operators_of(graph: Any, tensors: Iterable[bytes]) -> Counter[str]:
    """How many nodes of each operator the `tensors` depend on, each function counted once.

    A saved model has the functions of training and of saving in it, many times the nodes.
    """
    library = {function.signature.name: function for function in graph.library.function}
    nodes = {node.name: node for node in graph.node}
    found: Counter[bytes] = Counter()
    pending = [_node_of(name) for name in tensors]
    seen = set(pending)
    functions: list[bytes] = []
    while pending:
        node = nodes.get(pending.pop())
        if node is None:
            continue
        found[node.op] += 1
        functions += _functions(node)
        fresh = {_node_of(name) for name in node.input} - seen
        seen |= fresh
        pending += fresh
    called: set[bytes] = set()
    while functions:
        name = functions.pop()
        if name in library and name not in called:
            called.add(name)
            for node in library[name].node_def:
                found[node.op] += 1
                functions += _functions(node)
    return Counter({text(op): n for op, n in found.items() if op not in library})


def _node_of(tensor: bytes) -> bytes:
    """The node in `node:0` and `^node`."""
    return tensor.lstrip(b"^").partition(b":")[0]


def _functions(node: Any) -> list[bytes]:
    """The functions that a node may call: its operator, or its attributes."""
    names = [node.op]
    for value in node.attr.values():
        names.append(value.func.name)
        names += [function.name for function in value.list.func]
    return names


def constants_in(nodes: Iterable[Any]) -> Iterable[Value]:
    """The constants among `nodes`; their values are not looked at."""
    for node in nodes:
        if node.op == b"Const":
            tensor = _attribute(node, "value").tensor
            shape = messages.shape(tensor.tensor_shape)
            yield Value(text(node.name), messages.dtype(tensor.dtype), shape)


def _input(node: Any) -> Value:
    dtype, shape = _attribute(node, "dtype"), _attribute(node, "shape")
    known = shape.HasField("shape")
    return Value(
        f"{text(node.name)}:0",
        messages.dtype(dtype.type),
        messages.shape(shape.shape) if known else None,
    )


def _attribute(node: Any, name: str) -> Any:
    """The attribute, an empty one where it is not there; a look-up would add it."""
    return node.attr[name] if name in node.attr else messages.message("AttrValue")()


def _outputs(graph: Any) -> list[Value]:
    """One for each node that nothing reads; their shapes are not in the file."""
    read = {_node_of(name) for node in graph.node for name in node.input}
    sinks = [n for n in graph.node if n.name not in read and n.op not in NO_RESULT][:MAX_LISTED]
    return [Value(f"{text(node.name)}:0", _result_type(node)) for node in sinks]


def _result_type(node: Any) -> str:
    """By the attribute that most operators call `T`; "unknown" where there is none."""
    for name in ("T", "DstT", "dtype", "out_type", "output_type"):
        if name in node.attr and node.attr[name].type:
            return messages.dtype(node.attr[name].type)
    return "unknown"

"""Frozen graphs: a GraphDef whose variables are constants, as a function.

The file names neither inputs nor outputs. Inputs are the placeholders that the outputs depend on,
outputs the results that nothing reads. `--graph-output NAME` says otherwise; `--input NAME=SHAPE`
of another node cuts the graph there. Tensors are called what TensorFlow calls them, `name:0`, or
what the user wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import did_you_mean, fail
from infc.frontends.findings import printable, quoted
from infc.frontends.tensorflow import graphs, placeholders
from infc.frontends.tensorflow.programs import Program, port

if TYPE_CHECKING:
    from infc.frontends.tensorflow import Wanted

PLACEHOLDERS = ("Placeholder", "PlaceholderV2")
NO_RESULT = ("NoOp", "Assert", "Print", "PrintV2", "Const", *PLACEHOLDERS, "PlaceholderWithDefault")
"""Nodes that are no output though nothing reads them."""
VARIABLES = ("Variable", "VariableV2", "VarHandleOp", "TemporaryVariable")


def load(wanted: Wanted) -> Program:
    """The graph in a file.

    Raises:
        InfcError: E108, E110 for names that are not there, E111 for operators of third parties,
            E113 for what reaches outside, E114 for what is no frozen graph, E115.
    """
    definition = _parse(wanted.path)
    rows = list(graphs.nodes(definition))
    graphs.require_harmless(rows, wanted.path, allow=wanted.options.allow_pickle)
    own = graphs.own_functions(definition)
    graphs.require_known((row for row in rows if row.op not in own), wanted.path)
    _require_frozen(rows, wanted.path)
    nodes = {node.name: node for node in definition.node}
    given = {s.name: _tensor(s.name, nodes, "--input", wanted.path) for s in wanted.inputs}
    outputs = {n: _tensor(n, nodes, "--graph-output", wanted.path) for n in wanted.options.outputs}
    outputs = outputs or _outputs(definition, wanted.path)
    inputs = _inputs(nodes, outputs, given)
    return program(definition, inputs, outputs, wanted, wanted.path)


def program(
    definition: Any,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    wanted: Wanted,
    path: Path,
) -> Program:
    """The function from tensors to tensors of a graph; names to TensorFlow's own names.

    Raises:
        InfcError: E108, E114 where TensorFlow does not take the graph, E115.
    """
    import tensorflow as tf

    given = {spec.name: [dim.fixed for dim in spec.dims] for spec in wanted.inputs}
    told = {tensor: given[name] for name, tensor in inputs.items() if name in given}
    try:
        placeholders.settle(definition, inputs.values(), told)
        wrapped = tf.compat.v1.wrap_function(
            lambda: tf.compat.v1.import_graph_def(definition, name=""), []
        )
        fetch = {name: wrapped.graph.as_graph_element(t) for name, t in outputs.items()}
        feed = {name: wrapped.graph.as_graph_element(t) for name, t in inputs.items()}
    except MemoryError:
        raise
    except Exception as error:
        text = printable(str(error).strip().partition("\n")[0])
        raise fail("E114", f"TensorFlow does not take the graph in `{path}`: {text}") from error
    ports = tuple(port(n, t.shape, t.dtype, given.get(n)) for n, t in feed.items())
    function = wrapped.prune(list(feed.values()), list(fetch.values()))

    def call(tensors: Sequence[Any]) -> list[Any]:
        return list(function(*tensors))

    return Program(ports, tuple(outputs), call, wrapped)


def _parse(path: Path) -> Any:
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework import graph_pb2

    definition = graph_pb2.GraphDef()
    try:
        definition.ParseFromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise fail(
            "E114",
            f"`{path}` does not parse as a TensorFlow graph",
            help="it is truncated or damaged: download or freeze it again",
        ) from error
    if not definition.node:
        raise fail("E114", f"the graph in `{path}` is empty")
    return definition


def _require_frozen(rows: Sequence[Any], path: Path) -> None:
    """E114 for variables, whose values the file does not have."""
    found = [row.name for row in rows if row.op in VARIABLES]
    if found:
        shown = ", ".join(quoted(name) for name in found[:3]) + (", ..." if found[3:] else "")
        raise fail(
            "E114",
            f"the graph in `{path}` is not frozen: its variables have no values ({shown})",
            help="freeze it where its checkpoint is, or name the folder of the SavedModel",
        )


def _tensor(name: str, nodes: Mapping[str, Any], option: str, path: Path) -> str:
    """TensorFlow's name for a tensor that the user named; E106 or E110 where there is none."""
    node, _, index = name.partition(":")
    if node in nodes and (not index or index.isdecimal()):
        return f"{node}:{index or 0}"
    hint = did_you_mean(node, nodes)
    raise fail(
        "E106" if option == "--input" else "E110",
        f"the graph in `{path}` has no node `{node}` (`{option} {name}`)",
        help=f"{hint}`infc inspect {path.name}` lists its inputs and outputs",
    )


def _reads(node: Any) -> list[str]:
    """The nodes whose results or whose end a node waits for."""
    return [name.lstrip("^").partition(":")[0] for name in node.input]


def _outputs(definition: Any, path: Path) -> dict[str, str]:
    """What nothing reads, in the graph's order."""
    from tensorflow.python.framework import op_def_registry

    read = {name for node in definition.node for name in _reads(node)}
    own = graphs.own_functions(definition)
    found: dict[str, str] = {}
    for node in definition.node:
        if node.name in read or node.op in NO_RESULT:
            continue
        signature = own[node.op].signature if node.op in own else op_def_registry.get(node.op)
        for index in range(_result_count(node, signature)):
            found[f"{node.name}:{index}"] = f"{node.name}:{index}"
    if not found:
        raise fail(
            "E111",
            f"the graph in `{path}` has no output: every result is read by another node",
            help="name them with `--graph-output`",
        )
    return found


def _result_count(node: Any, signature: Any) -> int:
    """How many tensors a node returns (op_def.proto, `output_arg`)."""
    count = 0
    for row in signature.output_arg:
        if row.type_list_attr:
            count += len(node.attr[row.type_list_attr].list.type)
        elif row.number_attr:
            count += node.attr[row.number_attr].i
        else:
            count += 1
    return count


def _inputs(
    nodes: Mapping[str, Any], outputs: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    """The placeholders that `outputs` depend on, and the tensors that the user cuts at."""
    cut = {tensor: name for name, tensor in given.items()}
    found: dict[str, str] = {}
    pending = list(outputs.values())
    seen = set(pending)
    while pending:
        tensor = pending.pop()
        node = nodes[tensor.partition(":")[0]]
        if tensor in cut or node.op in PLACEHOLDERS:
            found[tensor] = cut.get(tensor, tensor)
            continue
        for edge in node.input:
            name, _, index = edge.lstrip("^").partition(":")
            reached = f"{name}:{index or 0}"
            if reached not in seen and name in nodes:
                seen.add(reached)
                pending.append(reached)
    order = {name: i for i, name in enumerate(nodes)}
    tensors = sorted(found, key=lambda t: (order[t.partition(":")[0]], t))
    return {found[tensor]: tensor for tensor in tensors}

"""One spelling for what ONNX files spell in several ways; nothing that decides a result.

Weights among the inputs, sparse constants, dimensions of -1, nodes without a name, and `ai.onnx`,
the other name of the default domain.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx

from infc.diagnostics import Diagnostic, Severity
from infc.frontends.findings import Findings, quoted
from infc.frontends.onnx_context import subgraphs
from infc.frontends.onnx_shapes import usable
from infc.frontends.onnx_tensors import dense


def tidy(model: onnx.ModelProto) -> None:
    """Domains, dimensions, the graph's name, and the IR version."""
    model.ClearField("training_info")
    model.ir_version = max(model.ir_version, 4)  # where initializers need not be inputs
    if not model.graph.name or not isinstance(model.graph.name, str):
        model.graph.name = "main"
    _tidy_nodes(model.graph.node)
    _tidy_values(model.graph)
    for function in model.functions:
        if function.domain == "ai.onnx":
            function.domain = ""
        _tidy_nodes(function.node)


def _tidy_nodes(nodes: Sequence[onnx.NodeProto]) -> None:
    for node in nodes:
        if node.domain == "ai.onnx":
            node.domain = ""
        for graph in subgraphs(node):
            _tidy_nodes(graph.node)
            _tidy_values(graph)


def _tidy_values(graph: onnx.GraphProto) -> None:
    """A dimension of -1 is how some exporters write a dynamic one."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value == -1:
                dim.ClearField("dim_value")
            if dim.HasField("dim_param") and not usable(dim.dim_param):
                dim.ClearField("dim_param")


def densify(model: onnx.ModelProto, findings: Findings) -> None:
    """Sparse constants become dense ones, as every runtime makes them: onnx_ir has no sparse."""
    try:
        _densify_graph(model.graph)
        for function in model.functions:
            _densify_nodes(function.node)
    except ValueError as error:
        findings.add("E104", str(error))


def _densify_graph(graph: onnx.GraphProto) -> None:
    for sparse in graph.sparse_initializer:
        graph.initializer.add().CopyFrom(dense(sparse))
    del graph.sparse_initializer[:]
    _densify_nodes(graph.node)


def _densify_nodes(nodes: Sequence[onnx.NodeProto]) -> None:
    for node in nodes:
        for graph in subgraphs(node):
            _densify_graph(graph)
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor") and attribute.name == "sparse_value":
                attribute.t.CopyFrom(dense(attribute.sparse_tensor))
                attribute.ClearField("sparse_tensor")
                attribute.type, attribute.name = attribute.TENSOR, "value"


def drop_default_inputs(
    model: onnx.ModelProto, overridable: bool, asked_for: Collection[str], findings: Findings
) -> list[Diagnostic]:
    """Initializers that are also inputs become constants, as IR version 3 means them.

    From IR version 4 on such an input is one with a default that a caller may override. Most
    files that have them were written by exporters that list every weight. One that `--input`
    names becomes an input without a default.
    """
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    for value in graph.input:
        tensor = constants.get(value.name)
        kind = value.type.tensor_type
        if tensor is not None and kind.elem_type not in (0, tensor.data_type):
            what = f"initializer {quoted(tensor.name)} is of another type than the input it is for"
            findings.add("E104", what, graph.name)
    both = [v.name for v in graph.input if v.name in constants]
    wanted = {name for name in both if name in asked_for}
    if wanted and not overridable:
        for name in sorted(wanted):
            findings.add(
                "E106",
                f"{quoted(name)} is a constant of the model, not an input of it",
                help="before IR version 4 every initializer is listed among the inputs",
            )
        return []
    inputs = [v for v in graph.input if v.name not in constants or v.name in wanted]
    dropped = [name for name in both if name not in wanted]
    kept = [type(v).FromString(v.SerializeToString()) for v in inputs]
    del graph.input[:]
    graph.input.extend(kept)
    for i in reversed([i for i, t in enumerate(graph.initializer) if t.name in wanted]):
        del graph.initializer[i]
    if not dropped or not overridable:
        return []
    what, plural = "1 input with a default value is", "a constant"
    if len(dropped) > 1:
        what, plural = f"{len(dropped)} inputs with a default value are", "constants"
    shown = ", ".join(map(quoted, dropped[:3])) + (", ..." if len(dropped) > 3 else "")
    return [
        Diagnostic(
            "E109",
            f"{what} treated as {plural}: {shown}",
            where=findings.file,
            help="`--input NAME=SHAPE` keeps one of them as an input",
            severity=Severity.NOTE,
        )
    ]


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a name of its own: reports and diagnostics go by it."""
    scopes: list[Sequence[onnx.NodeProto]] = [model.graph.node]
    scopes += [function.node for function in model.functions]
    for nodes in scopes:
        taken: set[str] = set()
        _keep_names(nodes, taken)
        _make_names(nodes, taken, {})


def _keep_names(nodes: Sequence[onnx.NodeProto], taken: set[str]) -> None:
    for node in nodes:
        if node.name in taken:
            node.name = ""
        elif node.name:
            taken.add(node.name)
        for graph in subgraphs(node):
            _keep_names(graph.node, taken)


def _make_names(nodes: Sequence[onnx.NodeProto], taken: set[str], counts: dict[str, int]) -> None:
    for node in nodes:
        while not node.name:
            number = counts[node.op_type] = counts.get(node.op_type, -1) + 1
            name = f"{node.op_type}_{number}"
            if name not in taken:
                taken.add(name)
                node.name = name
        for graph in subgraphs(node):
            _make_names(graph.node, taken, counts)

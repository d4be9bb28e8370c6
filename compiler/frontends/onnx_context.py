"""Where a walk through an ONNX model is, so that what it finds has a place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import onnx

from infc.frontends.findings import Findings, printable

FunctionId = tuple[str, str, str]
"""Domain, name, overload."""


@dataclass(frozen=True, slots=True)
class Context:
    """Where the walk is: the graph's label, its opsets, the functions it may call.

    `parameters` are the attributes of the function around; None in the main graph.
    """

    findings: Findings
    label: str
    opsets: Mapping[str, int]
    functions: Mapping[FunctionId, onnx.FunctionProto]
    parameters: Collection[str] | None = None

    def place(self, node: onnx.NodeProto, index: int) -> str:
        """`graph/node (Op-version)`; a node without a name goes by its number."""
        name = printable(str(node.name)) if node.name else f"#{index}"
        version = self.opsets.get(node.domain)
        op = printable(str(node.op_type)) + (f"-{version}" if version is not None else "")
        return f"{self.label}/{name} ({op})"


def context_of(model: onnx.ModelProto, findings: Findings) -> Context:
    """The context of the main graph."""
    return Context(
        findings,
        printable(str(model.graph.name)) or "main",
        {o.domain: o.version for o in model.opset_import},
        {function_id(f): f for f in model.functions},
    )


def function_id(item: onnx.FunctionProto | onnx.NodeProto) -> FunctionId:
    """What a function is called by, or what a node calls."""
    name = item.name if isinstance(item, onnx.FunctionProto) else item.op_type
    return item.domain, name, item.overload


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in the attributes of `node`."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs

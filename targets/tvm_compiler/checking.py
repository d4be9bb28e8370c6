"""Which nodes TVM cannot take: those that no static plan holds, or that its importer refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from infc.targets import Unsupported
from infc.targets.tvm_lowering.channels_last import DOMAIN
from infc.targets.tvm_operators import TAKES

if TYPE_CHECKING:
    import onnx

    from infc.targets.tvm_compiler.cpus import Cpu


_KNOWN = TAKES | {"Constant"}


def unsupported(path: Path, cpu: Cpu) -> list[Unsupported]:
    """Every node that is not taken; where all are, the first whose converter refuses."""
    import onnx

    from infc.targets.tvm_compiler.importing import RefusedError, import_model

    model = onnx.load(str(path))
    empty = _without_elements(model)
    found = []
    for node in _nodes(model.graph):
        reason = ""
        if node.domain not in (DOMAIN, "") or (not node.domain and node.op_type not in _KNOWN):
            reason = "it has no place in a static plan, or TVM's importer no converter for it"
        elif not empty.isdisjoint((*node.input, *node.output)):
            reason = "a tensor without elements"
        if reason:
            found.append(Unsupported(node.name, node.op_type, node.domain, reason))
    if found:
        return found
    try:
        import_model(model, cpu)
    except RefusedError as error:
        return [Unsupported(error.node, error.op_type, error.domain, str(error))]
    return []


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Those of `graph` and of the bodies in it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes(body)


def _without_elements(model: onnx.ModelProto) -> frozenset[str]:
    """The tensors that have a dimension of 0."""
    graph = model.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    named = {
        v.name
        for v in values
        if any(d.HasField("dim_value") and not d.dim_value for d in v.type.tensor_type.shape.dim)
    }
    # An operand that is left out may be written as an empty constant: Resize's `roi`.
    return frozenset(named - {t.name for t in graph.initializer})

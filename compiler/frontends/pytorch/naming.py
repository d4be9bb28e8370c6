"""The user's names in an exported graph, and nothing of the machine that it was made on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infc.frontends.pytorch.exporting import Exported
from infc.frontends.pytorch.flat import INNER

if TYPE_CHECKING:
    import onnx_ir as ir

EXTERNAL_FROM_BYTES = 64 << 20
"""Graphs with less in weights are one file."""
_SYMBOL = re.compile(r"\b[su]\d+\b")
_NAME = re.compile(r"[^\W\d][\w.]*")
_SCOPES = "pkg.torch.onnx.name_scopes"
_GENERATED = re.compile(r"[^\w.]+")


def write(exported: Exported, inputs: Sequence[str], outputs: Sequence[str], path: Path) -> None:
    """Name what is in the graph and write it to `path`; many weights go beside it."""
    import onnx_ir as ir

    model = exported.model
    graph = model.graph
    _own_outputs(graph)
    _free([*inputs, *outputs], graph)
    for names, values in ((inputs, graph.inputs), (outputs, graph.outputs)):
        assert len(names) == len(values), (names, [v.name for v in values])
        for name, value in zip(names, values, strict=True):
            value.name = name
    _name_weights(graph)
    _name_nodes(graph)
    _name_dims(graph, exported.symbols)
    _forget(model)
    total = sum(t.nbytes for v in graph.initializers.values() if (t := v.const_value) is not None)
    data = f"{path.name}.data" if total > EXTERNAL_FROM_BYTES else None
    ir.save(model, path, external_data=data)


def _own_outputs(graph: ir.Graph) -> None:
    """Give an output that is an input, a weight or another output a value of its own."""
    import onnx_ir as ir

    seen: set[int] = set()
    for i, value in enumerate(graph.outputs):
        if value.producer() is not None and id(value) not in seen:
            seen.add(id(value))
            continue
        node = ir.node("Identity", [value])
        own = node.outputs[0]
        own.type, own.shape, own.name = value.type, value.shape, f"infc_output_{i}"
        graph.append(node)
        graph.outputs[i] = own


def _free(wanted: Sequence[str], graph: ir.Graph) -> None:
    """Rename whatever in the graph has a name that an input or output is to get."""
    names = set(wanted)
    values = [*graph.inputs, *graph.initializers.values(), *_results(graph)]
    taken = {v.name for v in values} | names
    for value in values:
        if value.name in names:
            value.name = _another(value.name, taken)


def _results(graph: ir.Graph) -> list[ir.Value]:
    """What the nodes make, in the graphs in nodes as well."""
    return [value for node in graph.all_nodes() for value in node.outputs]


def _name_weights(graph: ir.Graph) -> None:
    """The names that the weights have in the user's module."""
    taken = {v.name for v in (*graph.inputs, *_results(graph), *graph.initializers.values())}
    for value in list(graph.initializers.values()):
        name = (value.name or "").removeprefix(f"{INNER}.")
        if name != value.name:
            value.name = name if name not in taken else _another(name, taken)
            taken.add(value.name)


def _name_nodes(graph: ir.Graph) -> None:
    """A node is called after the submodule that it is of: `encoder.layer.0.query/MatMul`."""
    taken: set[str | None] = set()
    for node in graph.all_nodes():
        scopes = node.metadata_props.get(_SCOPES)
        if scopes:
            parts = [s for s in re.findall(r"'([^']*)'", scopes)[:-1] if s.startswith(INNER)]
            scope = parts[-1].removeprefix(INNER).lstrip(".") if parts else ""
        else:
            scope = (node.name or "").strip("/").rpartition("/")[0]
            scope = scope.removeprefix(INNER).strip("/").rpartition("/")[2]
        name = f"{scope}/{node.op_type}" if scope else node.op_type
        node.name = _another(name, taken) if name in taken else name
        taken.add(node.name)


def _another(name: str | None, taken: set[str | None]) -> str:
    number = 2
    while f"{name}_{number}" in taken:
        number += 1
    taken.add(f"{name}_{number}")
    return f"{name}_{number}"


def _name_dims(graph: ir.Graph, symbols: dict[str, str]) -> None:
    """The user's names for symbols, in the interface; what is inside is inferred again."""
    import onnx_ir as ir

    known = dict(symbols)
    users = {d.value for v in graph.inputs for d in v.shape or () if not isinstance(d, int)}
    interface = {id(v) for v in (*graph.inputs, *graph.outputs)}
    for value in _results(graph):
        if id(value) not in interface:
            value.shape = None
    for value in (*graph.inputs, *graph.outputs):
        if value.shape is None:
            continue
        dims: list[int | str | None] = []
        for axis, dim in enumerate(value.shape):
            if isinstance(dim, int):
                dims.append(dim)
                continue
            text = dim.value or ""
            if text.isdecimal():
                dims.append(int(text))
                continue
            # A value that the exporter for TorchScript cannot tell the size of: `Loopx.3_dim_0`.
            names = [text] if _NAME.fullmatch(text) and text not in users else []
            for symbol in names or _SYMBOL.findall(text):
                known.setdefault(symbol, f"{value.name}_dim{axis}")
            dims.append(known.get(text) or _SYMBOL.sub(lambda m: known[m[0]], text) or None)
        value.shape = ir.Shape(dims)


def _forget(model: ir.Model) -> None:
    """Paths, stacks and the exporter's notes."""
    graph = model.graph
    model.metadata_props.clear()
    model.doc_string = graph.doc_string = None
    graph.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values(), *_results(graph)):
        value.metadata_props.clear()
        value.doc_string = None
    for holder in (graph, *(f.graph for f in model.functions.values())):
        for node in holder.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None

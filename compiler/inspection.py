"""What is in a model file or a bundle, read without running anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import bundle
from infc.diagnostics import fail
from infc.frontends.sniff import Kind, sniff

if TYPE_CHECKING:
    import onnx_ir as ir

_DTYPES = {"FLOAT": "float32", "DOUBLE": "float64"}


def inspect(path: Path) -> dict[str, Any]:
    """Describe the model file or bundle `path`; `kind` is `bundle` or the model's kind.

    Raises:
        InfcError: E100, E101 or E102 for a model, E702 for a damaged bundle.
    """
    if path.name == bundle.MANIFEST:
        path = path.parent
    if path.is_dir() and not (path / "saved_model.pb").exists():
        return _bundle(path)
    kind = sniff(path)
    if kind is Kind.ONNX:
        return _onnx(path)
    raise fail(
        "E101",
        f"`{path}` is {kind.value}, which this version of infc does not read",
        help="convert it to ONNX first",
    )


def _bundle(path: Path) -> dict[str, Any]:
    opened = bundle.open_bundle(path)
    files: Mapping[str, Mapping[str, Any]] = opened.manifest["files"]
    return {
        "kind": "bundle",
        "path": str(path),
        "bytes": sum(row["bytes"] for row in files.values()),
        "manifest": dict(opened.manifest),
    }


def _onnx(path: Path) -> dict[str, Any]:
    import onnx_ir as ir

    try:
        model = ir.load(path)
        return _describe(model, path)
    except OSError as error:
        raise fail("E100", f"`{path}` cannot be read: {error.strerror or error}") from error
    except Exception as error:  # protobuf's and onnx_ir's own errors, of many types
        raise fail("E102", f"`{path}` is not a well-formed ONNX file: {error}") from error


def _describe(model: ir.Model, path: Path) -> dict[str, Any]:
    tensors = list(_tensors(model))
    operators = Counter(
        f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in model.graph.all_nodes()
    )
    initializers = set(model.graph.initializers)
    return {
        "kind": "onnx",
        "path": str(path),
        "bytes": path.stat().st_size,
        "ir_version": model.ir_version,
        "producer": " ".join(filter(None, (model.producer_name, model.producer_version))),
        "graph": model.graph.name or "",
        "opsets": {domain or "ai.onnx": v for domain, v in sorted(model.opset_imports.items())},
        "inputs": [_value(v) for v in model.graph.inputs if v.name not in initializers],
        "outputs": [_value(v) for v in model.graph.outputs],
        "parameters": {
            "tensors": len(tensors),
            "elements": sum(t.size for t in tensors),
            "bytes": sum(t.nbytes for t in tensors),
        },
        "nodes": sum(operators.values()),
        "operators": dict(sorted(operators.items(), key=lambda row: (-row[1], row[0]))),
        "functions": sorted(
            f"{domain}.{name}" if domain else name for domain, name, _ in model.functions
        ),
        "external_data": _external_data(model, path.parent),
        "metadata": dict(sorted(model.metadata_props.items())),
    }


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every weight: initializers and the values of Constant nodes, in all graphs and functions."""
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    for graph in (inner for outer in graphs for inner in (outer, *outer.subgraphs())):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
    for node in (node for graph in graphs for node in graph.all_nodes()):
        attribute = node.attributes.get("value") if node.op_type == "Constant" else None
        if attribute is not None and hasattr(attribute.value, "nbytes"):
            yield attribute.value


def _value(value: ir.Value) -> dict[str, Any]:
    dtype = value.dtype.name if value.dtype is not None else "unknown"
    shape = None
    if value.shape is not None:
        shape = [d if isinstance(d, int) else d.value for d in value.shape]
    return {"name": value.name or "", "dtype": _DTYPES.get(dtype, dtype.lower()), "shape": shape}


def _external_data(model: ir.Model, folder: Path) -> list[dict[str, Any]]:
    """Each file that holds weights: what is expected of it, and whether it is there.

    A path that leaves the model's folder is reported, never followed.
    """
    import onnx_ir as ir

    wanted: dict[str, int] = {}
    for tensor in _tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            end = (tensor.offset or 0) + tensor.nbytes
            location = str(tensor.location)
            wanted[location] = max(wanted.get(location, 0), end)
    rows = []
    for location, needed in sorted(wanted.items()):
        file = folder / location
        size = None
        if not file.resolve().is_relative_to(folder.resolve()):
            state = "outside the model's folder"
        elif not file.is_file():
            state = "missing"
        else:
            size = file.stat().st_size
            state = "present" if size >= needed else f"too short: {needed} bytes are needed"
        rows.append({"file": location, "bytes": size, "state": state})
    return rows

"""What is in a model file, a bundle or a ranges file, read without running or checking anything.

A model is described as it lies in the file, so that one that no compiler takes can be looked at
all the same: only its container has to hold together. No framework is imported.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import bundle
from infc.diagnostics import fail, printable
from infc.frontends import containers
from infc.frontends.sniff import EXPORT, Kind, sniff

if TYPE_CHECKING:
    import onnx

MAX_RANK = 64
"""A tensor of a higher rank is no tensor; the product of a million dimensions takes minutes."""


def inspect(path: Path) -> dict[str, Any]:
    """Describe `path`; `kind` is `bundle`, `ranges` or the kind of the model.

    Raises:
        InfcError: E100 to E102 for what is no model or damaged ONNX, E116 and E117 for other
            containers that are unsafe or damaged, E501 where h5py is needed and missing, E702 for a
            damaged bundle, E411 for damaged ranges.
    """
    from infc.calibration.describing import describe
    from infc.calibration.ranges import is_ranges

    if path.name == bundle.MANIFEST:
        path = path.parent
    if path.is_dir() and not _may_be_model(path):
        return _bundle(path)
    if path.is_file() and is_ranges(path):
        return describe(path)
    kind = sniff(path)
    if kind is Kind.ONNX:
        return _onnx(path)
    return _container(path, kind)


def _may_be_model(folder: Path) -> bool:
    """Whether a folder without a manifest has in it what TensorFlow or Hugging Face writes."""
    patterns = ("saved_model.pb*", "*/saved_model.pb*", "*.index", "*.index.json")
    return not (folder / bundle.MANIFEST).exists() and any(
        next(folder.glob(pattern), None) is not None for pattern in patterns
    )


def _container(path: Path, kind: Kind) -> dict[str, Any]:
    """A model that is not ONNX; `unit` is what its operators are called there."""
    found = containers.describe(path, kind)
    if found is None:
        what = f"`{path}` is {kind.value}, which infc does not look into"
        raise fail("E101", what, help=EXPORT.get(kind, "`infc compile` makes the model"))
    files = containers.files_of(path, kind)
    described = found.to_json()
    return {
        "kind": described.pop("kind"),
        "path": str(path),
        "bytes": sum(file.stat().st_size for file in files),
        "unit": {"KERAS": "layers", "HDF5": "layers", "TORCHSCRIPT": "calls"}.get(
            kind.name, "nodes"
        ),
        **described,
    }


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
    from infc.frontends.onnx import read
    from infc.frontends.onnx_tensors import all_tensors, byte_size

    model, sha256 = read(path)
    tensors = [t for t, _ in all_tensors(model) if min(t.dims, default=0) >= 0]
    tensors = [t for t in tensors if len(t.dims) <= MAX_RANK]
    operators = Counter(_qualified(n.domain, n.op_type) for n in _nodes(model.graph))
    initializers = {t.name for t in model.graph.initializer}
    return {
        "kind": "onnx",
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": sha256,
        "ir_version": model.ir_version,
        "producer": f"{_text(model.producer_name)} {_text(model.producer_version)}".strip(),
        "graph": _text(model.graph.name),
        "opsets": {_text(o.domain) or "ai.onnx": o.version for o in model.opset_import},
        "inputs": [_value(v) for v in model.graph.input if v.name not in initializers],
        "outputs": [_value(v) for v in model.graph.output],
        "parameters": {
            "tensors": len(tensors),
            "elements": sum(math.prod(t.dims) for t in tensors),
            "bytes": sum(byte_size(t) for t in tensors),
        },
        "nodes": operators.total(),
        "operators": dict(sorted(operators.items(), key=lambda row: (-row[1], row[0]))),
        "functions": sorted(_qualified(f.domain, f.name) for f in model.functions),
        "external_data": _external_data(tensors, path.parent),
        "metadata": {_text(p.key): _text(p.value) for p in model.metadata_props},
    }


def _text(value: str | bytes) -> str:
    """A name from the file; protobuf gives bytes where they are not UTF-8."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    return printable(text)


def _qualified(domain: str | bytes, name: str | bytes) -> str:
    return f"{_text(domain)}.{_text(name)}" if domain not in ("", "ai.onnx") else _text(name)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of `graph` and of the graphs inside it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes(inner)


def _value(value: onnx.ValueInfoProto) -> dict[str, Any]:
    """An input or output; `dtype` is the kind of type for what is not a dense tensor."""
    kind = value.type.WhichOneof("value") or "unknown"
    dtype, shape = kind.removesuffix("_type").replace("_", " "), None
    if kind == "tensor_type":
        tensor = value.type.tensor_type
        dtype = _dtype(tensor.elem_type)
        if tensor.HasField("shape"):
            shape = [_dim(dim) for dim in tensor.shape.dim]
    return {"name": _text(value.name), "dtype": dtype, "shape": shape}


def _dtype(elem_type: int) -> str:
    """The name of an ONNX element type, as in numpy: `float32` for FLOAT."""
    import onnx

    names: dict[int, str] = {n: name for name, n in onnx.TensorProto.DataType.items()}
    name = names.get(elem_type, f"type {elem_type}").lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    kind = dim.WhichOneof("value")
    if kind == "dim_value":
        return int(dim.dim_value)
    return _text(dim.dim_param) if kind == "dim_param" and dim.dim_param else None


def _external_data(tensors: list[onnx.TensorProto], folder: Path) -> list[dict[str, Any]]:
    """Each file that holds weights: what is expected of it, and whether it is there.

    A path that leaves the model's folder is reported, never followed.
    """
    from infc.frontends.onnx_tensors import byte_size, is_external

    wanted: dict[str, int] = {}
    for tensor in filter(is_external, tensors):
        entries = {_text(entry.key): _text(entry.value) for entry in tensor.external_data}
        offset = entries.get("offset", "0")
        end = (int(offset) if offset.isdecimal() and len(offset) < 20 else 0) + byte_size(tensor)
        location = entries.get("location", "")
        wanted[location] = max(wanted.get(location, 0), end)
    return [_external_file(folder, *row) for row in sorted(wanted.items())]


def _external_file(folder: Path, location: str, needed: int) -> dict[str, Any]:
    size, state = None, "present"
    try:
        file = (folder / location).resolve()
        if not file.is_relative_to(folder.resolve()):
            state = "outside the model's folder"
        elif not file.is_file():
            state = "missing"
        else:
            size = file.stat().st_size
            state = state if size >= needed else f"too short: {needed} bytes are needed"
    except (OSError, ValueError) as error:  # no path at all: too long, a null byte
        state = f"unusable: {error}"
    return {"file": location, "bytes": size, "state": state}

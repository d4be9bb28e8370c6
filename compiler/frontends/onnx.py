"""The ONNX frontend: IR version 3 and later, opset 7 and later, weights left where they are.

External tensors are memory-mapped by onnx_ir and read only when something asks for their values;
before that, their location, offset and length are checked, because a model file is untrusted.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from infc.diagnostics import fail
from infc.frontends import Reference, Source
from infc.frontends.findings import Findings, printable, quoted
from infc.input_spec import InputSpec
from infc.signature import DTYPES, TensorSpec

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from infc.frontends.onnx_shapes import Bounds

MIN_IR_VERSION = 3
MIN_OPSET = 7
MAX_FILE_BYTES = 2**31 - 1
"""What protobuf can read; larger models keep their weights in external data."""


def load(path: Path, inputs: Sequence[InputSpec] = ()) -> Source:
    """Read `path` into a `Source`.

    Raises:
        InfcError: E100 to E108, as many of them as can be found at once.
    """
    from infc.frontends import (
        onnx_context,
        onnx_external,
        onnx_inference,
        onnx_shapes,
        onnx_structure,
        onnx_tidy,
    )

    proto, digest = read(path)
    findings = Findings(path.name)
    _check_versions(proto, findings)
    findings.stop_here()
    overridable = proto.ir_version >= 4
    onnx_tidy.tidy(proto)
    onnx_structure.check_structure(proto, findings)
    folder = path.absolute().parent
    pieces = onnx_external.check_external(proto, folder, findings)
    findings.stop_here()

    onnx_tidy.densify(proto, findings)
    notes = onnx_tidy.drop_default_inputs(proto, overridable, {s.name for s in inputs}, findings)
    onnx_shapes.name_dims(proto.graph)
    bounds = onnx_shapes.apply_inputs(proto.graph, inputs, findings)
    findings.stop_here()
    onnx_inference.infer(proto, onnx_context.context_of(proto, findings))
    _check_interface(proto.graph, findings)
    findings.stop_here()

    onnx_tidy.name_nodes(proto)
    model = _deserialize(proto, folder, path)
    return Source(
        path=path,
        kind="onnx",
        model=model,
        inputs=tuple(spec_of(v, bounds) for v in model.graph.inputs),
        outputs=tuple(spec_of(v, bounds) for v in model.graph.outputs),
        digest=cache(lambda: onnx_external.sha256_with(digest, pieces)),
        reference=Reference("infc.targets.onnxruntime", path, {"graph-optimization": "off"}),
        notes=tuple(notes),
    )


def spec_of(value: ir.Value, bounds: Bounds | None = None) -> TensorSpec:
    """The signature of a graph input or output, with the bounds of its symbols.

    Raises:
        InfcError: E108 where its type is not known.
    """
    if value.dtype is None:
        raise fail("E108", f"the type of {quoted(value.name)} is unknown")
    name, dtype = value.name or "", value.dtype.numpy().name
    if value.shape is None:
        return TensorSpec(name, dtype, None)
    dims = tuple(d if isinstance(d, int) else d.value for d in value.shape)
    mine = {d: (bounds or {})[d] for d in dims if isinstance(d, str) and d in (bounds or {})}
    return TensorSpec(name, dtype, dims, mine or None)


def read(path: Path) -> tuple[onnx.ModelProto, str]:
    """Parse `path`; return the model and the SHA-256 of the bytes that were parsed.

    Raises:
        InfcError: E100, E102.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        # Non-blocking: opening a fifo must not wait for someone to write to it.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise fail("E100", f"`{path}` is not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise fail(
                    "E102",
                    f"`{path}` has {status.st_size:,} bytes, more than a protobuf can hold",
                    help="save the model with external data",
                )
            data = stream.read(MAX_FILE_BYTES)
    except OSError as error:
        raise fail("E100", f"`{path}` cannot be read: {error.strerror}") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise fail(
            "E102",
            f"`{path}` does not parse as an ONNX model ({len(data):,} bytes)",
            help="it is truncated or damaged, or no ONNX file: download or export it again",
        ) from error
    if not model.HasField("graph"):
        raise fail("E102", f"`{path}` holds no graph", help="it is damaged, or no ONNX model")
    return model, hashlib.sha256(data).hexdigest()


def _check_versions(model: onnx.ModelProto, findings: Findings) -> None:
    """E105, and `ai.onnx`, the default domain's other name, made one with it."""
    import onnx

    newest_ir, newest_opset = onnx.IR_VERSION, onnx.defs.onnx_opset_version()
    too_new = f"it is newer than this onnx ({onnx.__version__}): `pip install -U onnx`"
    too_old = "convert it with onnx.version_converter, or export it again"
    if not MIN_IR_VERSION <= model.ir_version <= newest_ir:
        findings.add(
            "E105",
            f"IR version {model.ir_version} is outside {MIN_IR_VERSION} to {newest_ir}",
            help=too_new if model.ir_version > newest_ir else too_old,
        )
    for holder in (model, *model.functions):
        seen: dict[str, int] = {}
        for row in holder.opset_import:
            if not isinstance(row.domain, str):
                findings.add("E102", f"the domain {quoted(row.domain)} is not UTF-8")
                continue
            row.domain = "" if row.domain == "ai.onnx" else row.domain
            if seen.setdefault(row.domain, row.version) != row.version:
                what = quoted(row.domain or "ai.onnx")
                findings.add("E104", f"the model imports two opsets of {what}")
            least, most = (MIN_OPSET, newest_opset) if not row.domain else (1, 2**31 - 1)
            if not least <= row.version <= most:
                findings.add(
                    "E105",
                    f"opset {row.version} of {quoted(row.domain or 'ai.onnx')} "
                    f"is outside {least} to {most}",
                    help=too_new if row.version > most else too_old,
                )
    if not model.opset_import:
        findings.add("E105", "the model does not say which opset it uses", help=too_old)


def _check_interface(graph: onnx.GraphProto, findings: Findings) -> None:
    """Only plain tensors of plain numbers can cross the loader's C interface."""
    from infc.frontends.onnx_types import spell_type

    for what, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            kind = spell_type(value.type)
            if kind is None:
                findings.add("E108", f"the type of {what} {quoted(value.name)} is unknown")
            elif kind not in _INTERFACE_TYPES:
                findings.add(
                    "E108",
                    f"{what} {quoted(value.name)} is {kind}, which cannot cross the interface",
                    help="make it a dense tensor of numbers where the model is exported",
                )


_INTERFACE_TYPES = {
    f"tensor({ {'float32': 'float', 'float64': 'double'}.get(name, name) })" for name in DTYPES
}


def _deserialize(proto: onnx.ModelProto, folder: Path, path: Path) -> ir.Model:
    import onnx_ir as ir
    from onnx_ir.external_data import set_base_dir

    try:
        model = ir.serde.deserialize_model(proto)
        for graph in (model.graph, *(f.graph for f in model.functions.values())):
            set_base_dir(graph, folder)
    except Exception as error:
        cause = error
        while cause.__cause__ is not None and isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        text = printable(str(cause).partition("\n")[0])
        raise fail("E102", f"`{path}` is not a well-formed ONNX model: {text}") from error
    return model

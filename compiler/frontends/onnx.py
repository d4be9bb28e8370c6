"""The ONNX frontend: IR version 3 and later, opset 7 and later, weights left where they are.

External tensors are memory-mapped by onnx_ir and read only when something asks for their values;
before that, their location, offset and length are checked, because a model file is untrusted.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infc.diagnostics import Diagnostic, Severity, fail
from infc.frontends import Reference, Source
from infc.frontends.findings import Findings, printable, quoted
from infc.request import InputSpec
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
    from infc.frontends import onnx_external, onnx_inference, onnx_shapes, onnx_structure

    proto, digest = read(path)
    findings = Findings(path.name)
    _check_versions(proto, findings)
    findings.stop_here()
    overridable = proto.ir_version >= 4
    _tidy(proto)
    onnx_structure.check_structure(proto, findings)
    folder = path.absolute().parent
    pieces = onnx_external.check_external(proto, folder, findings)
    findings.stop_here()

    _densify(proto, findings)
    notes = _drop_default_inputs(proto, overridable, {s.name for s in inputs}, findings)
    onnx_shapes.name_dims(proto.graph)
    bounds = onnx_shapes.apply_inputs(proto.graph, inputs, findings)
    findings.stop_here()
    onnx_inference.infer(proto, onnx_structure.context_of(proto, findings))
    _check_interface(proto.graph, findings)
    findings.stop_here()

    _name_nodes(proto)
    model = _deserialize(proto, folder, path)
    return Source(
        path=path,
        kind="onnx",
        model=model,
        inputs=tuple(spec_of(v, bounds) for v in model.graph.inputs),
        outputs=tuple(spec_of(v, bounds) for v in model.graph.outputs),
        sha256=onnx_external.sha256_with(digest, pieces),
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
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

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


def _tidy(model: onnx.ModelProto) -> None:
    """Spell in one way what files spell in several; nothing that decides a result."""
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
    from infc.frontends.onnx_structure import subgraphs

    for node in nodes:
        if node.domain == "ai.onnx":
            node.domain = ""
        for graph in subgraphs(node):
            _tidy_nodes(graph.node)
            _tidy_values(graph)


def _tidy_values(graph: onnx.GraphProto) -> None:
    """A dimension of -1 is how some exporters write a dynamic one."""
    from infc.frontends.onnx_shapes import usable

    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value == -1:
                dim.ClearField("dim_value")
            if dim.HasField("dim_param") and not usable(dim.dim_param):
                dim.ClearField("dim_param")


def _densify(model: onnx.ModelProto, findings: Findings) -> None:
    """Sparse constants become dense ones, as every runtime makes them: onnx_ir has no sparse."""
    try:
        _densify_graph(model.graph)
        for function in model.functions:
            _densify_nodes(function.node)
    except ValueError as error:
        findings.add("E104", str(error))


def _densify_graph(graph: onnx.GraphProto) -> None:
    from infc.frontends.onnx_tensors import dense

    for sparse in graph.sparse_initializer:
        graph.initializer.add().CopyFrom(dense(sparse))
    del graph.sparse_initializer[:]
    _densify_nodes(graph.node)


def _densify_nodes(nodes: Sequence[onnx.NodeProto]) -> None:
    from infc.frontends.onnx_structure import subgraphs
    from infc.frontends.onnx_tensors import dense

    for node in nodes:
        for graph in subgraphs(node):
            _densify_graph(graph)
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor") and attribute.name == "sparse_value":
                attribute.t.CopyFrom(dense(attribute.sparse_tensor))
                attribute.ClearField("sparse_tensor")
                attribute.type, attribute.name = attribute.TENSOR, "value"


def _drop_default_inputs(
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
    shown = ", ".join(map(quoted, dropped[:3])) + (", ..." if len(dropped) > 3 else "")
    return [
        Diagnostic(
            "E109",
            f"{len(dropped)} inputs with a default value are treated as constants: {shown}",
            where=findings.file,
            help="`--input NAME=SHAPE` keeps one of them as an input",
            severity=Severity.NOTE,
        )
    ]


def _check_interface(graph: onnx.GraphProto, findings: Findings) -> None:
    """Only plain tensors of plain numbers can cross the loader's C interface."""
    from infc.frontends.onnx_inference import spell_type

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


def _name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a name of its own: reports and diagnostics go by it."""
    scopes: list[Sequence[onnx.NodeProto]] = [model.graph.node]
    scopes += [function.node for function in model.functions]
    for nodes in scopes:
        taken: set[str] = set()
        _keep_names(nodes, taken)
        _make_names(nodes, taken, {})


def _keep_names(nodes: Sequence[onnx.NodeProto], taken: set[str]) -> None:
    from infc.frontends.onnx_structure import subgraphs

    for node in nodes:
        if node.name in taken:
            node.name = ""
        elif node.name:
            taken.add(node.name)
        for graph in subgraphs(node):
            _keep_names(graph.node, taken)


def _make_names(nodes: Sequence[onnx.NodeProto], taken: set[str], counts: dict[str, int]) -> None:
    from infc.frontends.onnx_structure import subgraphs

    for node in nodes:
        while not node.name:
            number = counts[node.op_type] = counts.get(node.op_type, -1) + 1
            name = f"{node.op_type}_{number}"
            if name not in taken:
                taken.add(name)
                node.name = name
        for graph in subgraphs(node):
            _make_names(graph.node, taken, counts)


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

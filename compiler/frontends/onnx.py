"""The ONNX frontend: IR version 3 and later, opset 7 and later, weights left where they are.

External tensors are memory-mapped by onnx_ir and read only when something asks for their values;
before that, their location, offset and length are checked, because a model file is untrusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infc.bundle import sha256_of
from infc.diagnostics import fail
from infc.frontends import Reference, Source
from infc.request import InputSpec
from infc.signature import TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir

MIN_IR_VERSION = 3
MIN_OPSET = 7


def load(path: Path, inputs: Sequence[InputSpec] = ()) -> Source:
    """Read `path` into a `Source`.

    Raises:
        InfcError: E102 to E106.
    """
    import onnx_ir as ir

    try:
        model = ir.load(path)
    except Exception as error:
        raise fail("E102", f"`{path}` is not a well-formed ONNX file: {error}") from error
    initializers = {v.name for v in model.graph.initializers.values()}
    model.graph.inputs[:] = [v for v in model.graph.inputs if v.name not in initializers]
    return Source(
        path=path,
        kind="onnx",
        model=model,
        inputs=tuple(spec_of(v) for v in model.graph.inputs),
        outputs=tuple(spec_of(v) for v in model.graph.outputs),
        sha256=sha256_of(path),
        reference=Reference("infc.targets.onnxruntime", path, {"graph-optimization": "off"}),
    )


def spec_of(value: ir.Value) -> TensorSpec:
    """The signature of a graph input or output."""
    dtype = value.dtype.numpy().name if value.dtype is not None else "float32"
    if value.shape is None:
        return TensorSpec(value.name or "", dtype, None)
    dims = tuple(d if isinstance(d, int) else d.value for d in value.shape)
    return TensorSpec(value.name or "", dtype, dims)

"""The exporter for TorchScript, which takes what is traced or scripted."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.frontends.pytorch.calls import Call
from infc.frontends.pytorch.programs import OPSET

if TYPE_CHECKING:
    import onnx_ir as ir

FOLDER = "torchscript"
"""Where the exporter writes, in the scratch folder."""


def is_traceable(flat: Any, call: Call) -> bool:
    """Whether tracing takes down the whole model: nothing in it was made a constant."""
    import torch

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        _traced(flat, call)
    return not any(issubclass(row.category, torch.jit.TracerWarning) for row in seen)


def convert(flat: Any, call: Call, scratch: Path) -> ir.Model:
    """Trace the flat module, in which TorchScript keeps its control flow, and export it."""
    import onnx_ir as ir
    import torch

    names = [f"infc_input_{i}" for i in range(len(call.inputs))]
    axes = {
        name: {axis: label for axis, label in enumerate(i.labels) if label}
        for name, i in zip(names, call.inputs, strict=True)
    }
    folder = scratch / FOLDER
    folder.mkdir()
    path = folder / "model.onnx"
    torch.onnx.export(
        _traced(flat, call),
        call.examples,
        str(path),  # a Path is taken for a stream, which holds 2 GB at most
        dynamo=False,
        opset_version=OPSET,
        input_names=names,
        dynamic_axes={name: labels for name, labels in axes.items() if labels},
    )
    return ir.load(path)


def _traced(flat: Any, call: Call) -> Any:
    import torch

    with torch.no_grad():
        return torch.jit.trace(flat, call.examples, check_trace=False)

"""The exporter for TorchScript, which takes what is traced or scripted."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.frontends.pytorch.calls import Call, Input, filled
from infc.frontends.pytorch.flat import same
from infc.frontends.pytorch.programs import OPSET

if TYPE_CHECKING:
    import onnx_ir as ir

FOLDER = "torchscript"
"""Where the exporter writes, in the scratch folder."""


def is_traceable(flat: Any, call: Call) -> bool:
    """Whether tracing takes down the whole model: no value in it was made a constant, nor a size.

    The first torch says itself; for the second the trace is run at other sizes, beside the model.
    """
    import torch

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        traced = _traced(flat, call)
    library = Path(torch.__file__).parent  # whose own modules check sizes as they are traced
    rows = (row for row in seen if issubclass(row.category, torch.jit.TracerWarning))
    if any(not Path(row.filename).is_relative_to(library) for row in rows):
        return False
    others = _other_sizes(call)
    try:
        with torch.no_grad():
            return same(traced(*others), flat(*others))
    except Exception:  # of any type: the model itself may refuse the size
        return False


def _other_sizes(call: Call) -> list[Any]:
    """Inputs whose dynamic dimensions are one larger than the examples', or one smaller."""
    sizes: dict[str, int] = {}
    for i in call.inputs:
        for axis, label in enumerate(i.labels):
            if label:
                size, most = i.example.shape[axis], (i.dims or ())[axis].high
                sizes.setdefault(label, size - 1 if most is not None and size >= most else size + 1)
    return [
        filled(i.example, [sizes.get(label, size) for label, size in _labelled(i)], i.example.dtype)
        for i in call.inputs
    ]


def _labelled(given: Input) -> list[tuple[str, int]]:
    labels = given.labels or ("",) * given.example.dim()
    return list(zip(labels, given.example.shape, strict=True))


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

    with torch.no_grad(), _exportable():
        return torch.jit.trace(flat, call.examples, check_trace=False)


@contextlib.contextmanager
def _exportable() -> Iterator[None]:
    """Let attention be made of what the exporter takes.

    Its fast path is one operator that ONNX does not have, and of `unflatten`, which the other
    begins with, the exporter does not know the rank (torch 2.13, symbolic_opset13.py).
    """
    import torch

    fast, unflatten = torch.backends.mha.get_fastpath_enabled(), torch.Tensor.unflatten
    torch.backends.mha.set_fastpath_enabled(False)
    torch.Tensor.unflatten = _unflatten
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.Tensor.unflatten = unflatten


def _unflatten(tensor: Any, dim: int, sizes: Sequence[int]) -> Any:
    """`Tensor.unflatten` as a reshape."""
    axis, shape = dim % tensor.dim(), tensor.shape
    return tensor.reshape(*shape[:axis], *sizes, *shape[axis + 1 :])

"""The parameters of `forward`: names from the graph's inputs, types that TorchScript has."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from infc.targets import Unsupported
from infc.targets.torchscript_lowering import DTYPES

if TYPE_CHECKING:
    import onnx_ir as ir


def parameter_names(names: Sequence[str], reserved: Collection[str]) -> list[str]:
    """Identifiers for the inputs: readable, distinct, and apart from all other names."""
    taken = {"self", "torch", "float", "int", "bool", "range", "len", *reserved}
    out = []
    for name in names:
        stem = re.sub(r"\W", "_", name, flags=re.ASCII) or "input"
        if stem[0].isdigit() or keyword.iskeyword(stem) or re.fullmatch(r"[a-z]+\d+", stem):
            stem = f"input_{stem}"
        unique, count = stem, 1
        while unique in taken:
            count += 1
            unique = f"{stem}_{count}"
        taken.add(unique)
        out.append(unique)
    return out


def refused(graph: ir.Graph) -> list[Unsupported]:
    """The inputs and outputs that are not tensors of a type that TorchScript has."""
    import onnx_ir as ir

    found = []
    for values, what in ((graph.inputs, "input"), (graph.outputs, "output")):
        for value in values:
            kind = None if value.dtype is None else value.dtype.name
            tensor = value.type is None or isinstance(value.type, ir.TensorType)
            if not tensor or (kind is not None and kind not in DTYPES):
                reason = f"TorchScript has no element type {kind}" if tensor else "not a tensor"
                found.append(Unsupported(str(value.name), f"graph {what}", "", reason))
    return found

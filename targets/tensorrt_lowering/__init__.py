"""The graph as TensorRT's parser takes it: what it lacks, said otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def lower(model: ir.Model) -> None:
    """Rewrite `model` in place."""

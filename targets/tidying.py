"""The neutral passes that have work again once a back end's rule has fired; none of them fuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

PASSES = (
    ("lift_constants", "LiftConstants"),
    ("inline_constant_if", "InlineConstantIf"),
    ("infer_shapes", "InferShapes"),
    ("fold_shapes", "FoldShapes"),
    ("fold_constants", "FoldConstants"),
    ("eliminate_identity", "EliminateIdentity"),
    ("remove_unused", "RemoveUnused"),
)
"""In this order: the modules of `infc.passes`, and the classes in them."""


def tidy(model: ir.Model) -> None:
    """Fold what a rule has made constant, infer what it has made known, remove what it left."""
    from importlib import import_module

    for module, name in PASSES:
        getattr(import_module(f"infc.passes.{module}"), name)()(model)

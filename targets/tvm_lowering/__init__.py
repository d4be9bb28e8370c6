"""The graph as TVM is best given it: channels last, and what its importer lacks said otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def lower(model: ir.Model) -> None:
    """Rewrite `model` in place."""
    from infc.passes.eliminate_no_ops import EliminateNoOps
    from infc.passes.fold_constants import FoldConstants
    from infc.passes.infer_shapes import InferShapes
    from infc.passes.push_transpose import PushTranspose
    from infc.passes.remove_unused import RemoveUnused
    from infc.targets.tvm_lowering.channels_last import to_channels_last

    InferShapes()(model)
    if to_channels_last(model):
        for _ in range(8):
            modified = False
            for step in (PushTranspose(), EliminateNoOps(), FoldConstants(), RemoveUnused()):
                modified |= bool(step(model).modified)
            if not modified:
                break

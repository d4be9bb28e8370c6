"""The graph as TVM is best given it: channels last, and what its importer lacks said otherwise.

lower = (constants lifted, shapes inferred, function bodies, RULES, empties)*
bfloat16 computed in float32
Q and DQ made sums of integers (integers.py); channels last, transposes cancelled
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.passes.rewriting import Rule

FAMILIES = ("elementwise", "normalization", "recurrent", "resizing", "shaping")
MAX_ROUNDS = 8
FOLDED = frozenset(("Constant", "ConstantOfShape", "Shape", "Size", "Range"))
"""What a function's body computes constants by."""


def lower(model: ir.Model, activation: str = "uint8") -> None:
    """Rewrite `model` in place; `activation` is the type of bytes that integer kernels take."""
    from infc.passes.rewriting import rewrite
    from infc.targets.function_bodies import expand_functions
    from infc.targets.tvm_lowering.channels_last import to_channels_last
    from infc.targets.tvm_lowering.empties import fix_empties
    from infc.targets.tvm_lowering.integers import to_integers
    from infc.targets.tvm_lowering.stored_weights import hide, multiply, restore
    from infc.targets.tvm_lowering.types import widen_bfloat16
    from infc.targets.tvm_operators import TAKES

    stored = hide(model)
    table = rules()
    known = frozenset(("", op_type) for op_type in {*TAKES, *table, *FOLDED})
    for _ in range(MAX_ROUNDS):
        _tidy(model)
        modified = expand_functions(model, known)
        if modified:
            _tidy(model)
        modified |= bool(rewrite(model, table).modified)
        modified |= fix_empties(model)
        if not modified:
            break
    if widen_bfloat16(model):
        _tidy(model)
    integers = to_integers(model, activation)
    moved = to_channels_last(model)
    if stored:
        multiply(model)
        restore(model)
    if moved or integers or stored:
        _cancel_transposes(model)


def rules() -> dict[str, Rule]:
    """All rules, by operator type."""
    from importlib import import_module

    found: dict[str, Rule] = {}
    for family in FAMILIES:
        found |= import_module(f"{__name__}.{family}").RULES
    return found


def _tidy(model: ir.Model) -> None:
    """The neutral passes that have work again once something was written out."""
    from infc.passes.eliminate_identity import EliminateIdentity
    from infc.passes.fold_constants import FoldConstants
    from infc.passes.fold_shapes import FoldShapes
    from infc.passes.infer_shapes import InferShapes
    from infc.passes.inline_constant_if import InlineConstantIf
    from infc.passes.lift_constants import LiftConstants
    from infc.passes.remove_unused import RemoveUnused

    for step in (
        *(LiftConstants(), InlineConstantIf(), InferShapes(), FoldShapes(), FoldConstants()),
        *(EliminateIdentity(), RemoveUnused()),
    ):
        step(model)


def _cancel_transposes(model: ir.Model) -> None:
    from infc.passes.eliminate_no_ops import EliminateNoOps
    from infc.passes.fold_constants import FoldConstants
    from infc.passes.push_transpose import PushTranspose
    from infc.passes.remove_unused import RemoveUnused

    for _ in range(MAX_ROUNDS):
        modified = False
        for step in (PushTranspose(), EliminateNoOps(), FoldConstants(), RemoveUnused()):
            modified |= bool(step(model).modified)
        if not modified:
            break

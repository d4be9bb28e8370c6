"""The graph as TensorRT's parser takes it: what it lacks, said otherwise.

    lower = (constants lifted, shapes inferred, function bodies, RULES)*
            float64 -> float32, small integers -> int32, the opset of the release

int64 stays: TensorRT has it since 10.0. What no rule reaches stays as it is, and is refused by
name (`tensorrt_support`, and by the parser where that is here).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from infc.targets.tidying import tidy

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.passes.rewriting import Rule

MAX_ROUNDS = 4
"""A body may hold what has a rule, and a rule may write what has a body."""
EXPANDED = frozenset(("Attention", "Celu"))
"""Taken by the parser, and refused by what comes after it: Attention without a driver, Celu in
float16."""


def lower(model: ir.Model, release: str) -> None:
    """Rewrite `model` in place for the parser of `release`."""
    from infc.passes.infer_shapes import InferShapes
    from infc.passes.rewriting import rewrite
    from infc.targets.function_bodies import expand_functions
    from infc.targets.tensorrt_lowering import opsets, types
    from infc.targets.tensorrt_operators import taken

    table = rules()
    known = frozenset(("", name) for name in (taken(release) | table.keys()) - EXPANDED)
    InferShapes()(model)
    for _ in range(MAX_ROUNDS):
        modified = expand_functions(model, known)
        if modified:
            tidy(model)
        if rewrite(model, table).modified:
            modified = True
            InferShapes()(model)
        if not modified:
            break
    if types.narrow_doubles(model) or types.widen_small_integers(model):
        tidy(model)
    opsets.lower_opset(model, release)


def rules() -> dict[str, Rule]:
    """All rules, by operator type."""
    from infc.targets.tensorrt_lowering import quantized, recurrent

    return {**quantized.RULES, **recurrent.RULES}

"""The graph as MindSpore Lite 2.0.0 has to be given it: what it gets wrong, said otherwise.

A rule is written down because an operator alone came back wrong, refused or not at all, at one
thread or at four; each module's table says how. Rules rewrite into operators that were measured to
be right (`mindspore_lite_operators`), until none applies:

    lower = (constants lifted, shapes inferred, function bodies, RULES, constants folded)*

What no rule reaches stays as it is, and is refused by name before the converter runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from infc.targets.tidying import tidy

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.passes.rewriting import Rule

FAMILIES = (
    "convolution",
    "elementwise",
    "indexing",
    "logic",
    "matrix",
    "normalization",
    "pooling",
    "recurrent",
    "reduction",
    "resizing",
    "shaping",
    "slicing",
    "trigonometry",
)
MAX_ROUNDS = 12
"""Rules give rise to each other four deep: a body, a Resize of it, its MatMul, their axes."""
FOLDED = frozenset(("Constant", "ConstantOfShape", "Shape", "Size", "Range"))
"""What a function's body computes constants by."""


def lower(model: ir.Model) -> None:
    """Rewrite `model` in place."""
    from infc.passes.infer_shapes import InferShapes
    from infc.passes.rewriting import rewrite
    from infc.targets.function_bodies import expand_functions
    from infc.targets.mindspore_lite_lowering import layout, recurrent
    from infc.targets.mindspore_lite_operators import TAKES

    table = rules()
    known = frozenset(("", op_type) for op_type in {*TAKES, *table, *FOLDED})
    for _ in range(MAX_ROUNDS):
        tidy(model)
        modified = expand_functions(model, known)
        if modified:
            tidy(model)
        modified |= bool(rewrite(model, table).modified)
        if not modified:
            break
    # Last, as the passes above would make of them again what they were.
    rewrite(model, recurrent.FINAL)
    if rewrite(model, layout.FINAL).modified:
        InferShapes()(model)
        rewrite(model, {name: table[name] for name in layout.WRITES})
    _drop_unread_inputs(model)


def _drop_unread_inputs(model: ir.Model) -> None:
    """The converter fails over an input that no node reads: the artifact goes without it."""
    inputs = model.graph.inputs
    for value in [v for v in inputs if not v.uses() and not v.is_graph_output()]:
        inputs.remove(value)


def rules() -> Mapping[str, Rule]:
    """All rules, by operator type."""
    from importlib import import_module

    found: dict[str, Rule] = {}
    for family in FAMILIES:
        found |= import_module(f"{__name__}.{family}").RULES
    return found

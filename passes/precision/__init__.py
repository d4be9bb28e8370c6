"""Compute in float16 or bfloat16, with float32 where that is needed, every value of one type.

    y = Conv(x, w)   ->   y = Cast(Conv(Cast(x, float16), float16(w)), float32)

The graph is typed, not sprinkled: an operator is converted by the type variables of its schema,
constants are converted where they are read, and a Cast stands only where the two types meet, one
for each value and direction. Inputs and outputs of the graph stay float32 unless asked otherwise.

What stays in float32: what the back end has no kernel for, what is numerically not safe
(`policy`), constants that the type cannot hold (never clipped silently: `formats`), values that
were measured to be, or may be, beyond half the type's range, and what would cost more casts than
it saves (`regions`). Additive attention masks of -1e9 or less become -16376 (`masks`).

ONNX operators of opset 7 and later; bfloat16 needs opset 13.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from infc.passes.infer_shapes import InferShapes
from infc.passes.precision.boundaries import write
from infc.passes.precision.formats import FORMATS
from infc.passes.precision.plan import Wishes, make_plan
from infc.passes.precision.regions import Casts, give_up_strays
from infc.quantization import Range


@dataclass(frozen=True, slots=True)
class PrecisionRecord:
    """What a conversion did: the number of nodes `converted`, and those `kept`, each with why.

    `overflow` holds (value, low, high) of the values measured to be too large for the type.
    """

    converted: int
    kept: tuple[tuple[str, str], ...]
    overflow: tuple[tuple[str, float, float], ...]


def convert(
    model: ir.Model,
    to: str,
    *,
    blocked: frozenset[str] = frozenset(),
    keep_float: frozenset[str] = frozenset(),
    ranges: Mapping[str, Range] | None = None,
    keep_io: bool = True,
) -> PrecisionRecord:
    """Convert `model`, in place, to "float16" or "bfloat16".

    `blocked` are operators the back end has to compute in float32, `keep_float` names of nodes
    or values that are to stay so. `ranges` are what the values were measured to lie between.
    With `keep_io` the graph's inputs and outputs keep their types.
    """
    InferShapes()(model)
    wishes = Wishes(FORMATS[to], blocked, keep_float, ranges)
    plan = make_plan(model, wishes)
    casts = Casts(model, plan, keep_io=keep_io)
    give_up_strays(model, casts)
    titles = {node: node.name or f"{node.op_type}({node.outputs[0].name})" for node in plan.kept}
    converted = len(plan.low)
    if converted:
        write(model, plan, casts)
    return PrecisionRecord(
        converted,
        tuple((titles[node], plan.kept[node]) for node in model.graph if node in titles),
        tuple((name, r.low, r.high) for name, r in plan.overflow.items()),
    )

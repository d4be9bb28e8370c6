"""How a back end has float16 and bfloat16: what its module declares as `ARITHMETIC`.

A back end that says nothing of a precision makes it itself, of the float32 graph. One whose targets
differ has a function `arithmetic(target)` beside, which says it of one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from infc.request import Precision
from infc.targets import BackEnd, Target


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What is done to the graph for a reduced float precision (`infc.passes.precision`).

    `converts`: operators compute in the precision, but for those in `blocked`, in a graph of
    `opset` or later. `stores` is the type ("float16") that the weights of whatever computes in
    float32 are stored in; "" leaves them.
    """

    converts: bool
    blocked: frozenset[str] = frozenset()
    opset: int = 7
    stores: str = ""


def arithmetic_of(
    end: BackEnd, precision: Precision, target: Target | None = None
) -> Arithmetic | None:
    """What `end` declares for `precision`, of `target` where one is given; None for nothing."""
    declared: Mapping[Precision, Arithmetic] = getattr(end, "ARITHMETIC", {})
    if target is not None and hasattr(end, "arithmetic"):
        declared = end.arithmetic(target)
    return declared.get(precision)

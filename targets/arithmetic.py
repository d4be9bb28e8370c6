"""How a back end has float16 and bfloat16: what its module declares as `ARITHMETIC`.

A back end that says nothing of a precision makes it itself, of the float32 graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from infc.request import Precision
from infc.targets import BackEnd


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


def arithmetic_of(end: BackEnd, precision: Precision) -> Arithmetic | None:
    """What `end` declares for `precision`; None where it declares nothing."""
    declared: Mapping[Precision, Arithmetic] = getattr(end, "ARITHMETIC", {})
    return declared.get(precision)

"""The smallest set of layers to keep in float.

    1.  With the layers in order, the most harmful first, the least k for which the graph that
        keeps the first k in float meets the budget: by bisection.
    2.  Each of these, the least harmful first, is quantised again where the budget is still met;
        over and over until none can be.

What is left is minimal: no single layer of it can be quantised without missing the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_TRIALS = 200
"""Graphs that are tried at most; beyond, what has been found is kept as it is."""

Meets = Callable[[frozenset[str]], bool]
"""Whether the graph that keeps these layers in float meets the budget."""


@dataclass(frozen=True, slots=True)
class Selection:
    """`keep`: layers, in the order that was given. `minimal` unless the trials ran out."""

    keep: tuple[str, ...]
    trials: int
    minimal: bool


def select(order: Sequence[str], meets: Meets, max_trials: int = MAX_TRIALS) -> Selection:
    """Choose among `order`, the most harmful layer first.

    `meets` is called once for each set; keeping all of `order` is taken to meet the budget.
    """
    known: dict[frozenset[str], bool] = {frozenset(order): True}

    def met(names: Sequence[str]) -> bool:
        key = frozenset(names)
        if key not in known:
            known[key] = meets(key)
        return known[key]

    low, high = -1, len(order)  # the first `low` do not suffice, the first `high` do
    if met(()):
        high = 0
    else:
        low = 0
    while high - low > 1:
        middle = (low + high) // 2
        if met(order[:middle]):
            high = middle
        else:
            low = middle
    keep = list(order[:high])
    changed = True
    while changed:
        changed = False
        for name in reversed(list(keep)):
            if len(known) > max_trials:
                return Selection(tuple(keep), len(known) - 1, minimal=False)
            fewer = [other for other in keep if other != name]
            if met(fewer):
                keep, changed = fewer, True
    return Selection(tuple(keep), len(known) - 1, minimal=True)

"""Sizes that are only known when a kernel runs, as the rules of `schedules` count with them.

A dimension that is open has a name and no number, and how a kernel is computed has to be settled
all the same. Where the question is how to cut it into tiles, it is `MANY`; where it is whether a
kernel has work for several threads, it is `SOME`; where it is which loops to share among those, or
which operand weighs more, it is 1: a batch of one is what a kernel may not be slow for.
"""

from __future__ import annotations

from typing import Any

SOME = 32
MANY = 5040
"""Divisible by every number up to ten, so that no height of a tile looks like a waste."""


def is_open(size: Any) -> bool:
    """Whether `size`, a number or an expression of TIR, depends on a dimension that is open."""
    from tvm.tirx.analysis import undefined_vars

    return not isinstance(size, int) and bool(undefined_vars(size))


def number(size: Any, otherwise: int = MANY) -> int:
    """`size` as a number, with `otherwise` for each open dimension that it depends on."""
    from tvm import tirx
    from tvm.sym.analyzer import Analyzer
    from tvm.tirx.analysis import undefined_vars

    if isinstance(size, int):
        return size
    analyzer = Analyzer()
    for var in undefined_vars(size):
        analyzer.bind(var, tirx.const(otherwise, str(var.ty.dtype)))
    return int(analyzer.simplify(size))


def size_of(size: Any) -> Any:
    """`size` as a number where it is one, else as it is."""
    return size if is_open(size) else int(size)


def proven(condition: Any) -> bool:
    """Whether `condition`, true or false or an expression of TIR, holds whatever is open."""
    from tvm.sym.analyzer import Analyzer

    return condition if isinstance(condition, bool) else bool(Analyzer().can_prove(condition))

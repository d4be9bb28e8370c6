"""How large a register tile is, by rule: from the sizes and the processor alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu

COLUMN_VECTORS = 4
"""Vectors side by side in a tile, at most."""
MOST_ROWS = 14
TILE_BYTES = 1024
"""Of a tile: TVM lets what is larger be allocated, which is no register any more."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Elements of the two innermost dimensions whose accumulators stay in registers."""

    rows: int
    columns: int


def tile_for(rows: int, columns: int, cpu: Cpu, dtype_bytes: int = 4) -> Tile:
    """The tile of accumulators for an output of `rows` x `columns` elements.

    As many vectors as there are registers, less those for the operands; wide rather than tall,
    since each column's operand is loaded once for all rows.
    """
    lanes = cpu.lanes(dtype_bytes)
    width = vector(columns, lanes)
    across = max(k for k in range(1, COLUMN_VECTORS + 1) if (columns // width) % k == 0)
    if width * across > 2 * lanes and across % 2 == 0:
        across //= 2
    vectors = max(1, across * width // lanes)
    most = (TILE_BYTES - 1) // (across * width * dtype_bytes)
    budget = max(1, min((cpu.registers - 4) // vectors, most))
    tall = best_rows(rows, budget)
    return Tile(tall, across * width)


def best_rows(rows: int, budget: int) -> int:
    """At most `budget` rows, as few of them empty in the last tile as possible, then as many."""
    most = max(1, min(rows, budget, MOST_ROWS))
    least = max(1, most // 2)
    return min(range(most, least - 1, -1), key=lambda r: (-(-rows // r) * r - rows, -r))


def vector(extent: int, lanes: int) -> int:
    """The widest vector, a power of two, that divides `extent`."""
    width = lanes
    while width > 1 and extent % width:
        width //= 2
    return width

"""How large a register tile is, by rule: from the sizes and the processor alone.

    cycles of a round of the reduction = max(multiply-adds / 2, loads / 2, latency of a sum) + 1/2

What that does not know, how operands come through the caches and what the compiler makes of it, is
for a measurement to find out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu

COLUMN_VECTORS = 8
"""Vectors side by side in a tile, at most."""
MOST_ROWS = 14
TILE_BYTES = 1024
"""Of a tile: TVM lets what is larger be allocated, which is no register any more."""
PORTS = 2
"""Multiply-adds, and loads, that a core starts in a cycle."""
CHAIN_CYCLES = 4
"""Until a sum can be added to again."""
ROUND_CYCLES = 0.5
"""Of counting and branching."""
STORE_CYCLES, TESTED_CYCLES = 2, 10
"""Of what follows the sum, for a vector; the second was measured where rows are cropped."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Elements of the two innermost dimensions whose accumulators stay in registers."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Work:
    """What is computed in tiles: `rows` x `columns` sums of `rounds` products each.

    Where it is `paddable`, columns may be computed beyond the last. Rows may be in any case; where
    those are `cropped`, as of a convolution, what follows is then tested for each.
    """

    rows: int
    columns: int
    rounds: int = 64
    paddable: bool = False
    cropped: bool = False
    element_bytes: int = 4


def tile_for(work: Work, cpu: Cpu) -> Tile:
    """The tile of accumulators for `work`."""
    return tiles_by_cost(work, cpu)[0]


def tiles_by_cost(work: Work, cpu: Cpu) -> list[Tile]:
    """All tiles that stay in registers, the cheapest first."""
    lanes = cpu.lanes(work.element_bytes)
    width = vector(work.columns, lanes)
    padded = work.paddable and width < lanes < work.columns
    width = lanes if padded else width
    most = (TILE_BYTES - 1) // 4
    found = []
    for across in range(1, COLUMN_VECTORS + 1):
        if not padded and (work.columns // width) % across:
            continue
        for tall in range(1, min(work.rows, MOST_ROWS) + 1):
            # Beside the sums, registers hold a vector of each column and an element of a row.
            if tall > 1 and tall * across + across + 1 > cpu.registers:
                break
            if tall * across * width <= most:
                tile = Tile(tall, across * width)
                found.append((_cost(work, tile, across), tall * across, tile))
    return [tile for *_, tile in sorted(found, key=lambda row: (row[0], -row[1]))]


def _cost(work: Work, tile: Tile, across: int) -> float:
    """Cycles for all tiles: of `rows * across` multiply-adds on `rows + across` loads each."""
    adds, loads = tile.rows * across, tile.rows + across
    cycles = max(adds / PORTS, loads / PORTS, CHAIN_CYCLES) + ROUND_CYCLES
    tested = work.cropped and work.rows % tile.rows
    last = adds * (TESTED_CYCLES if tested else STORE_CYCLES)
    tiles = -(-work.rows // tile.rows) * -(-work.columns // tile.columns)
    return tiles * (work.rounds * cycles + last)


def vector(extent: int, lanes: int) -> int:
    """The widest vector, a power of two, that divides `extent`."""
    width = lanes
    while width > 1 and extent % width:
        width //= 2
    return width

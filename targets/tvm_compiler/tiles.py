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


@dataclass(frozen=True, slots=True)
class Tile:
    """Elements of the two innermost dimensions whose accumulators stay in registers."""

    rows: int
    columns: int


def tile_for(
    rows: int, columns: int, cpu: Cpu, dtype_bytes: int = 4, *, paddable: bool = False
) -> Tile:
    """The tile of accumulators for an output of `rows` x `columns` elements."""
    return tiles_by_cost(rows, columns, cpu, dtype_bytes, paddable=paddable)[0]


def tiles_by_cost(
    rows: int, columns: int, cpu: Cpu, dtype_bytes: int = 4, *, paddable: bool = False
) -> list[Tile]:
    """All tiles that stay in registers, the cheapest for `rows` x `columns` elements first.

    Where it is `paddable`, columns may be computed beyond the last.
    """
    lanes = cpu.lanes(dtype_bytes)
    width = vector(columns, lanes)
    padded = paddable and width < lanes < columns
    width = lanes if padded else width
    most = (TILE_BYTES - 1) // dtype_bytes
    found = []
    for across in range(1, COLUMN_VECTORS + 1):
        if not padded and (columns // width) % across:
            continue
        for tall in range(1, min(rows, MOST_ROWS) + 1):
            # Beside the sums, registers hold a vector of each column and an element of a row.
            if tall > 1 and tall * across + across + 1 > cpu.registers:
                break
            if tall * across * width <= most:
                tile = Tile(tall, across * width)
                found.append((_cost(rows, columns, tile, across), tall * across, tile))
    return [tile for *_, tile in sorted(found, key=lambda row: (row[0], -row[1]))]


def _cost(rows: int, columns: int, tile: Tile, across: int) -> float:
    """Cycles for one round of the reduction, for the whole output.

    A tile takes `rows * across` multiply-adds on `rows + across` loads.
    """
    adds, loads = tile.rows * across, tile.rows + across
    cycles = max(adds / PORTS, loads / PORTS, CHAIN_CYCLES) + ROUND_CYCLES
    return -(-rows // tile.rows) * -(-columns // tile.columns) * cycles


def vector(extent: int, lanes: int) -> int:
    """The widest vector, a power of two, that divides `extent`."""
    width = lanes
    while width > 1 and extent % width:
        width //= 2
    return width

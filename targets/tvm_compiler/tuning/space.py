"""Which choices are worth measuring for a kernel, the likeliest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from infc.targets.tvm_compiler.scheduling.choices import Choice, Extents
from infc.targets.tvm_compiler.scheduling.tiles import TILE_BYTES, tiles_by_cost

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu

FIRST_TILES = 5
"""Tried before anything else is."""
TILES = 16
"""Of the likeliest, tried at all."""
UNROLLED = (1, 2, 4, 8)
MOST_UNROLLED = 16


def fits(choice: Choice, extents: Extents) -> bool:
    """Whether a kernel can be computed so, at a sensible size; a record may say anything."""
    if extents.settled:
        return False
    inner = extents.reduction[-1] if extents.reduction else extents.columns
    if not extents.tiled:
        return choice.rows == 1 and inner % choice.columns == 0
    return (
        choice.rows <= extents.rows
        and (extents.columns % choice.columns == 0 or _pads(choice, extents))
        and choice.rows * choice.columns * 4 < TILE_BYTES
        and choice.unroll in unrollings(extents)
        and (extents.padded or not choice.inline_pad)
        and (extents.weight_bytes > 0 or not choice.packed)
    )


def _pads(choice: Choice, extents: Extents) -> bool:
    """Whether columns may be computed beyond the last, and no more than twice as many."""
    return extents.paddable and not choice.packed and choice.columns <= extents.columns


def proposals(extents: Extents, cpu: Cpu, best: Choice) -> Iterator[Choice]:
    """Choices other than `best`, the best so far, without end of repetition between calls.

    What is given first depends on `best`: some tiles, then what else can be chosen for the best of
    them, then more tiles.
    """
    if extents.settled:
        return
    if not extents.tiled:
        yield from _widths(extents, cpu, best)
        return
    tiles = tiles_by_cost(extents.work(cpu), cpu)[:TILES]
    shapes = [replace(best, rows=t.rows, columns=t.columns) for t in tiles]
    yield from shapes[:FIRST_TILES]
    yield from _variants(extents, best)
    yield from shapes[FIRST_TILES:]


def _variants(extents: Extents, best: Choice) -> Iterator[Choice]:
    """`best` with everything but its tile changed."""
    if extents.padded:
        yield replace(best, inline_pad=not best.inline_pad)
    yield replace(best, columns_first=not best.columns_first)
    if extents.weight_bytes and best.columns < extents.columns:
        yield replace(best, packed=not best.packed)
    for times in unrollings(extents):
        yield replace(best, unroll=times)
    if extents.padded:
        yield replace(best, inline_pad=not best.inline_pad, columns_first=not best.columns_first)


def unrollings(extents: Extents) -> list[int]:
    """How many rounds of the reduction may be written out."""
    whole, found = 1, set(UNROLLED)
    for count in reversed([n for n in extents.reduction if n > 1]):
        whole *= count
        if whole <= MOST_UNROLLED:
            found.add(whole)
    inner = next((n for n in reversed(extents.reduction) if n > 1), 1)
    return sorted(n for n in found if n <= whole and (n % inner == 0 or inner % n == 0))


def _widths(extents: Extents, cpu: Cpu, best: Choice) -> Iterator[Choice]:
    """Vectors of other widths."""
    inner = extents.reduction[-1] if extents.reduction else extents.columns
    width = cpu.lanes(4) * 4
    while width > 1:
        if inner % width == 0:
            yield replace(best, columns=width)
        width //= 2

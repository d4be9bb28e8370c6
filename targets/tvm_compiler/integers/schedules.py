"""The schedule of a block of dot products: the instruction, in tiles that stay in registers.

parallel rows
tile of `rows` x `blocks` accumulators, each of them one vector
accumulators = 0
for each word of four: accumulators += four products, in one instruction
what follows, elementwise, on the tile: back to float32, the activation, rounded to bytes
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from infc.targets.tvm_compiler.integers.convolution import DOT
from infc.targets.tvm_compiler.scheduling.blocks import extent
from infc.targets.tvm_compiler.symbolic import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infc.targets.tvm_compiler.cpus import Cpu

SMALL = 1 << 15
"""Products below which a kernel stays on one thread: starting the others takes longer."""
ACROSS = 4
"""Blocks side by side in a tile, at most."""
TALLEST = 14
"""Rows of a tile, at most."""
TILE_BYTES = 1024
"""Of the accumulators: TVM lets what is larger be allocated, which is no register any more."""
PIECES = 4
"""Pieces of work for each core, at least, where there are so many."""


def is_dot(sch: Any, block: Any) -> bool:
    """Whether `block` is to be computed by dot products."""
    return DOT in sch.get(block).annotations


def tile(height: int, blocks: int, lanes: int, cpu: Cpu, *, exact: bool = False) -> tuple[int, int]:
    """Rows and blocks of a tile for an output of `height` rows.

    As many accumulators as there are registers, less those of the operands, and rather square:
    each row costs a broadcast, each block a load. `exact` asks for rows that divide `height`,
    where they are not less than half of what there is room for.
    """
    vectors = max(1, lanes * 4 // cpu.vector_bytes)
    best = (1, 1)
    least = math.inf
    for across in range(1, min(ACROSS, blocks) + 1):
        if blocks % across:
            continue
        room = (cpu.registers - across * vectors - 1) // (across * vectors)
        most = max(1, min(room, TALLEST, height, (TILE_BYTES - 1) // (across * lanes * 4)))
        even = [r for r in range(most, 0, -1) if height % r == 0 and 2 * r >= most]
        few = even if exact and even else range(most, 0, -1)
        rows = min(few, key=lambda r: (_cost(height, r), -r))
        loads = _cost(height, rows) * (1 + (rows + across) / (2 * rows * across))
        if loads < least - 1e-9:
            best, least = (rows, across), loads
    return best


def _cost(height: int, rows: int) -> float:
    """How much more than `height` rows are computed in tiles of `rows`; few rows cost as well."""
    return -(-height // rows) * rows / height * (1 + 0.25 / rows)


def schedule_dot(sch: Any, block: Any, follower: Any, cpu: Cpu) -> None:
    """Compute `block` tile by tile, and `follower`, its elementwise reader, on each tile.

    Where there is no `follower`, the sums go to memory.
    """
    here = sch.get(block)
    instruction = str(here.annotations[DOT])
    extents = [number(v.dom.extent, 1) for v in here.iter_vars]
    spatial = sum(v.iter_type == 0 for v in here.iter_vars)
    *front, blocks, lanes = extents[:spatial]
    rows, across = tile(front[-1], blocks, lanes, cpu, exact=True)
    weighty = _weights_weigh_more(here)
    channels = extent(sch, sch.get_loops(follower)[-1]) if follower is not None else 0
    if follower is None or (blocks == 1 and channels < lanes):
        outer, own = _from_block(sch, block, spatial, rows, across, weighty)
        if follower is not None:
            sch.reverse_compute_at(follower, outer[-1], preserve_unit_loops=True)
            *_, inner_rows, inner = sch.get_loops(follower)
            _finish(sch, inner_rows, inner, channels, lanes)
    else:
        loops = sch.get_loops(follower)
        last, inner_rows = sch.split(loops[-2], [None, rows])
        outer, inner = [*loops[:-2], last], loops[-1]
        if blocks > across:
            columns, inner = sch.split(loops[-1], [None, across * lanes])
            outer = [columns, *outer] if weighty else [*outer[:-1], columns, last]
        sch.reorder(*outer, inner_rows, inner)
        sch.compute_at(block, outer[-1], preserve_unit_loops=True)
        own = sch.get_loops(block)[len(outer) :]
        _finish(sch, inner_rows, inner, channels, lanes)
    *reduced, byte = own[len(own) - (len(extents) - spatial) :]
    *before, tall, wide, lane = own[: len(own) - len(reduced) - 1]
    sch.reorder(*before, *reduced, tall, wide, lane, byte)
    if math.prod(extents) >= SMALL:
        sch.parallel(_share(sch, outer, cpu))
    for loop in (tall, wide):
        sch.unroll(loop)
    init = sch.decompose_reduction(block, reduced[0])
    *others, vector = sch.get_loops(init)
    for loop in others[-2:]:
        sch.unroll(loop)
    if lanes > 1:
        sch.vectorize(vector)
    sch.tensorize(lane, instruction)


def _from_block(
    sch: Any, block: Any, spatial: int, rows: int, across: int, weighty: bool
) -> tuple[list[Any], list[Any]]:
    """Tile the loops of `block` itself: the outer ones, and those in a tile, then the sum's."""
    loops = sch.get_loops(block)
    *front, tall, wide, lane = loops[:spatial]
    last, tall = sch.split(tall, [None, rows])
    columns, wide = sch.split(wide, [None, across])
    outer = [columns, *front, last] if weighty else [*front, columns, last]
    sch.reorder(*outer, tall, wide, lane)
    return outer, [tall, wide, lane, *loops[spatial:]]


def _finish(sch: Any, rows: Any, inner: Any, channels: int, lanes: int) -> None:
    """Unroll the rows and the vectors of what follows on a tile."""
    sch.unroll(rows)
    width = math.gcd(channels, lanes)
    if width > 1:
        head, vector = sch.split(inner, [None, width])
        sch.unroll(head)
        sch.vectorize(vector)


def _weights_weigh_more(block: Any) -> bool:
    """Whether the weights are larger than the activations: then they are read once."""
    sizes = {}
    for read in block.reads:
        dims = [number(n, 1) for n in read.source.shape]
        sizes[read.source.name] = math.prod(dims)
    activations, weights = (sizes[read.source.name] for read in block.reads[:2])
    return bool(weights > activations)


def _share(sch: Any, loops: Sequence[Any], cpu: Cpu) -> Any:
    """One loop of as many of the outer loops as give each core enough pieces."""
    taken, count = [loops[0]], extent(sch, loops[0])
    for loop in loops[1:]:
        if count >= PIECES * cpu.cores:
            break
        taken.append(loop)
        count *= extent(sch, loop)
    return sch.fuse(*taken) if len(taken) > 1 else taken[0]

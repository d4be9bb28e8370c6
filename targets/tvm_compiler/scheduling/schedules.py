"""Schedules: every kernel tiled, vectorised and parallel, by rule or by a record of a tuning.

A kernel is a chain of blocks. What only moves or maps elements is inlined into its reader. What
reduces is computed in tiles that stay in registers:

    parallel rows
      tile of `rows` x `columns` elements, columns in vectors
        accumulators = 0
        reduction: accumulators += ...
        what follows, elementwise, on the tile

A reduction over the innermost dimension keeps `lanes` partial results, and adds those up at the
end: that is what a compiler may not do by itself, since it rounds otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infc.targets.tvm_compiler.integers.schedules import is_dot, schedule_dot
from infc.targets.tvm_compiler.scheduling.blocks import (
    REDUCING,
    SPATIAL,
    columns_weigh_more,
    contiguous,
    extent,
    is_einsum,
    is_reduction,
    is_tiled,
    rounds,
    weights_of,
)
from infc.targets.tvm_compiler.scheduling.choices import Choice, main_block
from infc.targets.tvm_compiler.scheduling.elementary import as_arithmetic
from infc.targets.tvm_compiler.scheduling.halves import (
    in_halves,
    multiplies_halves,
    place_parts,
    split_sum,
)
from infc.targets.tvm_compiler.scheduling.loops import finish_tile, share, unroll
from infc.targets.tvm_compiler.scheduling.packing import index_of
from infc.targets.tvm_compiler.scheduling.tiles import Work, tile_for, vector
from infc.targets.tvm_compiler.symbolic import MANY, SOME, is_open, number

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu

SMALL = 1 << 14
"""Scalar operations below which a kernel stays on one thread: starting the others takes longer."""


def schedule(func: Any, cpu: Cpu, choice: Choice | None = None) -> Any:
    """Return `func`, a TIR function with fixed shapes, scheduled for `cpu`.

    `choice` is about its main block; without one the rule decides about all of them.

    Raises:
        ScheduleError: what is chosen does not fit the kernel.
    """
    import tvm
    from tvm.s_tir import Schedule

    sch = Schedule(tvm.IRModule({"main": as_arithmetic(func)}))
    main = main_block(sch)
    chosen = {} if choice is None or main is None else {sch.get(main).name_hint: choice}
    if choice is not None and choice.inline_pad:
        _inline_pad(sch, main)
    if choice is not None and main is not None:
        _pad(sch, main, choice)
    if choice is not None and choice.packed:
        _pack(sch, main, choice.columns)
    _inline(sch)
    root = sch.get_sblock("root")
    outputs = {sch.get(b).name_hint for b in sch.get_output_blocks(root)}
    names = [sch.get(b).name_hint for b in sch.get_child_blocks(root)]
    done: set[str] = set()
    for name in names:
        if name in done:
            continue
        block = sch.get_sblock(name)
        if not is_reduction(sch, block):
            _spread(sch, block, cpu, chosen.get(name))
        else:
            follower = _follower(sch, block) if name not in outputs else None
            if follower is not None:
                done.add(sch.get(follower).name_hint)
            if is_dot(sch, block):
                schedule_dot(sch, block, follower, cpu)
            else:
                _reduce(sch, block, follower, cpu, chosen.get(name))
    made = sch.mod["main"].with_attr("tirx.is_scheduled", True)
    return in_halves(made) if cpu.multiplies_halves else made


def _inline_pad(sch: Any, block: Any) -> None:
    """Inline what puts zeros around the input of `block`."""
    for producer in sch.get_producers(block):
        if sch.get(producer).name_hint == "pad":
            sch.compute_inline(producer)


def _pad(sch: Any, block: Any, choice: Choice) -> None:
    """Compute a product for a multiple of the tile's columns, and crop it where it is read.

    So are its rows, where nobody knows how many there are: no tile has to look whether it is full.
    """
    here = sch.get(block)
    spatial = [v for v in here.iter_vars if v.iter_type == SPATIAL]
    if not is_tiled(sch, block):
        return
    extents = [v.dom.extent for v in spatial]
    padding = {spatial[-1].var.name: choice.columns}
    unknown = [is_open(extent) for extent in extents[-2:]]
    if not any(unknown) and number(extents[-1]) % choice.columns == 0:
        return
    if any(unknown) and not is_einsum(here):
        return
    if len(spatial) > 1 and unknown[0]:
        padding[spatial[-2].var.name] = choice.rows
    sch.pad_einsum(block, [padding.get(v.var.name, 1) for v in here.iter_vars])


def _pack(sch: Any, block: Any, columns: int) -> None:
    """Read the weights of `block` from where `packed` puts them."""
    found = weights_of(sch.get(block))
    if found is not None:
        sch.transform_layout(block, ("read", found[0]), index_of(columns))


def _inline(sch: Any) -> None:
    """Inline every block without a reduction whose readers have none either."""
    from tvm.s_tir.schedule import ScheduleError

    root = sch.get_sblock("root")
    outputs = {sch.get(b).name_hint for b in sch.get_output_blocks(root)}
    for name in [sch.get(b).name_hint for b in sch.get_child_blocks(root)]:
        block = sch.get_sblock(name)
        if name in outputs or is_reduction(sch, block):
            continue
        readers = sch.get_consumers(block)
        if any(is_reduction(sch, r) for r in readers):
            continue
        try:
            sch.compute_inline(block)
        except ScheduleError:
            continue


def _follower(sch: Any, block: Any) -> Any:
    """The one elementwise reader of what `block` computes, over the same elements; or None."""
    readers = sch.get_consumers(block)
    if len(readers) != 1 or is_reduction(sch, readers[0]):
        return None
    (reader,) = readers
    mine = [v for v in sch.get(block).iter_vars if v.iter_type == SPATIAL]
    if is_dot(sch, block):
        # Its channels are two dimensions.
        mine = mine[1:]
    if len(sch.get(reader).iter_vars) != len(mine):
        return None
    producers = [p for p in sch.get_producers(reader) if is_reduction(sch, p)]
    return reader if len(producers) == 1 else None


def _spread(sch: Any, block: Any, cpu: Cpu, choice: Choice | None = None) -> None:
    """Vectorise the innermost dimension, and share the outer ones among the threads."""
    loops = sch.get_loops(block)
    if not loops:
        return
    total = 1
    for loop in loops:
        total *= extent(sch, loop, SOME)
    outer = loops
    lanes = choice.columns if choice is not None else cpu.lanes(4)
    width = vector(extent(sch, loops[-1]), lanes) if contiguous(sch, block) else 1
    if width > 1:
        head, lane = sch.split(loops[-1], [None, width])
        sch.vectorize(lane)
        outer = [*loops[:-1], head]
    if outer and total >= SMALL:
        sch.parallel(share(sch, outer, cpu))


def _reduce(sch: Any, block: Any, follower: Any, cpu: Cpu, choice: Choice | None = None) -> None:
    """Compute a reduction in register tiles, `follower` on each tile at once."""
    here = sch.get(block)
    spatial = [v for v in here.iter_vars if v.iter_type == SPATIAL]
    if not is_tiled(sch, block):
        _reduce_innermost(sch, block, follower, cpu, choice)
        return
    # What nothing follows is an answer, of the type that it has.
    halves = cpu.multiplies_halves and follower is not None and multiplies_halves(here)
    partial = split_sum(sch, block) if halves else None
    parts = partial is not None and partial is not block
    top = follower if follower is not None else block
    loops = sch.get_loops(top)[: len(spatial)]
    if choice is None:
        sizes = [1, *(extent(sch, loop, MANY) for loop in loops)]
        bytes_each = 4 if partial is None else 2
        tile = tile_for(Work(sizes[-2], sizes[-1], element_bytes=bytes_each), cpu)
        choice = Choice(tile.rows, tile.columns, columns_weigh_more(here))
    columns, inner_columns = sch.split(loops[-1], [None, choice.columns])
    lanes = cpu.lanes(4 if partial is None else 2)
    width = vector(choice.columns, lanes)
    rest, inner = loops[:-1], [inner_columns]
    tall = []
    if rest:
        last, inner_rows = sch.split(rest[-1], [None, choice.rows])
        rest, tall, inner = rest[:-1], [last], [inner_rows, inner_columns]
    outer = [columns, *rest, *tall] if choice.columns_first else [*rest, columns, *tall]
    if follower is None:
        red = sch.get_loops(block)[len(outer) + len(inner) :]
        tail = inner
        sch.reorder(*outer, *red, *tail)
    else:
        sch.reorder(*outer, *inner)
        sch.compute_at(block, outer[-1])
        own = sch.get_loops(block)[len(outer) :]
        # Loops of one round are dropped where a block moves.
        count = sum(v.iter_type == REDUCING and number(v.dom.extent) > 1 for v in here.iter_vars)
        if parts:
            red, tail = own[:1], own[1:]
        else:
            tail, red = own[: len(own) - count], own[len(own) - count :]
            sch.reorder(*red, *tail)
    if rounds(here) >= SMALL:
        sch.parallel(share(sch, outer, cpu))
    finish_tile(sch, tail, width)
    if follower is not None:
        finish_tile(sch, inner, width)
    if parts:
        place_parts(sch, partial, red[0], lanes, choice.unroll)
        sch.decompose_reduction(block, red[0])
    elif red:
        first = unroll(sch, red, choice.unroll)
        sch.decompose_reduction(block, first)


def _reduce_innermost(
    sch: Any, block: Any, follower: Any, cpu: Cpu, choice: Choice | None = None
) -> None:
    """Reduce over the innermost dimension, in partial results, as many as a vector has lanes."""
    here = sch.get(block)
    spatial = [v for v in here.iter_vars if v.iter_type == SPATIAL]
    loops = sch.get_loops(block)
    outer, red = loops[: len(spatial)], loops[len(spatial) :]
    lanes = choice.columns if choice is not None else cpu.lanes(4)
    many = rounds(here) >= SMALL
    width = vector(extent(sch, red[-1]), lanes) if red else 1
    if width > 1:
        _, lane = sch.split(red[-1], [None, width])
        partial = sch.rfactor(lane, len(spatial))
        outer = sch.get_loops(block)[: len(spatial)]
        if outer:
            sch.compute_at(partial, outer[-1])
        own = sch.get_loops(partial)[len(outer) :]
        lane, *others = own
        if others:
            sch.reorder(*others, lane)
            sch.vectorize(lane)
            if outer and many:
                sch.parallel(share(sch, outer, cpu))
            sch.decompose_reduction(partial, others[0])
            if follower is not None:
                _spread(sch, follower, cpu)
            return
    if outer and many:
        sch.parallel(share(sch, outer, cpu))
    if follower is not None:
        _spread(sch, follower, cpu)

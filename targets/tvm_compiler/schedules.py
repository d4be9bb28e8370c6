"""Schedules by rule: every kernel tiled, vectorised and parallel, without a single measurement.

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

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu

SMALL = 1 << 14
"""Scalar operations below which a kernel stays on one thread: starting the others takes longer."""
COLUMN_VECTORS = 4
"""Vectors side by side in a tile, at most."""
TILE_BYTES = 1024
"""Of a tile: TVM lets what is larger be allocated, which is no register any more."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Elements of the two innermost dimensions whose accumulators stay in registers."""

    rows: int
    columns: int


def schedule(func: Any, cpu: Cpu) -> Any:
    """Return `func`, a TIR function with fixed shapes, scheduled for `cpu`."""
    import tvm
    from tvm.s_tir import Schedule

    sch = Schedule(tvm.IRModule({"main": func}))
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
            _spread(sch, block, cpu)
        else:
            follower = _follower(sch, block) if name not in outputs else None
            if follower is not None:
                done.add(sch.get(follower).name_hint)
            _reduce(sch, block, follower, cpu)
    return sch.mod["main"].with_attr("tirx.is_scheduled", True)


def is_reduction(sch: Any, block: Any) -> bool:
    """Whether the block has an axis that it sums, or otherwise folds, over."""
    return any(var.iter_type == 2 for var in sch.get(block).iter_vars)


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
    mine = [v for v in sch.get(block).iter_vars if v.iter_type == 0]
    if len(sch.get(reader).iter_vars) != len(mine):
        return None
    producers = [p for p in sch.get_producers(reader) if is_reduction(sch, p)]
    return reader if len(producers) == 1 else None


def _extent(sch: Any, loop: Any) -> int:
    """How often a loop goes round; some extents are sums that nobody has added up."""
    from tvm.sym.analyzer import Analyzer

    return int(Analyzer().simplify(sch.get(loop).extent))


def _spread(sch: Any, block: Any, cpu: Cpu) -> None:
    """Vectorise the innermost dimension, and share the outer ones among the threads."""
    loops = sch.get_loops(block)
    if not loops:
        return
    total = 1
    for loop in loops:
        total *= _extent(sch, loop)
    lanes = cpu.lanes(4)
    outer = loops
    width = _vector(_extent(sch, loops[-1]), lanes) if contiguous(sch, block) else 1
    if width > 1:
        head, vector = sch.split(loops[-1], [None, width])
        sch.vectorize(vector)
        outer = [*loops[:-1], head]
    if outer and total >= SMALL:
        sch.parallel(_share(sch, outer, cpu))


def _share(sch: Any, loops: list[Any], cpu: Cpu) -> Any:
    """One loop of as many of the outer loops as give each thread enough to do."""
    taken, count = [loops[0]], _extent(sch, loops[0])
    for loop in loops[1:]:
        if count >= 4 * cpu.cores:
            break
        taken.append(loop)
        count *= _extent(sch, loop)
    return sch.fuse(*taken) if len(taken) > 1 else taken[0]


def _vector(extent: int, lanes: int) -> int:
    """The widest vector, a power of two, that divides `extent`."""
    width = lanes
    while width > 1 and extent % width:
        width //= 2
    return width


def contiguous(sch: Any, block: Any) -> bool:
    """Whether the innermost dimension of what `block` writes is its innermost loop's."""
    here = sch.get(block)
    write = here.writes[0].region
    spatial = [v for v in here.iter_vars if v.iter_type == 0]
    if not write or not spatial:
        return False
    return bool(write[-1].min.same_as(spatial[-1].var))


def tile_for(rows: int, columns: int, cpu: Cpu, dtype_bytes: int = 4) -> Tile:
    """The tile of accumulators for an output of `rows` x `columns` elements.

    As many vectors as there are registers, less those for the operands; wide rather than tall,
    since each column's operand is loaded once for all rows.
    """
    lanes = cpu.lanes(dtype_bytes)
    width = _vector(columns, lanes)
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
    most = max(1, min(rows, budget, 14))
    least = max(1, most // 2)
    return min(range(most, least - 1, -1), key=lambda r: (-(-rows // r) * r - rows, -r))


def _reduce(sch: Any, block: Any, follower: Any, cpu: Cpu) -> None:
    """Compute a reduction in register tiles, `follower` on each tile at once."""
    here = sch.get(block)
    spatial = [v for v in here.iter_vars if v.iter_type == 0]
    if not spatial or not contiguous(sch, block) or int(spatial[-1].dom.extent.value) == 1:
        _reduce_innermost(sch, block, follower, cpu)
        return
    top = follower if follower is not None else block
    loops = sch.get_loops(top)[: len(spatial)]
    rows = _extent(sch, loops[-2]) if len(loops) > 1 else 1
    tile = tile_for(rows, _extent(sch, loops[-1]), cpu)
    columns, inner_columns = sch.split(loops[-1], [None, tile.columns])
    width = _vector(tile.columns, cpu.lanes(4))
    rest, inner = loops[:-1], [inner_columns]
    tall = []
    if rest:
        last, inner_rows = sch.split(rest[-1], [None, tile.rows])
        rest, tall, inner = rest[:-1], [last], [inner_rows, inner_columns]
    outer = [columns, *rest, *tall] if _columns_weigh_more(here) else [*rest, columns, *tall]
    if follower is None:
        red = sch.get_loops(block)[len(outer) + len(inner) :]
        tail = inner
        sch.reorder(*outer, *red, *tail)
    else:
        sch.reorder(*outer, *inner)
        sch.compute_at(block, outer[-1])
        own = sch.get_loops(block)[len(outer) :]
        # Loops of one round are dropped where a block moves.
        count = sum(v.iter_type == 2 and int(v.dom.extent.value) > 1 for v in here.iter_vars)
        tail, red = own[: len(own) - count], own[len(own) - count :]
        sch.reorder(*red, *tail)
    work = _rounds(here)
    if work >= SMALL:
        sch.parallel(_share(sch, outer, cpu))
    _finish_tile(sch, tail, width)
    if follower is not None:
        _finish_tile(sch, inner, width)
    if red:
        sch.decompose_reduction(block, red[0])


def _rounds(block: Any) -> int:
    """How often the body of a block is computed."""
    rounds = 1
    for var in block.iter_vars:
        rounds *= int(var.dom.extent.value)
    return rounds


def _columns_weigh_more(block: Any) -> bool:
    """Whether the operand that the columns index, the weights, is larger than all others.

    It is then read once, a panel of columns for all rows, and not once for each row.
    """
    from tvm.tirx.analysis import undefined_vars

    spatial = [v for v in block.iter_vars if v.iter_type == 0]
    weights = others = 0
    for read in block.reads:
        size = 1
        for extent in read.source.shape:
            size *= int(extent)
        mentioned = {v.name for r in read.region for v in undefined_vars(r.min)}
        if spatial[-1].var.name not in mentioned:
            others = max(others, size)
        elif len(spatial) == 1 or spatial[-2].var.name not in mentioned:
            weights = max(weights, size)
    return weights > others


def _finish_tile(sch: Any, loops: list[Any], width: int) -> None:
    """Unroll the rows and the vectors of a tile."""
    if not loops:
        return
    *rows, last = loops
    for loop in rows:
        sch.unroll(loop)
    if width > 1:
        head, vector = sch.split(last, [None, width])
        sch.unroll(head)
        sch.vectorize(vector)


def _reduce_innermost(sch: Any, block: Any, follower: Any, cpu: Cpu) -> None:
    """Reduce over the innermost dimension, in `lanes` partial results."""
    here = sch.get(block)
    spatial = [v for v in here.iter_vars if v.iter_type == 0]
    loops = sch.get_loops(block)
    outer, red = loops[: len(spatial)], loops[len(spatial) :]
    work = _rounds(here)
    if red:
        width = _vector(_extent(sch, red[-1]), cpu.lanes(4))
        if width > 1:
            _, vector = sch.split(red[-1], [None, width])
            partial = sch.rfactor(vector, len(spatial))
            at = sch.get_loops(block)[: len(spatial)]
            if at:
                sch.compute_at(partial, at[-1])
            own = sch.get_loops(partial)
            lane = own[len(at)] if len(own) > len(at) else own[-1]
            others = [x for x in own[len(at) :] if not x.same_as(lane)]
            if others:
                sch.reorder(*others, lane)
                sch.vectorize(lane)
                outer = at
                if outer and work >= SMALL:
                    sch.parallel(_share(sch, outer, cpu))
                sch.decompose_reduction(partial, others[0])
                if follower is not None:
                    _spread(sch, follower, cpu)
                return
            outer = at
    if outer and work >= SMALL:
        sch.parallel(_share(sch, outer, cpu))
    if follower is not None:
        _spread(sch, follower, cpu)

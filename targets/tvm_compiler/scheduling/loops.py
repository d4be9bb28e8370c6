"""What is done to the loops of a tile: shared among threads, written out, made vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infc.targets.tvm_compiler.scheduling.blocks import extent

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu


def share(sch: Any, loops: list[Any], cpu: Cpu) -> Any:
    """One loop of as many of the outer loops as give each thread enough to do."""
    taken, count = [loops[0]], extent(sch, loops[0])
    for loop in loops[1:]:
        if count >= 4 * cpu.cores:
            break
        taken.append(loop)
        count *= extent(sch, loop)
    return sch.fuse(*taken) if len(taken) > 1 else taken[0]


def unroll(sch: Any, loops: list[Any], times: int) -> Any:
    """Write out so many rounds of the innermost of `loops`; the outermost, as it is then."""
    first, left = loops[0], times
    for loop in reversed(loops):
        count = extent(sch, loop, 0)
        if not count:
            break
        if left > 1 and left % count == 0:
            sch.unroll(loop)
            left //= count
        elif left > 1 and count % left == 0:
            head, inner = sch.split(loop, [None, left])
            sch.unroll(inner)
            return head if loop.same_as(first) else first
        else:
            break
    return first


def finish_tile(sch: Any, loops: list[Any], width: int) -> None:
    """Unroll the rows and the vectors of a tile."""
    if not loops:
        return
    *rows, last = loops
    for loop in rows:
        sch.unroll(loop)
    if width > 1:
        head, lane = sch.split(last, [None, width])
        sch.unroll(head)
        sch.vectorize(lane)

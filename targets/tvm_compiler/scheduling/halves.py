"""Sums of products of float16, where a processor multiplies vectors of them.

    c[i, j] = sum over k:  float32(a[i, k]) * float32(b[k, j])          what a kernel is

    p[q, i, j] = sum over k in part q:  a[i, k] * b[k, j]               float16, in registers
    c[i, j] = sum over q:  float32(p[q, i, j])

A multiply-add of eight halves takes as long as one of four floats. 4608 products added up in
float16 alone are right to 40 dB, in parts of `PART` to 56 dB, however many those are
(integers/README.md).
"""

from __future__ import annotations

from typing import Any

from infc.targets.tvm_compiler.scheduling.blocks import REDUCING, extent
from infc.targets.tvm_compiler.scheduling.loops import finish_tile, unroll
from infc.targets.tvm_compiler.scheduling.tiles import vector
from infc.targets.tvm_compiler.symbolic import is_open, number

HALF = "float16"
PART = 128
"""Products that are added up in float16, at most."""
LEAST = 16
"""Fewer in a part would take longer than float32."""


def multiplies_halves(block: Any) -> bool:
    """Whether a block adds up products of float16 in float32."""
    reads = [read.source.dtype for read in block.reads]
    return (
        len(reads) == 2
        and all(str(dtype) == HALF for dtype in reads)
        and str(block.writes[0].source.dtype) == "float32"
    )


def part_of(counts: list[int]) -> list[int]:
    """How much of each loop of a sum, outermost first, makes a part; none where it is too little.

    The innermost loops are in it as a whole, and one of them by a divisor.
    """
    taken, size = [1] * len(counts), 1
    for i in reversed(range(len(counts))):
        most = PART // size
        taken[i] = max(d for d in range(1, min(counts[i], most) + 1) if counts[i] % d == 0)
        size *= taken[i]
        if taken[i] < counts[i]:
            break
    return taken if size >= LEAST or taken == counts else []


def split_sum(sch: Any, block: Any) -> Any:
    """Let `block` add up parts in float32; the block that computes those in float16.

    `block` itself where it is one part; None where it stays as it is.
    """
    here = sch.get(block)
    summed = [v.dom.extent for v in here.iter_vars if v.iter_type == REDUCING]
    if any(is_open(n) for n in summed):
        return None
    counts = [number(n) for n in summed]
    part = part_of(counts)
    if not part:
        return None
    if part == counts:
        sch.unsafe_set_dtype(block, 0, HALF)
        return block
    loops = sch.get_loops(block)
    fronts = []
    for loop, count, size in zip(loops[len(loops) - len(counts) :], counts, part, strict=True):
        if size == count:
            continue
        fronts.append(loop if size == 1 else sch.split(loop, [None, size])[0])
    partial = sch.rfactor(sch.fuse(*fronts) if len(fronts) > 1 else fronts[0], 0)
    sch.unsafe_set_dtype(partial, 0, HALF)
    return partial


def place_parts(sch: Any, partial: Any, loop: Any, lanes: int, times: int) -> None:
    """Compute a tile of parts in each round of `loop`; `times` rounds of the sum written out."""
    sch.compute_at(partial, loop)
    around = [sch.get(found).same_as(sch.get(loop)) for found in sch.get_loops(partial)]
    own = sch.get_loops(partial)[around.index(True) + 1 :]
    here = sch.get(partial)
    count = sum(v.iter_type == REDUCING and number(v.dom.extent) > 1 for v in here.iter_vars)
    tile, red = own[: len(own) - count], own[len(own) - count :]
    sch.reorder(*red, *tile)
    finish_tile(sch, tile, vector(extent(sch, tile[-1]), lanes))
    sch.decompose_reduction(partial, unroll(sch, red, times))


def in_halves(func: Any) -> Any:
    """Return `func` with sums that go into float16 computed in it.

    float16(float32(c) + float32(a) * float32(b))  ->  c + a * b
    """
    import tvm_ffi
    from tvm import tirx

    def narrow(value: Any) -> Any:
        wide = isinstance(value, tirx.Cast) and str(value.value.ty.dtype) == HALF
        return value.value if wide else None

    def replaced(cast: Any) -> Any:
        total = cast.value
        if str(cast.ty.dtype) != HALF or not isinstance(total, tirx.Add):
            return cast
        product = total.b
        if not isinstance(product, tirx.Mul):
            return cast
        parts = [narrow(v) for v in (total.a, product.a, product.b)]
        if any(v is None for v in parts):
            return cast
        return parts[0] + parts[1] * parts[2]

    return tvm_ffi.structural_map(func, (tirx.Cast, replaced), order="post")

"""Questions about the blocks of a TIR function that is being scheduled."""

from __future__ import annotations

from typing import Any

from infc.targets.tvm_compiler.symbolic import SOME, number

SPATIAL, REDUCING = 0, 2
"""Kinds of a block's axes, as TVM numbers them."""


def is_reduction(sch: Any, block: Any) -> bool:
    """Whether the block has an axis that it sums, or otherwise folds, over."""
    return any(var.iter_type == REDUCING for var in sch.get(block).iter_vars)


def contiguous(sch: Any, block: Any) -> bool:
    """Whether the innermost dimension of what `block` writes is its innermost loop's."""
    here = sch.get(block)
    write = here.writes[0].region
    spatial = [v for v in here.iter_vars if v.iter_type == SPATIAL]
    if not write or not spatial:
        return False
    return bool(write[-1].min.same_as(spatial[-1].var))


def side_by_side(block: Any) -> bool:
    """Whether some operand has the elements for neighbouring columns beside each other.

    Where none has, as in the mean of each row, a vector of columns would be gathered.
    """
    from tvm.tirx.analysis import undefined_vars

    column = [v.var for v in block.iter_vars if v.iter_type == SPATIAL][-1]
    lasts = [read.region[-1].min for read in block.reads if len(read.region)]
    return any(column.same_as(var) for last in lasts for var in undefined_vars(last))


def is_tiled(sch: Any, block: Any) -> bool:
    """Whether a reduction is computed in tiles of columns, and not along what it sums over."""
    here = sch.get(block)
    sizes = [number(v.dom.extent) for v in here.iter_vars if v.iter_type == SPATIAL]
    if not is_reduction(sch, block) or not sizes or sizes[-1] == 1:
        return False
    return contiguous(sch, block) and side_by_side(here)


def is_einsum(block: Any) -> bool:
    """Whether each operand is read at axes of the block alone, as a matrix product does."""
    own = [v.var for v in block.iter_vars]
    places = [r.min for side in (block.reads, block.writes) for row in side for r in row.region]
    return all(any(place.same_as(var) for var in own) for place in places)


def extent(sch: Any, loop: Any, otherwise: int = 1) -> int:
    """How often a loop goes round, with `otherwise` for each dimension that is open."""
    return number(sch.get(loop).extent, otherwise)


def rounds(block: Any) -> int:
    """How often the body of a block is computed, as a guess where dimensions are open."""
    count = 1
    for var in block.iter_vars:
        count *= number(var.dom.extent, SOME)
    return count


def columns_weigh_more(block: Any) -> bool:
    """Whether the operand that the columns index, the weights, is larger than all others.

    It is then read once, a panel of columns for all rows, and not once for each row.
    """
    from tvm.tirx.analysis import undefined_vars

    spatial = [v for v in block.iter_vars if v.iter_type == SPATIAL]
    weights = others = 0
    for read in block.reads:
        size = 1
        for dim in read.source.shape:
            size *= number(dim, 1)
        mentioned = {v.name for r in read.region for v in undefined_vars(r.min)}
        if spatial[-1].var.name not in mentioned:
            others = max(others, size)
        elif len(spatial) == 1 or spatial[-2].var.name not in mentioned:
            weights = max(weights, size)
    return weights > others


def weights_of(block: Any) -> tuple[int, Any] | None:
    """Which read of a block is its weights, and their buffer: (reduction..., columns).

    None where no read is just that.
    """
    from tvm.tirx.analysis import undefined_vars

    spatial = [v.var for v in block.iter_vars if v.iter_type == SPATIAL]
    summed = [v.var for v in block.iter_vars if v.iter_type == REDUCING]
    for i, read in enumerate(block.reads):
        places = [r.min for r in read.region]
        used = [v for place in places[:-1] for v in undefined_vars(place)]
        if not used or not spatial or not places[-1].same_as(spatial[-1]):
            continue
        if all(any(v.same_as(w) for w in summed) for v in used):
            return i, read.source
    return None

"""What the schedule of a kernel is free to do, as a small record; and what the rule chooses.

    rows x columns   the tile of accumulators in registers; only columns where that is all there is
    columns_first    columns go round outside of rows: a panel of weights is read once for all rows
    unroll           rounds of the innermost reduction loops that are written out
    packed           weights lie as they are read: the columns of a tile, then those of the next
    inline_pad       zeros around a convolution's input are tested for, not written first

A kernel may hold several blocks. The choice is about its main one, that with the most work; the
rule decides about the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from typing import TYPE_CHECKING, Any

from infc.targets.tvm_compiler.integers.schedules import is_dot
from infc.targets.tvm_compiler.scheduling.blocks import (
    SPATIAL,
    columns_weigh_more,
    is_einsum,
    is_reduction,
    is_tiled,
    weights_of,
)
from infc.targets.tvm_compiler.scheduling.blocks import rounds as rounds_of
from infc.targets.tvm_compiler.scheduling.halves import multiplies_halves
from infc.targets.tvm_compiler.scheduling.tiles import Work, tile_for, vector
from infc.targets.tvm_compiler.symbolic import number

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu

MOST = {"rows": 64, "columns": 1024, "unroll": 64}
"""What a number in a choice may be at most: more would be a library of megabytes."""

UNROLLED = 16
"""A reduction of no more rounds is written out."""
SHORT = 32
"""A reduction of no more rounds, as in a depthwise convolution, takes no longer than writing the
zeros around its input would."""

LARGE_BYTES = 1 << 15
"""Of weights that do not stay in the nearest cache while they are read again. Apart by a power of
two, as the rows of a matrix are, their parts also drive each other out of the next one."""
ROWS_TO_PAD = 8
"""Columns of a product are padded for no fewer rows: the operand is copied for that."""
PACKED = {"float32": 4, "float16": 2}
"""Bytes of the types of weights that are laid out anew."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How a kernel is computed."""

    rows: int
    columns: int
    columns_first: bool = False
    unroll: int = 1
    inline_pad: bool = False
    packed: bool = False

    def to_json(self) -> dict[str, Any]:
        """A plain dict, as in a database."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Choice:
        """The inverse of `to_json`.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(data, Mapping) or set(data) != {f.name for f in fields(cls)}:
            raise ValueError("a choice has other fields")
        for name, value in data.items():
            if name in MOST:
                if type(value) is not int or not 0 < value <= MOST[name]:
                    raise ValueError(f"`{name}` of a choice is {value!r}")
            elif type(value) is not bool:
                raise ValueError(f"`{name}` of a choice is {value!r}")
        return cls(**data)

    def __str__(self) -> str:
        """As in a table: `7x64 columns-first unroll 4`."""
        words = [f"{self.rows}x{self.columns}"]
        words += ["columns-first"] if self.columns_first else []
        words += [f"unroll {self.unroll}"] if self.unroll > 1 else []
        words += ["inline-pad"] if self.inline_pad else []
        words += ["packed"] if self.packed else []
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Extents:
    """The sizes of a kernel's main block, which its choices are made from.

    `rows` and `columns` are the two innermost dimensions of what it computes, `reduction` the
    rounds of the loops that it sums over, innermost last, `rounds` all of them together. `tiled`
    says whether it is computed in tiles, and `padded` whether zeros are put around its input. What
    is `settled` has a schedule in which nothing is left to choose. `weight_bytes` are those of
    weights that never change, and can be laid out as is best. Where it is `paddable`, columns
    need not be a multiple of the tile's; where rows are `cropped`, that takes time if they are not.
    It may be products of `halves`.
    """

    rows: int
    columns: int
    reduction: tuple[int, ...]
    rounds: int
    tiled: bool
    padded: bool
    settled: bool = False
    weight_bytes: int = 0
    paddable: bool = False
    cropped: bool = False
    halves: bool = False

    def work(self, cpu: Cpu) -> Work:
        """The same, as the tiles are chosen by."""
        each = 2 if self.halves and cpu.multiplies_halves else 4
        count = prod(self.reduction)
        return Work(self.rows, self.columns, count, self.paddable, self.cropped, each)


def main_block(sch: Any) -> Any:
    """The block with the most work, one that reduces before one that does not; None for none."""
    blocks = sch.get_child_blocks(sch.get_sblock("root"))
    best, most = None, (False, -1)
    for block in blocks:
        weight = (is_reduction(sch, block), rounds_of(sch.get(block)))
        if weight > most:
            best, most = block, weight
    return best


def extents_of(func: Any, constants: frozenset[int] = frozenset()) -> Extents:
    """Those of the main block of `func`, a TIR function that is not scheduled.

    `constants` are the numbers of those of its parameters that never change.
    """
    import tvm
    from tvm.s_tir import Schedule

    sch = Schedule(tvm.IRModule({"main": func}))
    block = main_block(sch)
    if block is None:
        return Extents(1, 1, (), 0, tiled=False, padded=False, settled=True)
    here = sch.get(block)
    sizes = [number(v.dom.extent) for v in here.iter_vars if v.iter_type == SPATIAL] or [1]
    reduction = tuple(number(v.dom.extent) for v in here.iter_vars if v.iter_type != SPATIAL)
    return Extents(
        sizes[-2] if len(sizes) > 1 else 1,
        sizes[-1],
        reduction,
        rounds_of(here),
        tiled=is_tiled(sch, block),
        padded=any(sch.get(p).name_hint == "pad" for p in sch.get_producers(block)),
        settled=is_dot(sch, block),
        weight_bytes=_weight_bytes(func, here, constants),
        cropped=not is_einsum(here),
        halves=multiplies_halves(here),
        paddable=len(sizes) > 1 and sizes[-2] >= ROWS_TO_PAD and is_einsum(here),
    )


def _weight_bytes(func: Any, block: Any, constants: frozenset[int]) -> int:
    found = weights_of(block) if constants else None
    if found is None:
        return 0
    weights = found[1]
    at = next((i for i, p in enumerate(func.params) if p.same_as(weights)), -1)
    dtype = str(weights.dtype)
    if at not in constants or dtype not in PACKED:
        return 0
    return prod(int(n) for n in weights.shape) * PACKED[dtype]


def rule(func: Any, cpu: Cpu, constants: frozenset[int] = frozenset()) -> Choice:
    """The choice that is made without measuring; `func` and `constants` as for `extents_of`."""
    import tvm
    from tvm.s_tir import Schedule

    extents = extents_of(func, constants)
    if not extents.tiled:
        inner = extents.reduction[-1] if extents.reduction else extents.columns
        return Choice(1, vector(inner, cpu.lanes(4)))
    tile = tile_for(extents.work(cpu), cpu)
    sch = Schedule(tvm.IRModule({"main": func}))
    first = columns_weigh_more(sch.get(main_block(sch)))
    count = prod(extents.reduction)
    return Choice(
        tile.rows,
        tile.columns,
        columns_first=first,
        unroll=count if count <= UNROLLED else 1,
        inline_pad=extents.padded and count <= SHORT,
        packed=extents.weight_bytes >= LARGE_BYTES and tile.columns < extents.columns,
    )

"""Parts of tensors. TorchScript: read as source, never imported."""

# ruff: noqa: RUF005 - what they ask for is not in the language.
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def wrapped(index: Tensor, size: int) -> Tensor:
    """Return `index` as int64 with negative ones counted from the end of `size` elements."""
    wide = index.to(torch.int64)
    return torch.where(torch.lt(wide, 0), torch.add(wide, size), wide)


def slices(
    x: Tensor, starts: list[int], ends: list[int], axes: list[int] | None, steps: list[int] | None
) -> Tensor:
    """Slice-13 with anything not known before."""
    for i, start in enumerate(starts):
        axis = i if axes is None else axes[i]
        step = 1 if steps is None else steps[i]
        if step > 0:
            x = torch.ops.aten.slice(x, axis, start, ends[i], step)
        else:
            x = slice_back(x, axis, start, ends[i], step)
    return x


def slice_back(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    """Slice-13 with a negative step, which torch does not have."""
    size = x.shape[axis]
    first = start + size if start < 0 else start
    last = end + size if end < 0 else end
    first = min(max(first, 0), size - 1)
    last = min(max(last, -1), size - 1)
    if first <= last:
        return x.narrow(axis, 0, 0)
    return torch.index_select(x, axis, torch.arange(first, last, step))


def split_evenly(x: Tensor, count: int, axis: int) -> list[Tensor]:
    """Split-18 without sizes: `count` parts of ceil(size / count), the last one smaller."""
    size = x.shape[axis]
    part = (size + count - 1) // count
    sizes = [max(min(part, size - i * part), 0) for i in range(count)]
    parts: list[Tensor] = torch.split_with_sizes(x, sizes, axis)
    return parts


def axis_pads(pads: list[int], axes: list[int] | None, rank: int) -> list[int]:
    """Return begins and ends for every axis, from those for `axes` only."""
    if axes is None:
        return pads
    full = [0 for _ in range(2 * rank)]
    for i, axis in enumerate(axes):
        at = axis + rank if axis < 0 else axis
        full[at] = pads[i]
        full[rank + at] = pads[len(axes) + i]
    return full


def pad_pairs(pads: list[int], axes: list[int] | None, rank: int) -> list[int]:
    """Return the pads of Pad-18 in torch's order: pairs, last axis first."""
    full = axis_pads(pads, axes, rank)
    pairs = [0 for _ in range(2 * rank)]
    for i in range(rank):
        pairs[2 * i] = full[rank - 1 - i]
        pairs[2 * i + 1] = full[2 * rank - 1 - i]
    return pairs


def pad_by_index(x: Tensor, pads: list[int], axes: list[int] | None, mode: str) -> Tensor:
    """Pad-18, modes reflect, edge and wrap: element i of the result is x[f(i - begin)]."""
    rank = x.dim()
    full = axis_pads(pads, axes, rank)
    for axis in range(rank):
        before, after = full[axis], full[rank + axis]
        if before != 0 or after != 0:
            size = x.shape[axis]
            at = torch.arange(-before, size + after)
            if mode == "edge":
                at = torch.clamp(at, min=0, max=size - 1)
            elif mode == "wrap":
                at = torch.remainder(at, size)
            elif size > 1:
                period = torch.remainder(at, 2 * size - 2)
                at = torch.minimum(period, torch.sub(2 * size - 2, period))
            else:
                at = torch.zeros_like(at)
            x = torch.index_select(x, axis, at)
    return x


def gather(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """Gather-13: the axis is replaced by the axes of `index`."""
    at = axis + x.dim() if axis < 0 else axis
    flat = wrapped(index, x.shape[at]).reshape([-1])
    picked = torch.index_select(x, at, flat)
    return picked.reshape(x.shape[:at] + index.shape + x.shape[at + 1 :])


def gather_elements(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """GatherElements-13."""
    return torch.gather(x, axis, wrapped(index, x.shape[axis]))


def flat_positions(index: Tensor, shape: list[int]) -> Tensor:
    """Return the row-major position of each index tuple (the last axis) within `shape`."""
    position = torch.zeros(index.shape[: index.dim() - 1], dtype=torch.int64)
    for i in range(index.shape[-1]):
        position = torch.add(torch.mul(position, shape[i]), wrapped(index[..., i], shape[i]))
    return position


def gather_nd(x: Tensor, index: Tensor, batch_dims: int) -> Tensor:
    """GatherND-13: fold the batch into the positions, then gather slices."""
    depth = index.shape[-1]
    batch = 1
    for size in x.shape[:batch_dims]:
        batch = batch * size
    lead = index.shape[: index.dim() - 1]
    inner = x.shape[batch_dims : batch_dims + depth]
    rest = x.shape[batch_dims + depth :]
    count = 1
    for size in inner:
        count = count * size
    position = flat_positions(index.reshape([batch, -1, depth]), inner)
    offset = torch.mul(torch.arange(batch), count).unsqueeze(1)
    flat = torch.add(position, offset).reshape([-1])
    return torch.index_select(x.reshape([batch * count] + rest), 0, flat).reshape(lead + rest)


def scatter_nd(x: Tensor, index: Tensor, updates: Tensor, reduction: str) -> Tensor:
    """ScatterND-18; `reduction` as torch names it, or none."""
    depth = index.shape[-1]
    rest = x.shape[depth:]
    count = 1
    for size in x.shape[:depth]:
        count = count * size
    inner = 1
    for size in rest:
        inner = inner * size
    position = flat_positions(index, x.shape[:depth]).reshape([-1, 1])
    rows = position.expand([position.shape[0], inner])
    values = updates.reshape([position.shape[0], inner])
    table = x.reshape([count, inner])
    if reduction == "none":
        return torch.scatter(table, 0, rows, values).reshape(x.shape)
    return torch.scatter_reduce(table, 0, rows, values, reduction).reshape(x.shape)


def top_k(x: Tensor, k: int, axis: int, largest: bool) -> tuple[Tensor, Tensor]:
    """TopK-11 in order, ties by index."""
    values, index = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, k), index.narrow(axis, 0, k)


def one_hot(index: Tensor, depth: int, values: Tensor, axis: int) -> Tensor:
    """OneHot-11; `values`: off and on."""
    at = axis + index.dim() + 1 if axis < 0 else axis
    hot = torch.unsqueeze(wrapped(index, depth), at)
    shape = [1 for _ in range(hot.dim())]
    shape[at] = depth
    classes = torch.arange(depth).reshape(shape)
    return torch.where(torch.eq(hot, classes), values[1], values[0])


def unique(x: Tensor, ordered: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unique-11, flat: values, first indices, inverse indices, counts."""
    flat = x.reshape([-1])
    values, inverse, counts = torch._unique2(flat, True, True, True)
    size = flat.shape[0]
    first = torch.full([values.shape[0]], size, dtype=torch.int64)
    first = torch.scatter_reduce(first, 0, inverse, torch.arange(size), "amin")
    if not ordered:
        order = torch.argsort(first)
        rank = torch.argsort(order)
        values, first, counts = values[order], first[order], counts[order]
        inverse = rank[inverse]
    return values, first, inverse, counts


def reverse_sequence(x: Tensor, lengths: Tensor, time: int, batch: int) -> Tensor:
    """ReverseSequence-10."""
    steps = torch.arange(x.shape[time])
    shape = [1 for _ in range(x.dim())]
    shape[time] = x.shape[time]
    step = steps.reshape(shape)
    shape = [1 for _ in range(x.dim())]
    shape[batch] = x.shape[batch]
    length = lengths.to(torch.int64).reshape(shape)
    source = torch.where(torch.lt(step, length), torch.sub(torch.sub(length, 1), step), step)
    return torch.gather(x, time, source.expand(x.shape))

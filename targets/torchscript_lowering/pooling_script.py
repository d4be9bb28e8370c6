"""Pools that torch does not have. TorchScript: read as source, never imported.

Shapes are (N, C, spatial...), windows lists with an entry for each spatial axis, pads in torch's
order: pairs, last axis first.
"""

# ruff: noqa: RUF005 - what they ask for is not in the language.
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def pool_pads(
    shape: list[int],
    pads: list[int],
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    ceil: bool,
) -> list[int]:
    """Return what the last windows reach beyond the padded input, as torch's pads.

    With ceil_mode the count is rounded up, but for a window that would start past the input and
    the pads before it.
    """
    rank = len(kernel)
    beyond = [0 for _ in range(2 * rank)]
    for i in range(rank):
        at = 2 * (rank - 1 - i)
        size, stride = shape[2 + i], strides[i]
        span = (kernel[i] - 1) * dilations[i] + 1
        room = size + pads[at] + pads[at + 1] - span
        last = room // stride
        if ceil and room % stride != 0 and (last + 1) * stride < size + pads[at]:
            beyond[at + 1] = (last + 1) * stride - room
    return beyond


def pad_for_pool(
    x: Tensor,
    pads: list[int],
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    ceil: bool,
    fill: float,
) -> Tensor:
    """Return x padded with `fill` for all its windows."""
    beyond = pool_pads(x.shape, pads, kernel, strides, dilations, ceil)
    return torch.constant_pad_nd(x, [pads[i] + beyond[i] for i in range(len(pads))], fill)


def window_sum(
    x: Tensor,
    pads: list[int],
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    ceil: bool,
) -> Tensor:
    """Return the sum of each window, pads counting as zeros."""
    return dilated_sum(
        pad_for_pool(x, pads, kernel, strides, dilations, ceil, 0.0), kernel, strides, dilations
    )


def dilated_sum(x: Tensor, kernel: list[int], strides: list[int], dilations: list[int]) -> Tensor:
    """Return the sum of each window of x: a convolution with ones, channel by channel."""
    n, c = x.shape[0], x.shape[1]
    flat = x.reshape([n * c, 1] + x.shape[2:])
    ones = torch.ones([1, 1] + kernel, dtype=x.dtype)
    none = [0 for _ in kernel]
    y = torch.convolution(flat, ones, None, strides, none, dilations, False, none, 1)
    return y.reshape([n, c] + y.shape[2:])


def average_pool(
    x: Tensor,
    pads: list[int],
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    ceil: bool,
    include: bool,
) -> Tensor:
    """AveragePool-22: the pads count in the divisor only with `include`, what is beyond never."""
    beyond = pool_pads(x.shape, pads, kernel, strides, dilations, ceil)
    both = [pads[i] + beyond[i] for i in range(len(pads))]
    total = dilated_sum(torch.constant_pad_nd(x, both, 0), kernel, strides, dilations)
    ones = torch.ones([1, 1] + x.shape[2:], dtype=x.dtype)
    if include:
        ones = torch.constant_pad_nd(torch.constant_pad_nd(ones, pads, 1), beyond, 0)
    else:
        ones = torch.constant_pad_nd(ones, both, 0)
    return torch.div(total, dilated_sum(ones, kernel, strides, dilations))


def whole_index(index: Tensor, shape: list[int], column_major: bool) -> Tensor:
    """Return indices into a channel as indices into the whole tensor of `shape`.

    ONNX Runtime's column-major order transposes each channel and keeps the channels in order.
    """
    spatial = 1
    for size in shape[2:]:
        spatial = spatial * size
    inner = index
    if column_major:
        inner = torch.zeros_like(index)
        rest, weight = index, 1
        sizes = shape[2:]
        for i in range(len(sizes)):
            later = 1
            for size in sizes[i + 1 :]:
                later = later * size
            digit = torch.div(rest, later, rounding_mode="floor")
            rest = torch.remainder(rest, later)
            inner = torch.add(inner, torch.mul(digit, weight))
            weight = weight * sizes[i]
    planes = torch.arange(shape[0] * shape[1]).reshape([shape[0], shape[1]])
    for _ in range(len(shape) - 2):
        planes = planes.unsqueeze(-1)
    return torch.add(inner, torch.mul(planes, spatial))


def max_unpool(
    x: Tensor,
    index: Tensor,
    kernel: list[int],
    strides: list[int],
    pads: list[int],
    sizes: list[int] | None,
) -> Tensor:
    """MaxUnpool-22: the indices count in a tensor of the size the attributes imply."""
    rank = len(kernel)
    shape = [x.shape[0], x.shape[1]]
    for i in range(rank):
        shape.append((x.shape[2 + i] - 1) * strides[i] + kernel[i] - pads[i] - pads[rank + i])
    count = 1
    for size in shape:
        count = count * size
    flat = torch.zeros([count], dtype=x.dtype)
    y = torch.scatter(flat, 0, index.reshape([-1]), x.reshape([-1])).reshape(shape)
    if sizes is not None:
        more = [0 for _ in range(2 * y.dim())]
        for i, size in enumerate(sizes):
            more[2 * (y.dim() - 1 - i) + 1] = size - y.shape[i]
        y = torch.constant_pad_nd(y, more, 0)
    return y

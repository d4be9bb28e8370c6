"""Windows over spatial axes. TorchScript: read as source, never imported.

Shapes are (N, C, spatial...), windows lists with an entry for each spatial axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def same_pads(
    shape: list[int], kernel: list[int], strides: list[int], dilations: list[int], upper: bool
) -> list[int]:
    """Return torch's pads, last axis first, so that the result has ceil(size / stride)."""
    rank = len(kernel)
    pads = [0 for _ in range(2 * rank)]
    for i in range(rank):
        size, stride = shape[2 + i], strides[i]
        count = (size + stride - 1) // stride
        total = max((count - 1) * stride + (kernel[i] - 1) * dilations[i] + 1 - size, 0)
        begin = total // 2 if upper else total - total // 2
        pads[2 * (rank - 1 - i)] = begin
        pads[2 * (rank - 1 - i) + 1] = total - begin
    return pads


def minus_per_row(w: Tensor, zero: Tensor) -> Tensor:
    """Return w - zero, where `zero` is a scalar or has one value for each row of w."""
    if zero.numel() == 1:
        return torch.sub(w, zero.to(w.dtype).reshape([1]))
    shape = [1 for _ in range(w.dim())]
    shape[0] = -1
    return torch.sub(w, zero.to(w.dtype).reshape(shape))


def crop_to(y: Tensor, sizes: list[int], extra: list[int], upper: bool) -> Tensor:
    """Return the unpadded transposed convolution cropped (or extended) to `sizes`.

    ConvTranspose-22: total = full + output_padding - size, its smaller half first for SAME_UPPER.
    """
    rank = len(sizes)
    pads = [0 for _ in range(2 * rank)]
    for i in range(rank):
        full = y.shape[2 + i]
        total = max(full + extra[i] - sizes[i], 0)
        begin = total // 2 if upper else total - total // 2
        pads[2 * (rank - 1 - i)] = -begin
        pads[2 * (rank - 1 - i) + 1] = sizes[i] - (full - begin)
    return torch.constant_pad_nd(y, pads, 0)


def crop_to_multiple(
    x: Tensor, y: Tensor, strides: list[int], extra: list[int], upper: bool
) -> Tensor:
    """Return y cropped to x's size times the strides (auto_pad SAME)."""
    sizes = [x.shape[2 + i] * strides[i] for i in range(len(strides))]
    return crop_to(y, sizes, extra, upper)

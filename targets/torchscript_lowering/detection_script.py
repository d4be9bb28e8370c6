"""Detection heads. TorchScript: read as source, never imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def corners(boxes: Tensor, center: bool) -> Tensor:
    """Return (N, 4): y1, x1, y2, x2 with y1 <= y2 and x1 <= x2.

    `boxes` holds two opposite corners as y, x, or with `center` x, y, width, height.
    """
    if center:
        x, y, w, h = torch.unbind(boxes, 1)
        half_w, half_h = torch.div(w, 2), torch.div(h, 2)
        return torch.stack([y - half_h, x - half_w, y + half_h, x + half_w], 1)
    a, b = boxes[:, :2], boxes[:, 2:]
    return torch.cat([torch.minimum(a, b), torch.maximum(a, b)], 1)


def overlaps(box: Tensor, others: Tensor) -> Tensor:
    """Return the intersection over union of `box` with each of `others`."""
    low = torch.maximum(box[:2], others[:, :2])
    high = torch.minimum(box[2:], others[:, 2:])
    common = torch.prod(torch.clamp(torch.sub(high, low), min=0.0), 1)
    area = torch.prod(torch.sub(box[2:], box[:2]), 0)
    areas = torch.prod(torch.sub(others[:, 2:], others[:, :2]), 1)
    union = torch.sub(torch.add(area, areas), common)
    return torch.where(torch.gt(union, 0), torch.div(common, union), torch.zeros_like(common))


def non_max_suppression(
    boxes: Tensor, scores: Tensor, most: int, overlap: float, least: float, center: bool
) -> Tensor:
    """NonMaxSuppression-11. boxes: (B, N, 4); scores: (B, C, N)."""
    rows = torch.jit.annotate(list[Tensor], [])
    for b in range(scores.shape[0]):
        box = corners(boxes[b], center)
        for c in range(scores.shape[1]):
            order = torch.argsort(scores[b, c], stable=True, dim=0, descending=True)
            order = order[torch.gt(scores[b, c][order], least)]
            taken = 0
            while order.shape[0] > 0 and taken < most:
                best = order[0]
                rows.append(torch.stack([torch.tensor(b), torch.tensor(c), best]))
                taken = taken + 1
                rest = order[1:]
                order = rest[torch.le(overlaps(box[best], box[rest]), overlap)]
    if len(rows) == 0:
        return torch.zeros([0, 3], dtype=torch.int64)
    return torch.stack(rows)


def sample_axis(
    start: Tensor, extent: Tensor, bins: int, samples: int, size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return lower and upper index, upper weight, and whether each sample is inside."""
    step = torch.arange(bins * samples, dtype=start.dtype)
    at = start + (step + 0.5) * extent / float(bins * samples)
    inside = torch.logical_and(torch.ge(at, -1.0), torch.le(at, float(size)))
    at = torch.clamp(at, min=0.0)
    low = torch.clamp(torch.floor(at), max=float(size - 1))
    at = torch.where(torch.ge(low, float(size - 1)), low, at)
    high = torch.clamp(torch.add(low, 1.0), max=float(size - 1))
    return low.to(torch.int64), high.to(torch.int64), torch.sub(at, low), inside


def roi_align(
    x: Tensor,
    rois: Tensor,
    batch: Tensor,
    height: int,
    width: int,
    ratio: int,
    scale: float,
    half: bool,
) -> Tensor:
    """RoiAlign-22, mode avg. x: (N, C, H, W); rois: (R, 4) as x1, y1, x2, y2."""
    out = torch.jit.annotate(list[Tensor], [])
    shift = 0.5 if half else 0.0
    for r in range(rois.shape[0]):
        box = torch.sub(torch.mul(rois[r], scale), shift)
        w, h = box[2] - box[0], box[3] - box[1]
        if not half:
            w, h = torch.clamp(w, min=1.0), torch.clamp(h, min=1.0)
        rows = ratio if ratio > 0 else max(int(torch.ceil(h / float(height))), 1)
        columns = ratio if ratio > 0 else max(int(torch.ceil(w / float(width))), 1)
        y0, y1, wy, in_y = sample_axis(box[1], h, height, rows, x.shape[2])
        x0, x1, wx, in_x = sample_axis(box[0], w, width, columns, x.shape[3])
        plane = x[int(batch[r])]
        top, bottom = torch.index_select(plane, 1, y0), torch.index_select(plane, 1, y1)
        wy = wy.reshape([1, -1, 1])
        lines = torch.add(torch.mul(top, 1.0 - wy), torch.mul(bottom, wy))
        left, right = torch.index_select(lines, 2, x0), torch.index_select(lines, 2, x1)
        values = torch.add(torch.mul(left, 1.0 - wx), torch.mul(right, wx))
        mask = torch.logical_and(in_y.reshape([-1, 1]), in_x.reshape([1, -1]))
        values = torch.where(mask, values, torch.zeros_like(values))
        split = values.reshape([x.shape[1], height, rows, width, columns])
        out.append(torch.mean(split, [2, 4]))
    if len(out) == 0:
        return torch.zeros([0, x.shape[1], height, width], dtype=x.dtype)
    return torch.stack(out)

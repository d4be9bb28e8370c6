"""What one pass over the data keeps of a tensor, for every method of calibration afterwards.

Of each sample of each tensor: the exact extremes, the histogram of a subset of the values, and
the mean of each channel. Statistics of samples add up to statistics of all of them; no value is
kept, and their size does not depend on the number of samples or on the tensor's shape (the means
have the size of the channel axis). Shapes may differ from sample to sample.

Sources: minima and maxima, and their averages, after B. Jacob et al., 2018 (arXiv:1712.05877),
section 3.1, with a plain mean in place of the exponential one: with the usual decay of 0.01, the
first of 32 samples would weigh 73 %. Means are what bias correction needs: M. Nagel et al.,
"Data-Free Quantization through Weight Equalization and Bias Correction", 2019 (arXiv:1906.04721).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from infc.calibration.histogram import Histogram

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]

SUBSET = 1 << 15
"""Values of a tensor and sample that are counted, at most; extremes and means see all of them."""
WELL_KNOWN = 128
"""After so many samples fewer values of each are counted: four million of most tensors were."""
LEAST_SUBSET = SUBSET // 4
CHUNK = 1 << 17
"""Values that are looked at together: 512 KiB, which stay in the second cache."""
MAX_CHANNELS = 1 << 16
"""Means along a longer axis are not kept: nobody's weights have so many."""
GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Of the values of one tensor over `samples` samples, in real units.

    `low` and `high` are the extremes of the finite values, `average_low` and `average_high` the
    means over samples of those of each sample. `means`: the mean along every axis but `axis`,
    (C,), float64; None where there is no such axis, where its size changes, or where a value is
    not finite. `elements` counts the finite values.
    """

    samples: int
    elements: int
    nans: int
    infinities: int
    low: float
    high: float
    average_low: float
    average_high: float
    histogram: Histogram
    axis: int | None
    means: Array | None

    @classmethod
    def of_sample(
        cls, low: float, high: float, subset: Subset, axis: int | None, means: Array | None
    ) -> Statistics:
        """Of one sample, whose values are all finite; `axis` is not negative."""
        return cls(
            samples=1,
            elements=subset.size,
            nans=0,
            infinities=0,
            low=low,
            high=high,
            average_low=low,
            average_high=high,
            histogram=Histogram.of(subset.values, subset.stride, max(abs(low), abs(high))),
            axis=axis,
            means=means,
        )

    @property
    def finite(self) -> bool:
        """Whether no value was NaN or infinite."""
        return not self.nans and not self.infinities

    @property
    def magnitude(self) -> float:
        """The greatest absolute value."""
        return max(-self.low, self.high)

    def __add__(self, other: Statistics) -> Statistics:
        """Of the samples of both; `other` are the later ones."""
        if not self.samples or not other.samples:
            known = self if self.samples else other
            nans, infinities = self.nans + other.nans, self.infinities + other.infinities
            return replace(known, nans=nans, infinities=infinities)
        samples = self.samples + other.samples
        elements = self.elements + other.elements
        share, means = other.samples / samples, None
        one, two = self.means, other.means
        same_axis = self.axis == other.axis
        if one is not None and two is not None and same_axis and one.shape == two.shape:
            means = one + (two - one) * (other.elements / elements)
        return Statistics(
            samples,
            elements,
            self.nans + other.nans,
            self.infinities + other.infinities,
            min(self.low, other.low),
            max(self.high, other.high),
            self.average_low + (other.average_low - self.average_low) * share,
            self.average_high + (other.average_high - self.average_high) * share,
            self.histogram + other.histogram,
            self.axis,
            means,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Subset:
    """Every `stride`-th of the `size` finite float32 values of a tensor: (n,)."""

    values: Array
    stride: int
    size: int


def observe(array: Array, axis: int | None, sample: int) -> Statistics:
    """Statistics of one sample of a tensor, of any shape and number type.

    `axis` is that of the channels, negative counts from the end, None for a tensor that has no
    such thing. `sample` is the number of the sample: it decides which subset is counted.
    """
    with np.errstate(over="ignore"):  # a float64 beyond float32 counts as infinite
        values = np.asarray(array, dtype=np.float32, order="C")
    axis = axis_in(values.ndim, axis)
    flat, nans, infinities = values.reshape(-1), 0, 0
    low, high, means = scan(values, axis)
    if not (math.isfinite(low) and math.isfinite(high)):
        nans, infinities = int(np.isnan(flat).sum()), int(np.isinf(flat).sum())
        flat, means = flat[np.isfinite(flat)], None
        low, high = (float(flat.min()), float(flat.max())) if flat.size else (0.0, 0.0)
    start, stride = places_of(values.shape, flat.size, sample)
    subset = Subset(flat[start::stride], stride, int(flat.size))
    found = Statistics.of_sample(low, high, subset, axis, means)
    if flat.size and not nans and not infinities:
        return found
    return replace(found, samples=1 if flat.size else 0, nans=nans, infinities=infinities)


def axis_in(rank: int, axis: int | None) -> int | None:
    """`axis` of a tensor of `rank`, counted from the front; None where it has no such axis."""
    return axis % rank if axis is not None and -rank <= axis < rank else None


def places_of(shape: tuple[int, ...], size: int, sample: int) -> tuple[int, int]:
    """The first value that is counted of sample number `sample`, and the step to the next.

    At most SUBSET of `size` values are, of later samples as many as keep what is known of all of
    them growing with the logarithm of their number, down to LEAST_SUBSET.
    """
    most = max(SUBSET * WELL_KNOWN // max(sample + 1, WELL_KNOWN), LEAST_SUBSET)
    stride = stride_of(shape, size, most)
    return int((sample + 1) * GOLDEN % 1.0 * stride), stride


@functools.lru_cache(maxsize=4096)
def stride_of(shape: tuple[int, ...], size: int, most: int = SUBSET) -> int:
    """The least step that leaves at most `most` of `size` values and shares no factor with `shape`.

    A step that divides a dimension would see some rows or channels only.
    """
    stride = -(-size // most)
    while stride > 1 and any(math.gcd(stride, dim) > 1 for dim in shape if dim > 1):
        stride += 1
    return max(stride, 1)


def scan(values: Array, axis: int | None) -> tuple[float, float, Array | None]:
    """The extremes of float32 `values`, and their means along every axis but `axis`: (C,), float64.

    In one pass over memory, CHUNK values at a time: three passes take 1.6 times as long. Extremes
    are NaN where there is one, 0 for no values. No means where there is no axis, where it is too
    long, or where a sum overflows; they are products with a vector of ones, the fastest sum there
    is.
    """
    if not values.size:
        return 0.0, 0.0, None
    channels = 1 if axis is None else values.shape[axis]
    inner = 1 if axis is None else math.prod(values.shape[axis + 1 :])
    # A row is a channel where one lies together, else one value of each.
    rows = values.reshape(-1, inner if inner > 1 else channels)
    step = max(1, CHUNK // rows.shape[1])
    ones = np.ones(inner if inner > 1 else min(step, len(rows)), np.float32)
    wanted = axis is not None and channels <= MAX_CHANNELS
    lows, highs, sums = [], [], []
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(rows), step):
            chunk = rows[start : start + step]
            lows.append(chunk.min())
            highs.append(chunk.max())
            if wanted:
                sums.append(chunk @ ones if inner > 1 else ones[: len(chunk)] @ chunk)
        low, high = float(np.min(lows)), float(np.max(highs))
        if not wanted:
            return low, high, None
        by_channel = np.concatenate(sums).reshape(-1, channels).sum(axis=0, dtype=np.float64)
    means: Array = by_channel / (values.size // channels)
    return low, high, means if np.isfinite(means).all() else None

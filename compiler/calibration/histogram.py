"""A histogram of fixed size whose bins all have the same relative width, over a range that grows.

    bin of x: sign(x), exponent e, first 7 bits i of the mantissa of x as float32
              2^e (1 + i/128) <= |x| < 2^e (1 + (i + 1)/128)

That is the upper half of the bits of a float32, so that counting costs nothing more. The 20 octaves
below the greatest magnitude are kept; what is smaller counts as zero, which is what every grid of
16 bits or less makes of it. A greater magnitude moves the window up by whole octaves: nothing is
interpolated, so the histogram of two halves of the data is the sum of theirs, in any order, and
neither an outlier nor a spike at zero costs resolution anywhere else (equal bins between the
extremes, as in most calibrators, lose both).

Source: log-linear buckets after G. Tene, HdrHistogram (hdrhistogram.org).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]

STEPS = 128
"""Bins for each octave."""
OCTAVES = 20
BINS = STEPS * OCTAVES
"""Bins for each sign."""
EXPONENT_BIAS = 127
SIGN_KEY = 1 << 15
"""Of the upper 16 bits of a float32: sign, 8 bits of exponent, 7 of mantissa."""
_NAMES = ("lower", "upper") if sys.byteorder == "little" else ("upper", "lower")
HALVES = np.dtype([(name, np.uint16) for name in _NAMES])
"""A float32 as two numbers of 16 bits: the upper one is the key of its bin."""


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """The bins that hold anything, ascending, without zero.

    `low`, `high`: their edges, (B,), real units; `mass`: how many values, (B,), float64.
    `zero` values are 0, or too small to be told from it.
    """

    low: Array
    high: Array
    mass: Array
    zero: float


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts by sign and magnitude.

    `top`: the biased exponent of the greatest octave, 0 where all is zero. `negative` and
    `positive`: counts, (BINS,), int64, ascending magnitude, the last STEPS of them octave `top`.
    """

    top: int
    negative: Array
    positive: Array
    zero: int

    @classmethod
    def empty(cls) -> Histogram:
        """Without any value."""
        return cls(0, np.zeros(BINS, np.int64), np.zeros(BINS, np.int64), 0)

    @classmethod
    def of(cls, values: Array, weight: int, magnitude: float) -> Histogram:
        """Of finite float32 `values` (n,), each counted `weight` times.

        `magnitude` is at least that of each of them, and decides the window.
        """
        counts = np.bincount(values.view(HALVES)["upper"], minlength=1 << 16)
        top = octave_of(magnitude)
        first = max(top - OCTAVES + 1, 1) * STEPS
        end = (top + 1) * STEPS
        positive, negative = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
        if top:
            positive[BINS - end + first :] = counts[first:end]
            negative[BINS - end + first :] = counts[SIGN_KEY + first : SIGN_KEY + end]
        kept = int(positive.sum() + negative.sum())
        return cls(top, negative * weight, positive * weight, (int(values.size) - kept) * weight)

    def __add__(self, other: Histogram) -> Histogram:
        """The histogram of both sets of values."""
        top = max(self.top, other.top)
        one, two = self._raised(top), other._raised(top)
        return Histogram(
            top, one.negative + two.negative, one.positive + two.positive, one.zero + two.zero
        )

    def _raised(self, top: int) -> Histogram:
        """With the window at `top`, which is not below its own."""
        shift = min((top - self.top) * STEPS, BINS)
        if not shift:
            return self
        lost = int(self.negative[:shift].sum() + self.positive[:shift].sum())
        room = np.zeros(shift, np.int64)
        negative = np.concatenate([self.negative[shift:], room])
        positive = np.concatenate([self.positive[shift:], room])
        return Histogram(top, negative, positive, self.zero + lost)

    def edges(self) -> Array:
        """The lower edge of each bin and the upper one of the last: (BINS + 1,), real units."""
        octaves = np.arange(self.top - OCTAVES + 1, self.top + 1) - EXPONENT_BIAS
        steps = 1 + np.arange(STEPS) / STEPS
        lower = np.ldexp(steps, octaves[:, None]).ravel()
        return np.append(lower, np.ldexp(1.0, self.top + 1 - EXPONENT_BIAS))

    def bins(self, low: float, high: float) -> Bins:
        """The bins that hold anything, cut off at the extremes `low` and `high` of the values.

        The bin of each extreme holds at least one value, counted or not.
        """
        edges = self.edges()
        positive, negative = self.positive.astype(np.float64), self.negative.astype(np.float64)
        for extreme, counts in ((high, positive), (-low, negative)):
            if extreme >= edges[0]:
                place = np.searchsorted(edges, extreme, side="right") - 1
                counts[place] = max(counts[place], 1.0)
        lower = np.concatenate([-edges[:0:-1], edges[:-1]])
        upper = np.concatenate([-edges[-2::-1], edges[1:]])
        mass = np.concatenate([negative[::-1], positive])
        held = np.flatnonzero(mass)
        return Bins(
            np.maximum(lower[held], low), np.minimum(upper[held], high), mass[held], self.zero
        )


def octave_of(magnitude: float) -> int:
    """The biased float32 exponent of `magnitude`; 0 below the least normal number."""
    return int(np.float32(magnitude).view(np.uint32)) >> 23

"""From the statistics of a tensor to the range that a method quantises it over.

    minmax      [min, max] of all values
    average     [mean of the samples' minima, mean of their maxima]
    percentile  all but the (100 - p) % of the values that are farthest out
    mse         the range whose grid has the least mean squared error, clipping included
    entropy     the range whose grid has the least Kullback-Leibler divergence

Sources: percentile after H. Wu et al., "Integer Quantization for Deep Learning Inference", 2020
(arXiv:2004.09602). Entropy after S. Migacz, "8-bit Inference with TensorRT", GTC 2017: what is
clipped joins the reference's outermost bins, and the quantised distribution spreads the mass of
each level evenly over its bins that hold anything. Here the bins (8 for each level) follow the
candidate instead of the maximum, levels are centred on what they stand for, and zero, which every
grid represents exactly, is left out of it. MSE: grid search over clipping after M. Nagel et al.,
"A White Paper on Neural Network Quantization", 2021 (arXiv:2106.08295), section 3.1.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from infc.calibration.observers import Statistics
from infc.quantization import INTEGERS, Range

if TYPE_CHECKING:
    from infc.calibration.histogram import Bins

    Array = np.ndarray[Any, np.dtype[Any]]

METHODS = ("minmax", "percentile", "entropy", "mse", "average")
TINY = 2.0**-110
"""A range below this has a scale that float32 holds with few bits or not at all."""
ROUGHLY = np.arange(6 * 4 + 1) / 4
CLOSELY = np.arange(-3, 4) / 16
"""How many octaves an end is drawn in by, in the two rounds of a search."""
BINS_PER_LEVEL = 8
LEAST_SHARE = 1e-9
"""What stands for a probability of zero in the quantised distribution."""


@dataclass(frozen=True, slots=True)
class Grid:
    """An integer grid: `least` to `greatest` for a symmetric one, with zero point 0."""

    least: int
    greatest: int
    symmetric: bool

    def levels(self, low: Array, high: Array) -> tuple[Array, Array, Array]:
        """Scales, and the least and the greatest multiples of them, of the ranges (K,)."""
        if self.symmetric:
            scale = np.maximum(-low, high) / self.greatest
            return scale, np.full_like(scale, self.least), np.full_like(scale, self.greatest)
        scale = (high - low) / (self.greatest - self.least)
        least = -np.rint(-low / scale)
        return scale, least, least + (self.greatest - self.least)


Objective = Callable[["Array", "Array"], "Array"]
"""The costs (K,) of the ranges from low (K,) to high (K,)."""


def choose(
    statistics: Statistics, method: str, percentile: float, integer: str, symmetric: bool
) -> Range:
    """The range for `integer` ("int8" or "uint8") by `method`, one of METHODS.

    A range never goes beyond the extremes, and contains 0. It is [0, 0] where every value is 0
    or too small for a float32 scale. `percentile`, as 99.99, is that method's.

    Raises:
        KeyError: another method or integer type.
    """
    low, high = min(statistics.low, 0.0), max(statistics.high, 0.0)
    if max(-low, high) < TINY:
        return Range(0.0, 0.0)
    least, greatest = INTEGERS[integer]
    middle = (least + greatest + 1) // 2
    grid = Grid(least - middle, greatest - middle, symmetric)
    constant = statistics.low == statistics.high
    chosen = _METHODS["minmax" if constant else method](statistics, low, high, percentile, grid)
    if max(-chosen.low, chosen.high) < TINY:  # clipped down to nothing: keep the little there is
        return Range(low, high)
    return chosen


def _minmax(_s: Statistics, low: float, high: float, _p: float, _grid: Grid) -> Range:
    return Range(low, high)


def _average(s: Statistics, low: float, high: float, _p: float, _grid: Grid) -> Range:
    return Range(max(s.average_low, low), min(s.average_high, high))


def _percentile(s: Statistics, low: float, high: float, percentile: float, grid: Grid) -> Range:
    """A symmetric grid clips by magnitude; another one half of the excess at either end."""
    bins = s.histogram.bins(s.low, s.high)
    tail = (1 - percentile / 100) * (bins.mass.sum() + bins.zero)
    if grid.symmetric:
        ends = np.maximum(np.abs(bins.low), np.abs(bins.high))
        starts = np.minimum(np.abs(bins.low), np.abs(bins.high))
        order = np.lexsort((ends, starts))
        limit = _quantile(starts[order], ends[order], bins.mass[order], tail)
        return Range(max(low, -limit), min(high, limit))
    above, below = bins.low >= 0, bins.high <= 0
    tail = tail / 2 if low < 0 < high else tail
    top = _quantile(bins.low[above], bins.high[above], bins.mass[above], tail)
    flipped = (-bins.high[below][::-1], -bins.low[below][::-1], bins.mass[below][::-1])
    return Range(max(low, -_quantile(*flipped, tail)), min(high, top))


def _quantile(starts: Array, ends: Array, mass: Array, tail: float) -> float:
    """The magnitude with `tail` of `mass` above it; the bins from `starts` to `ends` ascend."""
    left = np.cumsum(mass[::-1])[::-1]
    place = int(np.searchsorted(-left, -tail, side="left")) - 1
    if place < 0:  # all of it is tail, or there is nothing
        return 0.0
    beyond = left[place + 1] if place + 1 < left.size else 0.0
    share = (tail - beyond) / mass[place]
    return float(ends[place] - (ends[place] - starts[place]) * share)


def _mse(s: Statistics, low: float, high: float, _p: float, grid: Grid) -> Range:
    bins = s.histogram.bins(s.low, s.high)

    def cost(lows: Array, highs: Array) -> Array:
        return squared_error(bins, *grid.levels(lows, highs))

    return _search(cost, low, high, grid)


def squared_error(bins: Bins, scale: Array, least: Array, greatest: Array) -> Array:
    """The summed squared error (K,) of K grids: multiples `least` to `greatest` of `scale` (K,).

    Values are spread evenly within a bin. With n the level of x, its error has the integral
    n s^3/12 + (x - n s)^3/3, which also holds beyond the last level.
    """
    scale, least, greatest = scale[:, None], least[:, None], greatest[:, None]

    def integral(x: Array) -> Array:
        level = np.clip(np.rint(x / scale), least, greatest)
        rest = x - level * scale
        area: Array = level * (scale**3 / 12) + rest * rest * rest / 3
        return area

    width = bins.high - bins.low
    wide = width > 0
    total = (integral(bins.high[wide]) - integral(bins.low[wide])) / width[wide]
    # A bin that was cut at an extreme may be left with that one value and no width.
    points = bins.low[~wide]
    rest = points - np.clip(np.rint(points / scale), least, greatest) * scale
    costs: Array = total @ bins.mass[wide] + rest**2 @ bins.mass[~wide]
    return costs


def _entropy(s: Statistics, low: float, high: float, _p: float, grid: Grid) -> Range:
    bins = s.histogram.bins(s.low, s.high)
    knots = np.stack([bins.low, bins.high], axis=1).ravel()
    sums = np.cumsum(bins.mass)
    below = np.stack([sums - bins.mass, sums], axis=1).ravel()

    def cost(lows: Array, highs: Array) -> Array:
        return divergence(knots, below, *grid.levels(lows, highs))

    return _search(cost, low, high, grid)


def divergence(knots: Array, below: Array, scale: Array, least: Array, greatest: Array) -> Array:
    """KL(values || values on the grid) (K,), in nats, of K grids that have as many levels each.

    They are the multiples `least` to `greatest` of `scale` (K,); `below` (B,) is the mass below
    `knots` (B,).
    """
    cells = int(greatest[0] - least[0]) + 1
    steps = np.arange(cells * BINS_PER_LEVEL + 1) / BINS_PER_LEVEL - 0.5
    mass = np.interp((least[:, None] + steps) * scale[:, None], knots, below)
    total = below[-1]
    inside = np.diff(mass, axis=1).reshape(-1, cells, BINS_PER_LEVEL)
    held = inside > 0
    of_level = inside.sum(axis=2)
    level = of_level / np.maximum(held.sum(axis=2), 1)
    level /= np.maximum(of_level.sum(axis=1), LEAST_SHARE)[:, None]
    quantised = np.maximum(held * level[:, :, None], LEAST_SHARE).reshape(len(mass), -1)
    reference = inside.reshape(len(mass), -1) / total
    # The mass beyond the grid, which is what clipping adds to its ends.
    reference[:, 0] += mass[:, 0] / total
    reference[:, -1] += 1 - mass[:, -1] / total
    ratio = np.divide(reference, quantised, out=np.ones_like(reference), where=reference > 0)
    costs: Array = (reference * np.log(ratio)).sum(axis=1)
    return costs


def _search(cost: Objective, low: float, high: float, grid: Grid) -> Range:
    """The range of least cost; of equal ones the widest. [low, high] itself is a candidate.

    First one limit for either sign is searched; where both ends matter, then each on its own.
    """
    reach = max(-low, high)
    ends = np.array([-reach, reach])
    sides = [(1.0, 1.0)]
    if not grid.symmetric and low < 0 < high:
        sides += [(1.0, 0.0), (0.0, 1.0)]
    for side in sides:
        for octaves in (ROUGHLY, CLOSELY):
            drawn = ends * np.exp2(-octaves[:, None] * side)
            lows, highs = np.maximum(drawn[:, 0], low), np.minimum(drawn[:, 1], high)
            ends = drawn[int(np.argmin(cost(lows, highs)))]
        ends = np.clip(ends, low, high)
    return Range(ends[0], ends[1])


_METHODS: dict[str, Callable[[Statistics, float, float, float, Grid], Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
    "average": _average,
}

"""Histograms of tensors as small pictures, for `report.html`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from infc.calibration.observers import Statistics
from infc.calibration.ranges import Ranges
from infc.quantization import Range

COLUMNS = 96
HEIGHT = 40
"""Of a picture, in its own units; a column is one unit wide."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The histogram of a tensor, from its least to its greatest value, and its chosen range.

    `path` outlines how many values there are, on a logarithmic scale; `left` and `right` say
    where the range begins and ends, on the scale of the columns.
    """

    name: str
    path: str
    left: float
    right: float
    low: str
    high: str
    clipped_low: str
    clipped_high: str


def pictures(ranges: Ranges, chosen: Mapping[str, Range]) -> list[Picture]:
    """One for each tensor that has a chosen range, in the order of `chosen`.

    Raises:
        InfcError: E411 where one was not observed.
    """
    ranges.require(chosen)
    return [_picture(name, ranges.tensors[name], span) for name, span in chosen.items()]


def _picture(name: str, s: Statistics, span: Range) -> Picture:
    low, high = min(s.low, 0.0), max(s.high, 0.0)
    width = (high - low) or 1.0
    bins = s.histogram.bins(s.low, s.high)
    knots = np.stack([bins.low, bins.high], axis=1).ravel()
    sums = np.cumsum(bins.mass)
    below = np.stack([sums - bins.mass, sums], axis=1).ravel()
    edges = np.linspace(low, high, COLUMNS + 1)
    counts = np.diff(np.interp(edges, knots, below)) if knots.size else np.zeros(COLUMNS)
    heights = np.log1p(counts)
    tops = HEIGHT * (1 - heights / (heights.max() or 1.0))
    outline = "".join(f"V{top:.1f}h1" for top in tops)
    return Picture(
        name,
        f"M0 {HEIGHT}{outline}V{HEIGHT}Z",
        round((span.low - low) / width * COLUMNS, 2),
        round((span.high - low) / width * COLUMNS, 2),
        _text(low),
        _text(high),
        _text(span.low),
        _text(span.high),
    )


def _text(value: float) -> str:
    return f"{value + 0.0:.4g}"  # no "-0"

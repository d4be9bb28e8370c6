"""A ranges file as `infc inspect` shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infc.calibration.ranges import load
from infc.calibration.thresholds import METHODS, choose
from infc.request import CalibrationOptions

PERCENTILE = CalibrationOptions("data").percentile
INTEGER, SYMMETRIC = "uint8", False
"""Ranges are shown for this grid; those of a symmetric one are as wide as the larger end."""


def describe(path: Path) -> dict[str, Any]:
    """The ranges file `path`: each tensor's extremes, and the range that each method chooses.

    Raises:
        InfcError: E411 where it is none, or damaged.
    """
    ranges = load(path)
    tensors = []
    for name, s in ranges.tensors.items():
        spans = {m: choose(s, m, PERCENTILE, INTEGER, SYMMETRIC) for m in METHODS}
        tensors.append(
            {
                "name": name,
                "samples": s.samples,
                "elements": s.elements,
                "nans": s.nans,
                "infinities": s.infinities,
                "min": s.low,
                "max": s.high,
                "ranges": {method: [span.low, span.high] for method, span in spans.items()},
            }
        )
    return {
        "kind": "ranges",
        "path": str(path),
        "bytes": path.stat().st_size,
        "model": ranges.model,
        "data": ranges.data,
        "samples": ranges.samples,
        "integer": INTEGER,
        "symmetric": SYMMETRIC,
        "percentile": PERCENTILE,
        "tensors": tensors,
    }

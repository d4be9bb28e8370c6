"""The ranges file: what calibration found out, once for every method, scheme and back end.

JSON in real units, one line for each tensor:

    {"format": "infc-ranges", "version": 1, "model": SHA-256, "data": FINGERPRINT, "samples": 128,
     "histogram": {"steps": 128, "octaves": 20}, "tensors": {NAME: {
       "samples", "elements", "nans", "infinities": counts; elements are finite values,
       "min", "max", "average_min", "average_max": of the finite values,
       "axis", "means": the channel axis, and the mean of each channel (null where unknown),
       "zero": how many values are 0 or nearly so,
       "positive", "negative": {EXPONENT: [counts]}: 2^e (1 + i/128) <= |x| < 2^e (1 + (i+1)/128)
     }}}

The file holds no clock, host or path: the same model and data give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infc.calibration.histogram import BINS, EXPONENT_BIAS, OCTAVES, STEPS, Histogram, octave_of
from infc.calibration.observers import MAX_CHANNELS, Statistics
from infc.calibration.thresholds import choose
from infc.diagnostics import Diagnostic, Severity, fail
from infc.formatting import listed
from infc.quantization import Range

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]

FORMAT, VERSION = "infc-ranges", 1
MAX_BYTES = 1 << 30
"""A ranges file of this size is none."""
MAX_COUNT = 1 << 62
MAX_NUMBER = 2.0**128
"""No float32 is as large, and no integer below it is too large for a float64."""
REMEDY = "make it again with `--calibration`"


@dataclass(frozen=True, slots=True)
class Ranges:
    """The statistics of a model's tensors on some data.

    `model`: SHA-256 of the model that was run; `data`: fingerprint of the samples, of which
    `samples` were run.
    """

    model: str
    data: str
    samples: int
    tensors: Mapping[str, Statistics]

    def emptied(self) -> Ranges:
        """Those of no sample."""
        return Ranges(self.model, "", 0, {})

    def choose(
        self,
        names: Iterable[str],
        method: str,
        percentile: float,
        integer: str,
        symmetric: bool,
    ) -> dict[str, Range]:
        """The ranges of the tensors `names`, as `thresholds.choose`.

        Raises:
            InfcError: E411 where one of them was not observed.
        """
        names = list(names)
        self.require(names)
        return {
            name: choose(self.tensors[name], method, percentile, integer, symmetric)
            for name in names
        }

    def require(self, names: Iterable[str]) -> None:
        """Refuse, where a tensor was not observed.

        Raises:
            InfcError: E411 that names them.
        """
        missing = [f"`{name}`" for name in names if name not in self.tensors]
        if missing:
            raise fail(
                "E411",
                f"the ranges hold nothing about {listed(missing)}",
                help=f"they are of another model, or of other tensors of it: {REMEDY}",
            )

    def findings(self) -> tuple[Diagnostic, ...]:
        """Warnings: E412 for each tensor with infinite values."""
        return tuple(
            Diagnostic(
                "E412",
                f"`{name}` holds {s.infinities:,} infinite values on the calibration data",
                help="its range is that of the finite ones; keep it in float if that is wrong",
                severity=Severity.WARNING,
            )
            for name, s in sorted(self.tensors.items())
            if s.infinities
        )

    def dump(self) -> str:
        """The text of the ranges file."""
        head = {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model,
            "data": self.data,
            "samples": self.samples,
            "histogram": {"steps": STEPS, "octaves": OCTAVES},
        }
        rows = [
            f"{json.dumps(name)}: {json.dumps(_tensor(s), allow_nan=False)}"
            for name, s in sorted(self.tensors.items())
        ]
        lines = ",\n  ".join(rows)
        return f'{json.dumps(head)[:-1]},\n "tensors": {{\n  {lines}\n }}}}\n'


def _tensor(s: Statistics) -> dict[str, Any]:
    return {
        "samples": s.samples,
        "elements": s.elements,
        "nans": s.nans,
        "infinities": s.infinities,
        "min": s.low,
        "max": s.high,
        "average_min": s.average_low,
        "average_max": s.average_high,
        "axis": s.axis,
        "means": None if s.means is None else s.means.tolist(),
        "zero": s.histogram.zero,
        "positive": _octaves(s.histogram.top, s.histogram.positive),
        "negative": _octaves(s.histogram.top, s.histogram.negative),
    }


def _octaves(top: int, counts: Array) -> dict[str, list[int]]:
    first = top - OCTAVES + 1 - EXPONENT_BIAS
    rows = counts.reshape(OCTAVES, STEPS)
    return {str(first + i): row.tolist() for i, row in enumerate(rows) if row.any()}


def is_ranges(path: Path) -> bool:
    """Whether the file `path` begins like a ranges file."""
    try:
        with path.open("rb") as stream:
            start = stream.read(256)
        return start.lstrip().startswith(b"{") and f'"{FORMAT}"'.encode() in start
    except OSError:
        return False


def load(path: Path) -> Ranges:
    """Read a ranges file.

    Raises:
        InfcError: E411 where it cannot be read, is none, or is damaged, with the place.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise fail("E411", f"`{path}` is too large for a ranges file", help=REMEDY)
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise fail("E411", f"the ranges file `{path}` cannot be read: {error}") from error
    except _DamagedError as error:
        raise fail("E411", f"`{path}` is no ranges file: {error}", help=REMEDY) from error


class _DamagedError(ValueError):
    """A ranges file that is none, with the place."""


def parse(text: str) -> Ranges:
    """The inverse of `Ranges.dump`.

    Raises:
        ValueError: it is none, with the place.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _DamagedError(f"not JSON ({error})") from error
    head = _object(document, "$", FIELDS)
    if head["format"] != FORMAT:
        raise _DamagedError("`format` is not `infc-ranges`")
    if type(head["version"]) is not int or head["version"] != VERSION:
        raise _DamagedError(f"version {head['version']}; this infc reads version {VERSION}")
    if head["histogram"] != {"steps": STEPS, "octaves": OCTAVES}:
        raise _DamagedError("histograms of another size")
    if not isinstance(head["model"], str) or not isinstance(head["data"], str):
        raise _DamagedError("`model` and `data` are not text")
    if not isinstance(head["tensors"], dict):
        raise _DamagedError("`tensors` is not an object")
    tensors = {name: _statistics(row, f"tensor `{name}`") for name, row in head["tensors"].items()}
    return Ranges(head["model"], head["data"], _count(head["samples"], "`samples`"), tensors)


FIELDS = ("format", "version", "model", "data", "samples", "histogram", "tensors")
TENSOR_FIELDS = (
    *("samples", "elements", "nans", "infinities", "min", "max", "average_min", "average_max"),
    *("axis", "means", "zero", "positive", "negative"),
)


def _object(value: Any, place: str, fields: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(fields):
        raise _DamagedError(f"{place} does not have the fields {', '.join(fields)}")
    return value


def _count(value: Any, place: str) -> int:
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise _DamagedError(f"{place} is not a count")
    return value


def _number(value: Any, place: str) -> float:
    if type(value) not in (int, float) or not -MAX_NUMBER < value < MAX_NUMBER:
        raise _DamagedError(f"{place} is not a number")
    return float(value)


def _statistics(value: Any, place: str) -> Statistics:
    row = _object(value, place, TENSOR_FIELDS)
    samples, elements, nans, infinities = (
        _count(row[k], f"{place}: `{k}`") for k in TENSOR_FIELDS[:4]
    )
    low, high, average_low, average_high = (
        _number(row[k], f"{place}: `{k}`") for k in TENSOR_FIELDS[4:8]
    )
    largest = float(np.finfo(np.float32).max)
    if not -largest <= low <= average_low <= average_high <= high <= largest:
        raise _DamagedError(f"{place}: the extremes and their averages are not in order")
    axis = row["axis"]
    if axis is not None and (type(axis) is not int or not -64 <= axis < 64):
        raise _DamagedError(f"{place}: `axis` is not an axis")
    top = octave_of(max(abs(low), abs(high)))
    histogram = Histogram(
        top,
        _counts(row["negative"], top, f"{place}: `negative`"),
        _counts(row["positive"], top, f"{place}: `positive`"),
        _count(row["zero"], f"{place}: `zero`"),
    )
    return Statistics(
        samples=samples,
        elements=elements,
        nans=nans,
        infinities=infinities,
        low=low,
        high=high,
        average_low=average_low,
        average_high=average_high,
        histogram=histogram,
        axis=axis,
        means=_means(row["means"], f"{place}: `means`"),
    )


def _means(value: Any, place: str) -> Array | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MAX_CHANNELS:
        raise _DamagedError(f"{place} is not a list of means")
    return np.array([_number(v, place) for v in value], np.float64)


def _counts(value: Any, top: int, place: str) -> Array:
    counts = np.zeros(BINS, np.int64)
    rows = counts.reshape(OCTAVES, STEPS)
    names = {str(top - OCTAVES + 1 + i - EXPONENT_BIAS): i for i in range(OCTAVES)}
    if not isinstance(value, dict):
        raise _DamagedError(f"{place} is not an object")
    for exponent, row in value.items():
        if exponent not in names or not isinstance(row, list) or len(row) != STEPS:
            raise _DamagedError(f"{place}: `{exponent}` is not an octave of {STEPS} counts")
        if set(map(type, row)) != {int} or min(row) < 0 or max(row) > MAX_COUNT:
            raise _DamagedError(f"{place}: `{exponent}` holds what is not a count")
        rows[names[exponent]] = row
    if counts.sum(dtype=np.float64) > MAX_COUNT:
        raise _DamagedError(f"{place}: more values than there can be")
    return counts

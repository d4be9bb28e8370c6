"""Who is to blame: from the SQNR of every layer to the first one that diverges.

A layer diverges where its SQNR is below the threshold and that of none of the layers that it reads
is: what those are wrong about already it only passes on, and follows. Where all that reads it is
right it is harmless: a mask of -1e9 that became -16376, or a runtime that gives the value away
wrongly (MindSpore Lite 2.0 does, of a Transpose of an input) but computes on with the right one.

    drop = min over what it reads of SQNR - its own SQNR

SQNR counts for at most what the precision can give, 6.02 bits + 1.76 dB, or else the first layer
of any artifact would have lost the most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from infc.comparison import OutputError
from infc.divergence.layers import Layer
from infc.request import Precision

BITS = {
    Precision.FP32: 24,
    Precision.FP16: 11,
    Precision.BF16: 8,
    Precision.INT8: 8,
    Precision.INT8_DYNAMIC: 8,
}
"""Of a significand, or of an integer."""


class State(StrEnum):
    """What is to be said of a layer."""

    FINE = "fine"
    DIVERGES = "diverges"
    FOLLOWS = "follows"
    HARMLESS = "harmless"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Row:
    """A layer and what was found of it.

    `error` is None where it was not compared, and `reason` says why. `alone` says that nothing
    else was looked at in the artifact that it was measured in. `drop_db` is None where nothing
    was compared, and 0 at least.
    """

    layer: Layer
    error: OutputError | None
    reason: str
    alone: bool
    state: State
    drop_db: float | None

    def to_json(self) -> dict[str, Any]:
        """A plain dict; `sqnr_db` is null where it is exact, or where nothing was compared."""
        figures = self.error.to_json() if self.error is not None else {}
        return {
            "name": self.layer.name,
            "operators": self.layer.operators,
            "value": self.layer.value,
            "reads": list(self.layer.reads),
            "state": str(self.state),
            **{k: figures.get(k) for k in ("sqnr_db", "relative_error", "max_abs_error")},
            "drop_db": None if self.drop_db is None else round(self.drop_db, 1),
            "alone": self.alone,
            "reason": self.reason,
        }


def ceiling_db(precision: Precision) -> float:
    """The SQNR of a full-scale sine rounded to the bits of `precision`."""
    return 6.02 * BITS[precision] + 1.76


def judge(
    layers: Sequence[Layer],
    errors: Mapping[str, OutputError],
    reasons: Mapping[str, str],
    alone: frozenset[str],
    threshold_db: float,
    most_db: float,
) -> tuple[Row, ...]:
    """A row for each of `layers`, in their order, which is topological.

    `errors` and `reasons`, why there is no error, go by the layers' values, of which `alone` were
    measured alone. `most_db` is what an SQNR counts for at most.
    """
    read = _compared(layers, frozenset(errors))
    wrong = {value for value, error in errors.items() if _db(error) < threshold_db}
    readers = {value: [k for k, v in read.items() if value in v and k in errors] for value in wrong}
    rows = []
    for layer in layers:
        value, error = layer.value, errors.get(layer.value)
        if error is None:
            reason = reasons.get(value, "")
            rows.append(Row(layer, None, reason, alone=False, state=State.UNKNOWN, drop_db=None))
            continue
        state = State.FINE
        if value in wrong:
            state = State.FOLLOWS if read[value] & wrong else State.DIVERGES
            # Of an artifact of its own nothing is known about the readers.
            passed_on = layer.output or value in alone or wrong.intersection(readers[value])
            if readers[value] and not passed_on:
                state = State.HARMLESS
        before = min((_db(errors[name]) for name in read[value]), default=math.inf)
        # What a harmless layer is wrong about nobody loses.
        drop = max(min(before, most_db) - min(_db(error), most_db), 0.0)
        drop = 0.0 if state is State.HARMLESS else drop
        rows.append(Row(layer, error, "", value in alone, state, drop))
    return tuple(rows)


def _compared(layers: Sequence[Layer], compared: frozenset[str]) -> dict[str, frozenset[str]]:
    """What each layer reads, by value; what was not `compared` is seen through."""
    read: dict[str, frozenset[str]] = {}
    for layer in layers:
        read[layer.value] = frozenset(
            name
            for value in layer.reads
            for name in ((value,) if value in compared else read.get(value, ()))
        )
    return read


def _db(error: OutputError) -> float:
    """The SQNR as a number, inf where there is no noise; -999 is the least, as in a manifest."""
    return math.inf if error.sqnr_db is None else max(error.sqnr_db, -999.0)


def first_of(rows: Sequence[Row]) -> Row | None:
    """The first layer that diverges."""
    return next((row for row in rows if row.state is State.DIVERGES), None)


def steepest(rows: Sequence[Row]) -> Row | None:
    """The layer with the largest drop, None where no layer has any."""
    dropped = [row for row in rows if row.drop_db]
    return max(dropped, key=lambda row: row.drop_db or 0.0, default=None)

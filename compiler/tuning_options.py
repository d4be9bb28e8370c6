"""How much a back end may measure to find faster kernels, and which measurements it may use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infc.diagnostics import fail

TRIALS = 200
"""Of `infc tune`, where nothing is said."""
MOST_TRIALS = 1_000_000
MOST_MINUTES = 10_000.0


@dataclass(frozen=True, slots=True)
class TuningOptions:
    """What is measured before a build, and which records it uses.

    It ends after `trials` kernels, or after `minutes`; 0 is for no such limit, and with both 0
    nothing is measured. `databases` are files of records, the first that knows a kernel wins, and
    the records of INFC_HOME come last. With `off` no record is used at all. `remote` names devices
    elsewhere that it measures on, "" this machine.
    """

    trials: int = 0
    minutes: float = 0.0
    off: bool = False
    databases: tuple[Path, ...] = ()
    remote: str = ""

    @property
    def measures(self) -> bool:
        """Whether anything is to be measured."""
        return bool(self.trials or self.minutes)

    def to_json(self) -> dict[str, Any]:
        """A plain dict, as in a worker's job; paths are absolute."""
        return {
            "trials": self.trials,
            "minutes": self.minutes,
            "off": self.off,
            "databases": [str(path.resolve()) for path in self.databases],
            "remote": self.remote,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TuningOptions:
        """The inverse of `to_json`."""
        return cls(**{**data, "databases": tuple(Path(p) for p in data.get("databases", ()))})


def budget_for(trials: int | None, minutes: float | None) -> TuningOptions:
    """How long `infc tune` measures: `TRIALS` where nothing is said.

    Raises:
        InfcError: E110 for numbers that make no sense.
    """
    if trials is not None and not 0 < trials <= MOST_TRIALS:
        raise fail("E110", f"`--trials {trials}` is not from 1 to {MOST_TRIALS}")
    if minutes is not None and not 0 < minutes <= MOST_MINUTES:
        raise fail("E110", f"`--minutes {minutes:g}` is not above 0 and up to {MOST_MINUTES:g}")
    return TuningOptions(trials or (0 if minutes else TRIALS), minutes or 0.0)


def parse_tuning(text: str | None, databases: tuple[Path, ...] = ()) -> TuningOptions:
    """Parse what `--tune` says: `trials=200`, `minutes=5`, `off`; None says nothing.

    Raises:
        InfcError: E110 for anything else.
    """
    if text is None:
        return TuningOptions(databases=databases)
    if text == "off":
        if databases:
            raise fail("E110", "`--tune off` uses no record, and `--tuning-database` names some")
        return TuningOptions(off=True)
    trials = re.fullmatch(r"trials=(\d{1,7})", text)
    minutes = re.fullmatch(r"minutes=(\d{1,5}(?:\.\d{1,6})?)", text)
    if trials and 0 < int(trials[1]) <= MOST_TRIALS:
        return TuningOptions(trials=int(trials[1]), databases=databases)
    if minutes and 0 < float(minutes[1]) <= MOST_MINUTES:
        return TuningOptions(minutes=float(minutes[1]), databases=databases)
    raise fail("E110", f"`--tune {text}` makes no sense", help="trials=200, minutes=5 or off")

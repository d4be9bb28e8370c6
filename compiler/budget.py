"""What INT8 may cost: the user's budget, parsed, checked and frozen.

--min-sqnr 25         SQNR of every output on calibration samples, dB
--max-drop 0.5%       metric of the float model - metric in INT8, on labelled data
--max-latency 1.0x    time of a run in INT8 / time of a run of the float artifact
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from infc.diagnostics import did_you_mean, fail

TOP1 = "top1"
"""The part of the samples whose greatest output is the labelled one."""
_NUMBER = r"(?P<number>\d+(?:\.\d*)?|\.\d+)"


def require_metric(metric: str) -> None:
    """Refuse a `--metric` that is neither built in nor a function's name.

    Raises:
        InfcError: E110.
    """
    if metric != TOP1 and ":" not in metric:
        raise fail(
            "E110",
            f"there is no metric `{metric}`",
            help=f"{did_you_mean(metric, [TOP1])}it is `{TOP1}`, "
            "`package.module:function` or `file.py:function`",
        )


@dataclass(frozen=True, slots=True)
class BudgetOptions:
    """What an INT8 artifact has to keep to; None is no limit.

    `min_sqnr_db` is that of the worst output. `max_drop` is a difference of the metric, in its own
    unit: 0.005 is half a percentage point of accuracy. `metric` is `top1`, `module:function` or
    `file.py:function`, `labelled` the data that it is taken on. A run takes at most `max_ratio`
    times as long as one of the float artifact, and at most `max_latency_ms`.
    """

    min_sqnr_db: float | None = None
    max_drop: float | None = None
    metric: str = TOP1
    labelled: str | None = None
    max_ratio: float | None = None
    max_latency_ms: float | None = None

    def __post_init__(self) -> None:
        if self.min_sqnr_db is not None and not math.isfinite(self.min_sqnr_db):
            raise fail("E110", f"`--min-sqnr {self.min_sqnr_db}` is no number of dB")
        if self.max_drop is not None and not 0 <= self.max_drop < math.inf:
            raise fail("E110", f"`--max-drop {self.max_drop:g}` is negative, or no number")
        for limit in (self.max_ratio, self.max_latency_ms):
            if limit is not None and not 0 < limit < math.inf:
                raise fail("E110", f"`--max-latency {limit:g}` is not above 0")
        require_metric(self.metric)
        if self.max_drop is not None and not self.labelled:
            raise fail(
                "E110",
                "`--max-drop` needs labelled data",
                help="`--labelled DATA`: a .npz with the inputs and an array `labels`, a .csv with "
                "`--preprocess label=COLUMN`, or `module:function`",
            )
        if self.max_drop is None and (self.labelled or self.metric != TOP1):
            option = "--labelled" if self.labelled else "--metric"
            raise fail("E110", f"`{option}` says nothing without `--max-drop`")

    @property
    def of_accuracy(self) -> bool:
        """Whether some layers may have to stay in float for it."""
        return self.min_sqnr_db is not None or self.max_drop is not None

    @property
    def of_latency(self) -> bool:
        """Whether the artifact has to be timed."""
        return self.max_ratio is not None or self.max_latency_ms is not None

    def texts(self) -> list[str]:
        """The limits of accuracy as the command line has them."""
        out = []
        if self.min_sqnr_db is not None:
            out.append(f"--min-sqnr {self.min_sqnr_db:g}")
        if self.max_drop is not None:
            out.append(f"--max-drop {self.max_drop:g}")
        return out


def parse_drop(text: str) -> float:
    """Parse a drop: `0.5%` is 0.005, and so is `0.005`.

    Raises:
        InfcError: E110 where it is neither.
    """
    match = re.fullmatch(rf"{_NUMBER}\s*(?P<percent>%?)", text.strip())
    if match is None:
        raise fail("E110", f"`--max-drop {text}` is no drop", help="for example `0.5%` or `0.005`")
    # Not divided: 0.5 / 100 has no more digits than the text.
    return float(f"{match['number']}e-2") if match["percent"] else float(match["number"])


def parse_latency(text: str) -> tuple[float | None, float | None]:
    """Parse a limit of latency into (ratio to the float artifact, milliseconds), one of them None.

    `1.2x` is a ratio, `float` is 1.0x, `5ms`, `800us` and `0.1s` are times.

    Raises:
        InfcError: E110 where it is none of them.
    """
    match = re.fullmatch(rf"{_NUMBER}\s*(?P<unit>x|us|ms|s)", text.strip())
    if text.strip() == "float":
        return 1.0, None
    if match is None:
        raise fail(
            "E110",
            f"`--max-latency {text}` is no limit",
            help="`1.0x` or `float` (of the float artifact's), or a time: `5ms`, `800us`",
        )
    number, unit = float(match["number"]), match["unit"]
    if unit == "x":
        return number, None
    return None, number * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]

"""`--max-latency`: an INT8 artifact that is slower than it may be is none to publish.

Both artifacts are timed in their runtime, in turns, so that a machine that slows down slows both:

    ratio = median over rounds of (median INT8 time / median float time)

and a ratio is too large only where it is above the limit by more than rounds differ.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infc.budget import BudgetOptions
from infc.bundle import Bundle
from infc.diagnostics import fail
from infc.feeds import typical_feeds, write_feeds
from infc.formatting import format_seconds
from infc.request import WorkerLimits
from infc.signature import TensorSpec
from infc.targets import Target
from infc.verification.timing import Timing, bench_in_worker

ROUNDS = 5
ROUND_MS = 400.0
"""Runs of about so long make a round."""
LEAST_RUNS, MOST_RUNS = 5, 200
MARGIN = 0.05
"""What a ratio or a time may be above the limit: less cannot be told from noise."""


@dataclass(frozen=True, slots=True)
class Subject:
    """An artifact to be timed: its target, the file that its runtime opens, inputs and outputs."""

    target: Target
    entry: Path
    signature: tuple[Sequence[TensorSpec], Sequence[TensorSpec]]


def require(
    options: BudgetOptions,
    int8: Subject,
    exact: Subject | None,
    scratch: Path,
    limits: WorkerLimits,
) -> dict[str, Any]:
    """Time the artifact `int8`, and the float one `exact` where the limit is a ratio.

    Returns the figures in ms: `int8_ms`, and with `exact` also `float_ms` and `ratio`.

    Raises:
        InfcError: E422 where it is too slow, E204 and E50x where it does not run.
    """
    subjects = [int8] if exact is None else [int8, exact]
    return judge(options, int8.target.name, race(subjects, scratch, limits))


def race(subjects: Sequence[Subject], scratch: Path, limits: WorkerLimits) -> list[list[float]]:
    """Time the artifacts in turns: for each round the median of each, in ms.

    Raises:
        InfcError: E204 and E50x where one does not run.
    """
    folders = [
        folder
        for i, subject in enumerate(subjects)
        for folder in write_feeds([typical_feeds(subject.signature[0], {})], scratch / str(i))
    ]

    def time_ms(subject: Subject, feeds: Path, runs: int) -> float:
        entry = {"entry": subject.entry.name}
        inputs, outputs = subject.signature
        manifest = {
            "inputs": [v.to_json() for v in inputs],
            "outputs": [v.to_json() for v in outputs],
            "target": subject.target.to_json(),
            "artifact": entry,
        }
        bundle = Bundle(subject.entry.parent, manifest)
        timing = Timing(runs, LEAST_RUNS, 1)
        return float(bench_in_worker(bundle, feeds, timing, scratch, limits)["median_ms"])

    pairs = list(zip(subjects, folders, strict=True))
    counts = [_runs(time_ms(*pair, LEAST_RUNS)) for pair in pairs]
    return [
        [time_ms(*pair, count) for pair, count in zip(pairs, counts, strict=True)]
        for _ in range(ROUNDS)
    ]


def _runs(time_ms: float) -> int:
    return min(MOST_RUNS, max(LEAST_RUNS, round(ROUND_MS / time_ms)))


def judge(options: BudgetOptions, name: str, rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The figures of `rounds`: the times in ms of INT8 and, where it was timed, of float.

    Raises:
        InfcError: E422.
    """
    times = [statistics.median(column) for column in zip(*rounds, strict=True)]
    figures = {"int8_ms": times[0], "rounds": len(rounds)}
    if options.max_latency_ms is not None and times[0] > options.max_latency_ms * (1 + MARGIN):
        raise fail(
            "E422",
            f"the `{name}` artifact takes {_ms(times[0])} for a run, and may take "
            f"{_ms(options.max_latency_ms)}",
            help="nothing was published",
        )
    if options.max_ratio is None or len(times) < 2:
        return figures
    ratios = [int8 / exact for int8, exact in rounds]
    ratio = statistics.median(ratios)
    spread = statistics.median(abs(r - ratio) for r in ratios)
    if ratio > options.max_ratio + max(MARGIN, 2 * spread):
        raise fail(
            "E422",
            f"the `{name}` artifact takes {_ms(times[0])} for a run at int8 and {_ms(times[1])} at "
            f"fp32: {ratio:.2f}x, and may take {options.max_ratio:g}x",
            help="nothing was published: `--precision fp32` is the faster one here",
        )
    return {**figures, "float_ms": times[1], "ratio": ratio, "spread": spread}


def _ms(time_ms: float) -> str:
    return format_seconds(time_ms / 1e3)

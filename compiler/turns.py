"""Artifacts of one back end, timed in turns in one worker: its SDK is imported once.

    round = for each artifact, the median of runs that take about ROUND_MS

A machine that slows down slows all of a round, and what a round before it left in the caches is
the same for all.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from infc import workers
from infc.feeds import typical_feeds, write_feeds
from infc.request import WorkerLimits
from infc.signature import TensorSpec, load_tensors
from infc.targets import RunJob, Target, back_end, module_of

ROUND_MS = 100.0
LEAST_RUNS, MOST_RUNS = 5, 200
WARM_UP = 5
"""Runs before the first that counts: torch specialises a graph in its first two."""


def race(
    entries: Sequence[Path],
    target: Target,
    signature: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
    rounds: int,
    scratch: Path,
    limits: WorkerLimits,
) -> list[list[float]]:
    """Time the artifacts `entries` on one thread: for each round the median of each, in ms.

    Raises:
        InfcError: E204 and E50x where one does not run.
    """
    (feeds,) = write_feeds([typical_feeds(signature[0], {})], scratch / "feeds")
    payload = {
        "module": module_of(target.back_end),
        "target": target.to_json(),
        "entries": [str(entry.resolve()) for entry in entries],
        "inputs": [s.name for s in signature[0]],
        "outputs": [s.name for s in signature[1]],
        "feeds": str(feeds.resolve()),
        "rounds": rounds,
    }
    what = f"`{target.back_end}` while timing the artifacts"
    worker = back_end(target.back_end).worker(target)
    job = workers.Call(
        "infc.turns", "race", payload, scratch / "race", scratch / "log", what, worker
    )
    return [list(map(float, row)) for row in workers.call(job, limits)["rounds_ms"]]


def _race(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The rounds, measured. In a worker."""
    end: Any = import_module(payload["module"])
    target = Target.from_json(payload["target"])
    feeds = load_tensors(Path(payload["feeds"]))
    names = tuple(payload["outputs"]), tuple(payload["inputs"])
    runs = [end.open(RunJob(Path(e), target, *names, threads=1)) for e in payload["entries"]]
    counts = []
    for run in runs:
        _median_ms(run, feeds, WARM_UP)
        each_ms = _median_ms(run, feeds, LEAST_RUNS)
        counts.append(min(MOST_RUNS, max(LEAST_RUNS, round(ROUND_MS / max(each_ms, 1e-3)))))
    return {
        "rounds_ms": [
            [_median_ms(run, feeds, count) for run, count in zip(runs, counts, strict=True)]
            for _ in range(payload["rounds"])
        ]
    }


def _median_ms(run: Callable[[Any], Any], feeds: Any, number: int) -> float:
    times_s = []
    for _ in range(number):
        start = time.perf_counter()
        run(feeds)
        times_s.append(time.perf_counter() - start)
    return statistics.median(times_s) * 1e3


ACTIONS = {"race": _race}

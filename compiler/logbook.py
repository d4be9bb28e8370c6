"""What may differ from build to build: the times, and the worker's log."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infc import bundle, pipeline, report

TIMINGS = "timings.json"
"""What every log folder holds."""


def keep(
    scratch: Path,
    log: Path,
    document: Mapping[str, Any] | None,
    passes: Sequence[pipeline.PassRecord],
    watch: Stopwatch,
) -> None:
    """Publish the log folder of a target; `document` is its manifest, None where it failed."""
    timings: dict[str, Any] = {
        "steps": {k: round(v, 6) for k, v in watch.seconds.items()},
        "passes": [r.to_json(timings=True) for r in passes],
    }
    if watch.latency:
        timings["latency"] = watch.latency
    timings |= watch.measured
    folder = scratch / "log-folder"
    folder.mkdir(parents=True)
    if (scratch / "log").exists():
        shutil.copyfile(scratch / "log", folder / "worker.log")
    (folder / TIMINGS).write_text(json.dumps(timings, indent=2) + "\n", encoding="utf-8")
    if document is not None:
        (folder / "report.html").write_text(report.render(document, timings), encoding="utf-8")
    bundle.publish(folder, log)


class Stopwatch:
    """Seconds for each step, announced as they begin."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self.latency: dict[str, Any] = {}
        """Of the artifacts, where they were timed."""
        self.measured: dict[str, Any] = {}
        """As in a `TargetResult`."""
        self.announce = announce
        self._running: tuple[str, float] | None = None

    def start(self, step: str) -> None:
        """End the running step and begin another."""
        self.stop()
        self.announce(step)
        self._running = (step, time.perf_counter())

    def stop(self) -> None:
        """End the running step."""
        if self._running is not None:
            step, began = self._running
            self.seconds[step] = time.perf_counter() - began
            self._running = None

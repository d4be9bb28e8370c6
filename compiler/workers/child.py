"""What a worker in infc's own package does for a back end: check, build, run, bench.

A module may define `ACTIONS` of its own as well: name to function of the payload. One that runs
models without being a back end has `open` and `device` alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from infc.signature import TensorSpec, load_tensors, save_tensors
from infc.targets import Artifact, BackEnd, BuildJob, RunJob, Target
from infc.tuning_options import TuningOptions
from infc.workers.protocol import report


def actions(module: str) -> Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]]:
    """The actions of `module`: its own before those of a back end."""
    end: Any = import_module(module)
    own: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]]
    own = getattr(end, "ACTIONS", {})
    return {name: partial(action, end) for name, action in ACTIONS.items()} | dict(own)


def _specs(rows: Any) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec.from_json(row) for row in rows)


def _check(end: BackEnd, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Every node that the back end cannot take."""
    rows = end.check(Path(payload["model"]), Target.from_json(payload["target"]))
    return {"unsupported": [[u.node, u.op_type, u.domain, u.reason] for u in rows]}


def _build_job(payload: Mapping[str, Any]) -> BuildJob:
    return BuildJob(
        Path(payload["model"]),
        Path(payload["output"]),
        Target.from_json(payload["target"]),
        _specs(payload["inputs"]),
        _specs(payload["outputs"]),
        tuple(Path(folder) for folder in payload.get("calibration", ())),
        report,
        str(payload.get("name", "model")),
        TuningOptions.from_json(payload.get("tuning", {})),
    )


def _build(end: BackEnd, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Check, then build; the answer holds either `unsupported` or the artifact."""
    checked = _check(end, payload)
    if checked["unsupported"]:
        return checked
    output = Path(payload["output"])
    output.mkdir(parents=True, exist_ok=True)
    artifact: Artifact = end.build(_build_job(payload))
    return {"entry": artifact.entry, "files": list(artifact.files), "notes": dict(artifact.notes)}


def _tune(end: Any, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Check, then measure; the answer holds either `unsupported` or what was found."""
    checked = _check(end, payload)
    if checked["unsupported"]:
        return checked
    return dict(end.tune(_build_job(payload)))


def _run_job(payload: Mapping[str, Any]) -> RunJob:
    return RunJob(
        Path(payload["entry"]),
        Target.from_json(payload["target"]),
        tuple(payload["outputs"]),
        tuple(payload["inputs"]),
        payload["threads"],
        payload.get("remote", ""),
    )


def _run(end: BackEnd, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Run every folder of feeds through one opened artifact; outputs go to the paired folder.

    The answer says on which device that was.
    """
    run = end.open(_run_job(payload))
    for feeds, outputs in payload["sets"]:
        results = run(load_tensors(Path(feeds)))
        save_tensors(Path(outputs), {name: results[name] for name in payload["outputs"]})
    return {"ran_on": payload.get("remote") or end.device(Target.from_json(payload["target"]))}


def _bench(end: BackEnd, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Time runs on one set of feeds, in milliseconds."""
    run = end.open(_run_job(payload))
    feeds = load_tensors(Path(payload["feeds"]))
    for _ in range(payload["warmup"]):
        run(feeds)
    times_ms = []
    for _ in range(payload["runs"]):
        start = time.perf_counter()
        run(feeds)
        times_ms.append((time.perf_counter() - start) * 1e3)
    return {
        "runs": len(times_ms),
        "min_ms": min(times_ms),
        "median_ms": statistics.median(times_ms),
        "max_ms": max(times_ms),
        "ran_on": end.device(Target.from_json(payload["target"])),
    }


ACTIONS: dict[str, Callable[[Any, Mapping[str, Any]], dict[str, Any]]] = {
    "check": _check,
    "build": _build,
    "tune": _tune,
    "run": _run,
    "bench": _bench,
}

"""The worker's side of the protocol: `python -m infc.workers.child JOB`.

It takes its limits on itself, imports the back end, does the one thing asked for, and writes the
result beside the job, in one rename, so that a result that exists is whole.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from infc.signature import TensorSpec, load_tensors, save_tensors
from infc.targets import Artifact, BackEnd, BackEndError, BuildJob, RunJob, Target

PR_SET_PDEATHSIG = 1


def main() -> int:
    """Do the job named on the command line; the exit status says only whether it ran."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    _take_limits(job["memory_bytes"])
    answer: dict[str, Any]
    try:
        end: Any = import_module(job["module"])
        answer = {"ok": True, "value": ACTIONS[job["action"]](end, job["payload"])}
    except Exception as error:
        answer = {"ok": False, **_describe(error), "traceback": traceback.format_exc()}
    result = Path(job["result"])
    partial = result.with_suffix(".partial")
    partial.write_text(json.dumps({"protocol": 1, **answer}), encoding="utf-8")
    partial.replace(result)
    sys.stdout.flush()
    sys.stderr.flush()
    # Some runtimes crash in their static destructors; the answer is written, so leave at once.
    os._exit(0)


def _take_limits(memory_bytes: int | None) -> None:
    """Die with the driver, and fail to allocate above `memory_bytes`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _describe(error: Exception) -> dict[str, str]:
    kinds: tuple[tuple[type[Exception], str], ...] = (
        (BackEndError, "refused"),
        (ModuleNotFoundError, "missing"),
        (MemoryError, "memory"),
    )
    kind = next((k for t, k in kinds if isinstance(error, t)), "error")
    return {"kind": kind, "type": type(error).__name__, "message": str(error)}


def _specs(rows: Any) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec.from_json(row) for row in rows)


def _check(end: BackEnd, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Every node that the back end cannot take."""
    rows = end.check(Path(payload["model"]), Target.from_json(payload["target"]))
    return {"unsupported": [[u.node, u.op_type, u.domain, u.reason] for u in rows]}


def _build(end: BackEnd, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Check, then build; the answer holds either `unsupported` or the artifact."""
    target = Target.from_json(payload["target"])
    model = Path(payload["model"])
    checked = _check(end, payload)
    if checked["unsupported"]:
        return checked
    output = Path(payload["output"])
    output.mkdir(parents=True, exist_ok=True)
    artifact: Artifact = end.build(
        BuildJob(model, output, target, _specs(payload["inputs"]), _specs(payload["outputs"]))
    )
    return {"entry": artifact.entry, "files": list(artifact.files), "notes": dict(artifact.notes)}


def _run_job(payload: Mapping[str, Any]) -> RunJob:
    return RunJob(
        Path(payload["entry"]),
        Target.from_json(payload["target"]),
        tuple(payload["outputs"]),
        tuple(payload["inputs"]),
        payload["threads"],
    )


def _run(end: BackEnd, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Run every folder of feeds through one opened artifact; outputs go to the paired folder.

    The answer says on which device that was.
    """
    run = end.open(_run_job(payload))
    for feeds, outputs in payload["sets"]:
        results = run(load_tensors(Path(feeds)))
        save_tensors(Path(outputs), {name: results[name] for name in payload["outputs"]})
    return {"ran_on": end.device(Target.from_json(payload["target"]))}


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
    "run": _run,
    "bench": _bench,
}

if __name__ == "__main__":
    sys.exit(main())

"""The process that touches the library: it may crash, and then says so by dying.

    python3 child.py REQUEST RESULT

reads the request and writes the result, both JSON; what it prints is a log. It dies with the
process that started it. It is a program of its own and imports nothing of this package, which has
one name in a bundle and another one in infc.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PR_SET_PDEATHSIG = 1
WARMUP, RUNS = 10, 50
"""Runs that are timed, after as many that are not."""
SAY_S = 1.0
"""How often a build says how far it is: TensorRT has thousands of steps."""


def main() -> None:
    """Do what the request says; the status says nothing but that it was done."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    builder = _load(request["builder"])
    try:
        value = ACTIONS[request["action"]](builder, request)
        answer = {"ok": True, "value": value}
    except builder.BuildError as error:
        answer = {"ok": False, "kind": "refused", "message": str(error)}
    except ImportError as error:
        answer = {"ok": False, "kind": "machine", "message": str(error)}
    except OSError as error:
        message = f"{error.filename}: {error.strerror}"
        answer = {"ok": False, "kind": "refused", "message": message}
    result = Path(sys.argv[2])
    partial = result.with_name(result.name + ".partial")
    partial.write_text(json.dumps(answer), encoding="utf-8")
    partial.replace(result)
    sys.stdout.flush()
    # A GPU library may crash in its destructors: the answer is written, so leave at once.
    os._exit(0)


def _load(path: str) -> Any:
    """The builder, a file that is no module of this package."""
    spec = importlib.util.spec_from_file_location("build_engine", path)
    assert spec is not None and spec.loader is not None
    builder = importlib.util.module_from_spec(spec)
    sys.modules["build_engine"] = builder
    spec.loader.exec_module(builder)
    return builder


def _probe(builder: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """The library's version, and the first GPU."""
    trt = importlib.import_module(request["module"])
    return {"version": str(trt.__version__), "gpu": builder.probe()}


def _gpu(builder: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """The first GPU, where there is no library."""
    return {"gpu": builder.probe()}


def _build(builder: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """Build the engine; its progress goes to the log."""
    trt = importlib.import_module(request["module"])
    due = 0.0

    def progress(phase: str, done: int, total: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + SAY_S
            print(f"{phase}: {100 * done // max(total, 1)} %", flush=True)  # noqa: T201

    facts: dict[str, Any] = builder.build(
        trt,
        request["spec"],
        request["graph"],
        request["engine"],
        request["timing_cache"],
        progress,
    )
    return facts


def _run(builder: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """Run every input set through one opened engine, and time the first one."""
    trt = importlib.import_module(request["module"])
    session = builder.open_engine(trt, request["engine"], request["spec"])
    for given, answers in request["sets"]:
        builder.write_tensors(answers, session.run(builder.read_tensors(given)))
    feeds = builder.read_tensors(request["sets"][0][0])
    times_ms = builder.bench(trt, request["engine"], feeds, request["spec"], RUNS, WARMUP)
    return {
        "runs": RUNS,
        "min_ms": round(min(times_ms), 4),
        "median_ms": round(statistics.median(times_ms), 4),
        "max_ms": round(max(times_ms), 4),
    }


ACTIONS: dict[str, Callable[[Any, Mapping[str, Any]], dict[str, Any]]] = {
    "probe": _probe,
    "gpu": _gpu,
    "build": _build,
    "run": _run,
}

if __name__ == "__main__":
    main()

"""A child process for each step, with a time limit; its log is passed on line by line."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .device_error import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable

    Log = Callable[[str], None]
    """Takes a line of what a step prints."""

TAIL_LINES = 12
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def call(
    action: str, request: dict[str, Any], scratch: Path, log: Log, timeout_s: float | None
) -> dict[str, Any]:
    """Run `child` with `request` and return its value.

    Raises:
        DeviceError: machine, refused, crashed, time.
    """
    asked, result = scratch / f"{action}.json", scratch / f"{action}.result.json"
    with contextlib.suppress(FileNotFoundError):
        result.unlink()
    asked.write_text(json.dumps(dict(request, action=action)), encoding="utf-8")
    program = str(Path(__file__).resolve().with_name("child.py"))
    lines: list[str] = []

    def keep(line: str) -> None:
        lines.append(line)
        del lines[:-TAIL_LINES]
        log(line)

    status = run([sys.executable, program, str(asked), str(result)], keep, timeout_s)
    tail = "\n".join(["the last lines of its log:", *lines]) if lines else ""
    if status is None:
        raise DeviceError("time", f"{_WHAT[action]} took more than {timeout_s:g} s", details=tail)
    if not result.exists():
        how = f"with {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        raise DeviceError("crashed", f"{_WHAT[action]} ended {how}", details=tail)
    answer = json.loads(result.read_text(encoding="utf-8"))
    if not answer["ok"]:
        full = answer["message"].endswith(tuple(os.strerror(number) for number in FULL))
        raise DeviceError("disk" if full else answer["kind"], answer["message"])
    value: dict[str, Any] = answer["value"]
    return value


_WHAT = {
    "probe": "looking at the library and the GPU",
    "gpu": "looking at the GPU",
    "build": "building the engine",
    "run": "running the engine",
}


def run(command: list[str], log: Log, timeout_s: float | None) -> int | None:
    """The exit status of `command`, negative for a signal; None where the time ran out."""
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="1")
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    ran_out = threading.Event()

    def stop() -> None:
        ran_out.set()
        _kill(process)

    timer = threading.Timer(timeout_s, stop) if timeout_s is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            log(line.decode("utf-8", "replace").rstrip())
        status = process.wait()
        return None if ran_out.is_set() else status
    finally:
        if timer is not None:
            timer.cancel()
        _kill(process)
        process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The child and its own children: they share its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)

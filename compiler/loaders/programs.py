"""Programs that infc starts: the compilers of loaders, and the loaders themselves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

from infc.diagnostics import fail
from infc.request import WorkerLimits

END_S = 2.0
"""How long a program may take to end its own children and to remove its temporary files."""


def call(
    command: Sequence[str], limits: WorkerLimits, what: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in a session of its own, which ends with it.

    Raises:
        InfcError: E503 where it takes too long.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=limits.timeout_s)
    except subprocess.TimeoutExpired as error:
        raise fail(
            "E503",
            f"{what} was stopped after {limits.timeout_s:g} s",
            help="raise the limit with `--timeout SECONDS`",
        ) from error
    finally:
        if process.poll() is None:
            _end(process)
    return subprocess.CompletedProcess(list(command), process.returncode, out, err)


def _end(process: subprocess.Popen[str]) -> None:
    """End a session: SIGTERM first, as ninja's compilers are in groups that only ninja ends."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=END_S if number == signal.SIGTERM else None)
            return


def run_program(command: Sequence[str], what: str, limits: WorkerLimits) -> dict[str, Any]:
    """Run `command` and return what it prints as JSON.

    Raises:
        InfcError: E502 where it crashes, E503 where it takes too long, E705 where it fails.
    """
    done = call(command, limits, what)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise fail("E502", f"{what} crashed with {name}", notes=[_tail(done.stderr)])
    if done.returncode != 0:
        raise fail("E705", f"{what} failed", notes=[_tail(done.stderr)])
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise fail("E705", f"{what} printed something else than JSON") from error
    return answer


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-12:]) or "it said nothing"

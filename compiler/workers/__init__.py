"""The subprocess protocol: every build and every run of an artifact is somebody else's process.

The driver writes a job (JSON), starts `python protocol.py JOB`, and reads the result file that the
job names. Standard output and error of the child go to a log. Whatever happens in there - a
segmentation fault, an endless loop, `exit(0)`, text where JSON was due - comes back as one E5xx
diagnostic with the last lines of that log.

The child runs in infc's own environment, or in that of a toolchain: with a script of the back
end's own, or with infc's source, which the job says the place of.

    job     {"protocol": 1, "module": ..., "script": PATH | "", "packages": {NAME: FOLDER},
             "action": ..., "payload": {...}, "result": PATH, "memory_bytes": N | null,
             "fixed_addresses": BOOL, "without": [MODULE, ...]}
    result  {"protocol": 1, "ok": true, "value": {...}}
          | {"protocol": 1, "ok": false, "kind": "refused" | "missing" | "memory" | "diagnosed" |
             "error", "type": ..., "message": ..., "traceback": ..., "diagnostics": [...]}
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from infc.diagnostics import Diagnostic, InfcError, fail
from infc.model_key import VARIABLE as KEY_VARIABLE
from infc.request import WorkerLimits
from infc.targets import Worker
from infc.workers.protocol import PROGRESS, PROTOCOL

LOG_TAIL_LINES = 12
POLL_S = 0.2
"""How often the driver looks how far a worker is."""
LONGEST_WAIT_S = 86400.0
"""poll(2) takes at most 24 days, in milliseconds."""
PACKAGES = ("infc", "infc.passes", "infc.targets", "infc.templates")
"""Whose folders a toolchain's interpreter is told; the subpackages lie in them."""
HERE = Worker()
"""infc's own environment."""
Progress = Callable[[Mapping[str, Any]], None]
"""Called with what a worker reports, {"done": 3, "total": 128}, now and then."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call into a worker: `module` and `action` say what, `scratch` is a folder it may use."""

    module: str
    action: str
    payload: dict[str, Any]
    scratch: Path
    log: Path
    what: str
    """For messages: "`openvino` while building"."""
    worker: Worker = HERE


def call(job: Call, limits: WorkerLimits, progress: Progress | None = None) -> dict[str, Any]:
    """Run `job` in a process of its own and return the value it answers with.

    Raises:
        InfcError: E204 the back end refused, E501 something it needs is missing, E502 it
            crashed, E503 the time limit, E504 no sensible answer, E505 the memory limit, E506
            any other error. Each carries the tail of the log. What the worker itself raised
            as diagnostics comes back as such.
    """
    job.scratch.mkdir(parents=True, exist_ok=True)
    job.log.parent.mkdir(parents=True, exist_ok=True)
    # The child runs in its scratch folder, where a relative path would mean another file.
    scratch = job.scratch.resolve()
    request, result = scratch / "job.json", scratch / "result.json"
    result.unlink(missing_ok=True)
    document = {
        "protocol": PROTOCOL,
        "module": job.module,
        "script": str(job.worker.script or ""),
        "packages": _packages() if job.worker.toolchain and not job.worker.script else {},
        "action": job.action,
        "payload": job.payload,
        "result": str(result),
        "memory_bytes": limits.memory_bytes,
        "fixed_addresses": job.worker.fixed_addresses,
        "without": job.worker.without,
    }
    request.write_text(json.dumps(document), encoding="utf-8")
    start = job.log.stat().st_size if job.log.exists() else 0
    with job.log.open("ab") as log, _interpreter(job.worker) as interpreter:
        command = [*interpreter, str(request)]
        environment = _environment(job.worker)
        status = _run(command, environment, log, limits.timeout_s, scratch, progress)
    tail = _tail(job.log, start)
    if status is None:
        raise fail(
            "E503",
            f"{job.what} was stopped after {limits.timeout_s:g} s",
            notes=tail,
            help="raise the limit with `--timeout SECONDS`",
        )
    return _answer(job, status, result, tail)


@contextlib.contextmanager
def _interpreter(worker: Worker) -> Iterator[list[str]]:
    """The start of the command: infc's own interpreter, or that of the toolchain, which stays.

    Raises:
        InfcError: E501 where the toolchain is not installed, or too old for infc's source.
    """
    program = str(Path(__file__).with_name("protocol.py"))
    if not worker.toolchain:
        yield [sys.executable, "-P", program]
        return
    from infc.workers import toolchains

    environment = toolchains.require(worker.toolchain, own_source=worker.script is None)
    # `-I` would have PYTHONHASHSEED ignored, and what goes through sets of names, as tf2onnx does,
    # answer otherwise every time. Python 3.7, which scripts are for, has no `-P`.
    alone = ["-I"] if worker.script else ["-P", "-s"]
    with environment.held():
        yield [str(environment.python), *alone, program]


def _packages() -> dict[str, str]:
    return {name: str(next(iter(import_module(name).__path__))) for name in PACKAGES}


def _environment(worker: Worker) -> dict[str, str]:
    """The variables of a worker: in a toolchain, none of those that lead Python elsewhere."""
    mine = {
        k: v for k, v in os.environ.items() if not (worker.toolchain and k.startswith("PYTHON"))
    }
    mine.pop(KEY_VARIABLE, None)  # the vendors' code has no business with it
    return {**mine, "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}


def _run(
    command: list[str],
    environment: dict[str, str],
    log: Any,
    timeout_s: float,
    scratch: Path,
    progress: Progress | None,
) -> int | None:
    """Return the exit status, negative for a signal, or None where the time ran out."""
    reported = scratch / "progress.json"
    reported.unlink(missing_ok=True)
    with _temporary(scratch) as temporary:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=scratch,
            env={**environment, PROGRESS: str(reported), "TMPDIR": str(temporary)},
            start_new_session=True,
        )
        try:
            return _wait(process, timeout_s, reported, progress)
        finally:
            # The worker may have left children behind; its session is theirs too.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def _temporary(scratch: Path) -> Iterator[Path]:
    """A folder for the worker's temporary files, gone with it, however that ends.

    It is where such files always are, since sockets in it have paths of at most 107 bytes, and in
    `scratch` only where there is no room.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="infc-worker-"))
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="tmp-", dir=scratch))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(
    process: subprocess.Popen[bytes], timeout_s: float, reported: Path, progress: Progress | None
) -> int | None:
    """The exit status, or None where the time ran out; passes on what the worker reports."""
    deadline = time.monotonic() + timeout_s
    with _watched(process) as ended_within:
        while True:
            left = deadline - time.monotonic()
            if ended_within(max(0.0, min(left, POLL_S) if progress else left)):
                return process.wait()
            if left <= 0:
                return None
            if progress is not None and reported.exists():
                # It is replaced in one rename: what is there is whole.
                progress(json.loads(reported.read_text(encoding="utf-8")))


@contextlib.contextmanager
def _watched(process: subprocess.Popen[bytes]) -> Iterator[Callable[[float], bool]]:
    """Yields what waits for the end of `process` so many seconds, and says whether it came.

    `Popen.wait` with a limit looks every 50 ms, which is a tenth of a small job; Linux wakes
    whoever waits for a descriptor of the process. Source: pidfd_open(2), Linux 5.3.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        yield lambda seconds: _ended_within(process, seconds)
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        yield lambda seconds: bool(poll.poll(min(seconds, LONGEST_WAIT_S) * 1000))
    finally:
        os.close(descriptor)


def _ended_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _answer(job: Call, status: int, result: Path, tail: tuple[str, ...]) -> dict[str, Any]:
    if status < 0:
        name = signal.Signals(-status).name
        if status == -signal.SIGKILL:
            raise fail(
                "E505",
                f"{job.what} was killed ({name}), most likely for its memory",
                notes=tail,
                help="give the machine more memory, or the model smaller inputs",
            )
        raise fail("E502", f"{job.what} crashed with {name}", notes=tail)
    if not result.exists():
        raise fail(
            "E502" if status else "E504",
            f"{job.what} left with status {status} and without an answer",
            notes=tail,
        )
    try:
        answer = json.loads(result.read_text(encoding="utf-8"))
        if answer["protocol"] != PROTOCOL:
            raise ValueError("protocol")
        if answer["ok"]:
            value = answer["value"]
            if not isinstance(value, dict):
                raise TypeError("value")
            return value
        kind, message = str(answer["kind"]), str(answer["message"])
        rows = answer.get("diagnostics", ())
        diagnosed = tuple(Diagnostic.from_json(row) for row in rows)
        error_type = str(answer["type"])
        # For whoever reads the log; the diagnostic has the message and what came before.
        with job.log.open("a", encoding="utf-8") as log:
            log.write(str(answer["traceback"]))
    except (ValueError, KeyError, TypeError) as error:
        raise fail(
            "E504", f"{job.what} gave an answer that is not of the protocol", notes=tail
        ) from error
    if diagnosed:
        raise InfcError(*diagnosed)
    raise _failure(job, kind, error_type, message, tail)


def _failure(
    job: Call, kind: str, error_type: str, message: str, tail: tuple[str, ...]
) -> InfcError:
    if kind == "refused":
        return fail("E204", f"{job.what}: {message}")
    if kind == "missing":
        return fail("E501", f"{job.what}: {message}", help="`infc doctor` says what to install")
    if kind == "memory":
        return fail(
            "E505",
            f"{job.what} reached its memory limit",
            notes=tail,
            help="raise it with `--memory-limit`",
        )
    return fail("E506", f"{job.what} failed: {error_type}: {message}", notes=tail)


def _tail(log: Path, start: int) -> tuple[str, ...]:
    """The last lines this call wrote to `log`, as one note; none where it wrote nothing."""
    with log.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(start, stream.tell() - 65536))
        text = stream.read().decode("utf-8", "replace")
    lines = [
        "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line)[:400]
        for line in text.splitlines()
        if line.strip()
    ]
    if not lines:
        return ()
    return ("\n".join(["the last lines of its log:", *lines[-LOG_TAIL_LINES:]]),)

"""Run native code that a hostile file may crash, hang or bloat, in a forked child.

A worker process of the ordinary kind costs an interpreter and its imports, a third of a second;
a fork costs milliseconds and already holds the model. The child only calls what it was given and
leaves without running any exit handler.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import select
import signal
import time
import warnings
from collections.abc import Callable
from typing import NoReturn


class ChildDiedError(Exception):
    """The child gave no answer; the message says how it died."""


def call(function: Callable[[], bytes], timeout_s: float, extra_bytes: int) -> bytes:
    """Return what `function` returns, computed in a child process.

    `extra_bytes` is the address space that the child may take beyond what this process has.

    Raises:
        ChildDiedError: it crashed, raised, or was stopped after `timeout_s` seconds.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python warns of forking beside threads, whose locks the child might wait for: it takes
        # none of theirs, and the C library's own are safe.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        os.close(reader)
        _answer(function, writer, extra_bytes)
    os.close(writer)
    data = None
    try:
        data = _read(reader, time.monotonic() + timeout_s)
    finally:
        os.close(reader)
        if data is None:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if data is None:
        raise ChildDiedError(f"did not finish in {timeout_s:g} s")
    if os.WIFSIGNALED(status):
        raise ChildDiedError(f"crashed with {signal.Signals(os.WTERMSIG(status)).name}")
    if data[:1] != b"+":
        raise ChildDiedError(data[1:].decode("utf-8", "replace") or "gave no answer")
    return data[1:]


def _read(reader: int, deadline: float) -> bytes | None:
    """Everything up to the end of the pipe; None where the time is up before that."""
    blocks: list[bytes] = []
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return None
        block = os.read(reader, 1 << 20)
        if not block:
            return b"".join(blocks)
        blocks.append(block)


def _answer(function: Callable[[], bytes], writer: int, extra_bytes: int) -> NoReturn:
    try:
        _take_limits(extra_bytes)
        answer = b"+" + function()
    except BaseException as error:
        answer = b"-" + f"{type(error).__name__}: {error}".encode("utf-8", "replace")
    try:
        view = memoryview(answer)
        while view:
            view = view[os.write(writer, view) :]
    finally:
        os._exit(0)


def _take_limits(extra_bytes: int) -> None:
    """No core file, no more than `extra_bytes` of new memory, nothing on stderr from a crash."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    with open("/proc/self/statm") as stream:  # noqa: PTH123
        pages = int(stream.read().split()[0])
    limit = pages * resource.getpagesize() + extra_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))

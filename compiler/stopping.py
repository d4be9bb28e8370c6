"""Signals that end infc, so that what is half-made is removed first."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import NoReturn

INTERRUPTED = 130
"""What a shell reports for a process that SIGINT ended."""

STOPPING = (signal.SIGTERM, signal.SIGHUP)
"""Signals after which infc cleans up, as it does after SIGINT."""


class Stopped(KeyboardInterrupt):
    """One of `STOPPING` came; `status` is what a shell reports for it."""

    status = INTERRUPTED


@contextlib.contextmanager
def cleaning_up() -> Iterator[None]:
    """Make the signals of `STOPPING` exceptions, so that what is half-made is removed."""

    def stop(number: int, frame: object) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the cleaning up
        stopped = Stopped()
        stopped.status = 128 + number
        raise stopped

    before = {n: signal.getsignal(n) for n in STOPPING}
    for number, handler in before.items():
        if handler == signal.SIG_DFL:  # `nohup` ignores SIGHUP, and that is meant
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

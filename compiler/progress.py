"""Progress on stderr: a line that changes while somebody watches, nothing otherwise."""

from __future__ import annotations

import sys
import time
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING

from infc.diagnostics import printable
from infc.formatting import format_seconds

if TYPE_CHECKING:
    from rich.status import Status


class Verbosity(Enum):
    """How much is said while it runs."""

    QUIET = "quiet"
    NORMAL = "normal"
    VERBOSE = "verbose"


class ProgressLine:
    """The progress of one command.

    In a terminal the current step is shown with a spinner; where every step is wanted
    (`--verbose`), each gets a line with its time, in a terminal or not.
    """

    def __init__(self, verbosity: Verbosity) -> None:
        self._verbosity = verbosity
        self._status: Status | None = None
        self._running: tuple[str, float] | None = None

    def __enter__(self) -> ProgressLine:
        if self._verbosity is Verbosity.NORMAL and sys.stderr.isatty():
            from rich.console import Console

            console = Console(stderr=True, highlight=False)
            if console.is_interactive:
                self._status = console.status("")
                self._status.start()
        return self

    def __call__(self, target: str, step: str) -> None:
        """Begin `step` of `target`, or of all of them where that is empty."""
        text = printable(f"{target}: {step}" if target else step)
        if self._status is not None:
            from rich.text import Text

            self._status.update(Text(text))
        if self._verbosity is Verbosity.VERBOSE:
            self._finish_line()
            self._running = text, time.perf_counter()

    def _finish_line(self) -> None:
        if self._running is not None:
            text, began = self._running
            self._running = None
            took = format_seconds(time.perf_counter() - began)
            sys.stderr.write(f"{took:>10}  {text}\n")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()
        self._finish_line()

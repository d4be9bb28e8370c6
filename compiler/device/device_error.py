"""One thing that keeps an engine from being built or verified, for people and for infc."""

from __future__ import annotations

from typing import Any

EXIT_CODES = {
    "usage": 2,
    "damaged": 1,
    "busy": 1,
    "unwritable": 1,
    "machine": 4,
    "disk": 1,
    "time": 1,
    "refused": 1,
    "crashed": 1,
    "wrong": 3,
    "unverified": 3,
}
"""Kind of trouble to the exit code, as infc's: 1 failed, 2 usage, 3 not right, 4 missing.

machine     the library, its release, the GPU or its compute capability is not what is needed
refused     the library does not build it
wrong       the engine was built and answers otherwise than the source model
unverified  it was built and cannot be run
"""


class DeviceError(Exception):
    """Stops the work; what is in the bundle stays as it is."""

    def __init__(self, kind: str, message: str, help: str = "", details: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.help = help
        self.details = details

    @property
    def exit_code(self) -> int:
        """Of the process that stops because of it."""
        return EXIT_CODES[self.kind]

    def to_json(self) -> dict[str, Any]:
        """A plain dict, the inverse of the constructor."""
        rows = {"kind": self.kind, "message": self.message}
        return dict(rows, help=self.help, details=self.details)

    def render(self) -> str:
        """Text for stderr."""
        lines = [f"error: {self.message}"]
        lines += [f"  {line}" for line in self.details.splitlines()]
        lines += [f"  help: {self.help}"] if self.help else []
        return "\n".join(lines)

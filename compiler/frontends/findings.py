"""What the checks of a frontend find: collected, so that one run of infc names all of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from infc.diagnostics import Diagnostic, InfcError

MAX_FINDINGS = 20
"""A file that is broken throughout says so in a screenful."""
MAX_NAME = 80


@dataclass(slots=True)
class Findings:
    """The diagnostics about one model file, called `file` in their places."""

    file: str
    found: list[Diagnostic] = field(default_factory=list)
    left_off: int = 0

    @property
    def full(self) -> bool:
        """Whether more would be left off, so that a costly hint is not worth its time."""
        return len(self.found) >= MAX_FINDINGS

    def add(
        self, code: str, message: str, where: str = "", help: str = "", notes: Iterable[str] = ()
    ) -> None:
        """Keep one more, up to `MAX_FINDINGS`."""
        if self.full:
            self.left_off += 1
            return
        place = f"{self.file}:{where}" if where else self.file
        diagnostic = Diagnostic(code, message, place, help, tuple(notes))
        if diagnostic not in self.found:
            self.found.append(diagnostic)

    def stop_here(self) -> None:
        """Raise what was found, where anything was.

        Raises:
            InfcError: with all of it.
        """
        if not self.found:
            return
        *head, last = self.found
        if self.left_off:
            note = f"{self.left_off} more like these are left off"
            last = Diagnostic(last.code, last.message, last.where, last.help, (*last.notes, note))
        raise InfcError(*head, last)


def quoted(name: object) -> str:
    """`name` between backticks; it comes from an untrusted file, so cut and escaped."""
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
    return f"`{printable(text)}`"


def printable(text: str) -> str:
    """`text` without anything that could command a terminal, and not longer than a line."""
    if len(text) <= MAX_NAME and text.isprintable():
        return text
    cut = text if len(text) <= MAX_NAME else text[: MAX_NAME - 3] + "..."
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in cut)

"""Exceptions of the user's code and of torch as diagnostics: one line, and the user's own line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from infc.diagnostics import InfcError, fail
from infc.user_code import is_users, line_of

MAX_MESSAGE = 400
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')
_COLOUR = re.compile(r"\x1b?\[\d+m")


@contextlib.contextmanager
def blamed(code: str, what: str, help: str = "", where: str = "") -> Iterator[None]:
    """Turn whatever is raised inside into one diagnostic: `what` and the exception's message.

    Raises:
        InfcError: `code`, with the user's own line where the exception came through one.
    """
    try:
        yield
    except (InfcError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        place = line_of(error) or where
        raise fail(code, f"{what}: {message_of(error)}", where=place, help=help) from error


def message_of(error: BaseException) -> str:
    """The exception's type and the first paragraph of its message, in one line."""
    text = _COLOUR.sub("", str(error)).strip()
    first = " ".join(text.partition("\n\n")[0].split())
    name = type(error).__name__
    return f"{name}: {first[:MAX_MESSAGE]}" if first else name


def root_of(error: BaseException) -> BaseException:
    """What an exporter's exception was raised for in the first place."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def quoted_line(text: str) -> str:
    """`file.py:12 in forward`: the last line of the user's own that a stack in `text` names."""
    frames = [m for m in _FRAME.finditer(text) if is_users(m["file"])]
    if not frames:
        return ""
    last = frames[-1]
    return f"{Path(last['file']).name}:{last['line']} in {last['function']}"

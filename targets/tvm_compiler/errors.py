"""What TVM's errors say, without where they were raised."""

from __future__ import annotations


def last_line(error: BaseException) -> str:
    """The line of a message that says what is wrong: above it are the places, in C++ and Python."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

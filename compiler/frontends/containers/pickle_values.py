"""What a pickle is made of, where nothing of it is imported or called.

Values may be shared and may contain themselves: whoever walks over them has to remember where it
was, and must neither hash, compare nor print them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol


class Stream(Protocol):
    """What is needed of a stream; `read` must not allocate what is not there."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes."""
        ...

    def readline(self) -> bytes:
        """Up to the next line feed, with it."""
        ...

    def tell(self) -> int:
        """The position."""
        ...


class MalformedPickleError(Exception):
    """The pickle cannot be followed to its end; the message says where that became clear."""


@dataclass(frozen=True, slots=True)
class Global:
    """What an unpickler would import: a name, possibly dotted, in a module."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False, repr=False)
class Table:
    """A dict; keys may be anything, and come in order of appearance."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(slots=True, eq=False, repr=False)
class Made:
    """What a call of `maker` would return, and what would be done to it afterwards."""

    maker: Any
    arguments: Any
    state: Any = None
    items: list[Any] = field(default_factory=list)
    pairs: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(slots=True, eq=False, repr=False)
class Persistent:
    """An object that lies outside the pickle; torch's storages are such."""

    id: Any


@dataclass(slots=True, eq=False, repr=False)
class Opaque:
    """A value that the pickle does not hold, such as an out-of-band buffer."""

    what: str


@dataclass(slots=True, eq=False, repr=False)
class Followed:
    """What a pickle says.

    `globals` are all that would be imported, each once; `oddities` are operations that no writer of
    plain data uses: calls of what is no global, state given to what was not made here.
    """

    value: Any = None
    globals: dict[Global, None] = field(default_factory=dict)
    oddities: dict[str, None] = field(default_factory=dict)

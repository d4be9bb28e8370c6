"""Tables of FlatBuffers, every offset checked against the end of the file.

The generated readers trust offsets; a file that lies makes them read elsewhere or loop for long.

Source: https://flatbuffers.dev/internals: a table is an offset to its vtable and then fields; the
vtable holds the place of each field in the table, 0 for one that is not there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from mmap import mmap

MAX_ITEMS = 10_000_000
_SIZES = {"b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "f": 4, "q": 8, "Q": 8}


class MalformedTableError(ValueError):
    """An offset or a length leads out of the file."""


class FlatTable:
    """A table at `position` in `data`; fields are numbered from 0 as in the schema."""

    __slots__ = ("_data", "_fields", "_position")

    def __init__(self, data: bytes | mmap, position: int) -> None:
        self._data = data
        self._position = position
        vtable = position - self._number("i", position)
        size = self._number("H", vtable)
        self._fields = (vtable, size)

    def scalar(self, field: int, code: str, default: int = 0) -> int:
        """A number; `code` is its format in `struct`."""
        place = self._place(field)
        return self._number(code, place) if place else default

    def text(self, field: int) -> str:
        """A string, "" where it is not there."""
        start, count = self._vector(field, 1)
        return self._data[start : start + count].decode("utf-8", "backslashreplace")

    def raw(self, field: int, limit: int) -> bytes:
        """The first `limit` bytes of a vector of bytes."""
        start, count = self._vector(field, 1)
        return self._data[start : start + min(count, limit)]

    def length(self, field: int, item_bytes: int = 4) -> int:
        """How many items a vector has."""
        return self._vector(field, item_bytes)[1]

    def numbers(self, field: int, code: str) -> tuple[float, ...]:
        """A vector of numbers."""
        start, count = self._vector(field, _SIZES[code])
        if count > MAX_ITEMS:
            raise MalformedTableError(f"a vector of {count:,} numbers")
        return struct.unpack_from(f"<{count}{code}", self._data, start)

    def integers(self, field: int, code: str = "i") -> tuple[int, ...]:
        """A vector of integers."""
        return tuple(map(int, self.numbers(field, code)))

    def table(self, field: int) -> FlatTable | None:
        """A table, None where it is not there."""
        place = self._place(field)
        return FlatTable(self._data, place + self._number("I", place)) if place else None

    def tables(self, field: int) -> Iterator[FlatTable]:
        """A vector of tables."""
        start, count = self._vector(field, 4)
        for place in range(start, start + 4 * count, 4):
            yield FlatTable(self._data, place + self._number("I", place))

    def _place(self, field: int) -> int:
        vtable, size = self._fields
        slot = 4 + 2 * field
        offset = self._number("H", vtable + slot) if slot + 2 <= size else 0
        return self._position + offset if offset else 0

    def _vector(self, field: int, item_bytes: int) -> tuple[int, int]:
        place = self._place(field)
        if not place:
            return 0, 0
        start = place + self._number("I", place)
        count = self._number("I", start)
        if start + 4 + count * item_bytes > len(self._data):
            raise MalformedTableError(f"a vector at {start:,} leads out of the file")
        return start + 4, count

    def _number(self, code: str, place: int) -> int:
        if place < 0 or place + _SIZES[code] > len(self._data):
            raise MalformedTableError(f"an offset leads to {place:,}, out of the file")
        (value,) = struct.unpack_from(f"<{code}", self._data, place)
        return int(value)

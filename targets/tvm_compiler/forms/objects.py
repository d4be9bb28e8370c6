"""ELF objects: what they define, how much memory they take, and their symbols renamed.

A static library shares one space of names with the program it is linked into, and the kernels of
two models have the same names. Renaming is done here, in the object, since it is the same for every
processor and compiler: the names lie in one table, which is written again behind everything else.
Source: the System V ABI, chapter 4. Little-endian only, as all processors here are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_SYMTAB, _NOBITS = 2, 8
_WRITE, _ALLOC, _TLS = 1, 2, 0x400
_LOCAL, _GLOBAL, _WEAK = 0, 1, 2


class ObjectError(ValueError):
    """Not an object of the kind that is expected."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that an object takes in memory that is only read, and in memory that is written."""

    read_only: int
    initialised: int
    zeroed: int

    @property
    def flash(self) -> int:
        """What a device has to keep without power: code, constants, and values to begin with."""
        return self.read_only + self.initialised

    @property
    def ram(self) -> int:
        """What it takes of the memory that is written."""
        return self.initialised + self.zeroed


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the fields of one class of ELF are: 32 or 64 bits."""

    section_table: tuple[str, int]
    counts: int
    section: struct.Struct
    symbol: struct.Struct
    info_field: int
    shndx_field: int


_LAYOUTS = {
    1: _Layout(("<I", 0x20), 0x2E, struct.Struct("<10I"), struct.Struct("<IIIBBH"), 3, 5),
    2: _Layout(("<Q", 0x28), 0x3A, struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ"), 1, 3),
}


@dataclass(frozen=True, slots=True)
class _Section:
    """A row of the section table; `place` is where the row itself is."""

    place: int
    fields: tuple[int, ...]

    @property
    def kind(self) -> int:
        return self.fields[1]

    @property
    def flags(self) -> int:
        return self.fields[2]

    @property
    def offset(self) -> int:
        return self.fields[4]

    @property
    def size(self) -> int:
        return self.fields[5]

    @property
    def link(self) -> int:
        return self.fields[6]


class ElfObject:
    """A relocatable object.

    Raises:
        ObjectError: it is none.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < 64 or data[:4] != b"\x7fELF" or data[4] not in _LAYOUTS or data[5] != 1:
            raise ObjectError("not a little-endian ELF object")
        self.data = data
        self._layout = layout = _LAYOUTS[data[4]]
        (start,) = struct.unpack_from(layout.section_table[0], data, layout.section_table[1])
        size, count = struct.unpack_from("<HH", data, layout.counts)
        if size != layout.section.size or start + size * count > len(data):
            raise ObjectError("an ELF object without a table of sections")
        places = [start + i * size for i in range(count)]
        self._sections = [_Section(p, layout.section.unpack_from(data, p)) for p in places]

    def footprint(self) -> Footprint:
        """What it takes of memory when it is linked whole."""
        sizes = [0, 0, 0]
        for section in self._sections:
            if section.flags & _ALLOC:
                kind = 2 if section.kind == _NOBITS else 1 if section.flags & _WRITE else 0
                sizes[kind] += section.size
        return Footprint(*sizes)

    def defined(self) -> list[str]:
        """The symbols that it offers to others."""
        return [name for _, name, bind, index in self._symbols() if bind != _LOCAL and index]

    def undefined(self) -> list[str]:
        """The symbols that it wants of others."""
        return [name for _, name, bind, index in self._symbols() if bind != _LOCAL and not index]

    def renamed(self, rename: Callable[[str], str]) -> bytes:
        """The object with `rename` applied to every global symbol that it defines.

        Weak ones stay: another library may have them, and then they are the same.
        """
        table = self._table()
        out, names = bytearray(self.data), bytearray(b"\0")
        for place, name, bind, index in self._symbols():
            new = rename(name) if bind == _GLOBAL and index else name
            struct.pack_into("<I", out, place, len(names) if new else 0)
            if new:
                names += new.encode() + b"\0"
        strings = self._sections[table.link]
        fields = list(strings.fields)
        fields[4], fields[5] = len(out), len(names)
        self._layout.section.pack_into(out, strings.place, *fields)
        return bytes(out + names)

    def _table(self) -> _Section:
        found = [s for s in self._sections if s.kind == _SYMTAB]
        if len(found) != 1 or found[0].link >= len(self._sections):
            raise ObjectError("an ELF object without a table of symbols")
        return found[0]

    def _symbols(self) -> Iterator[tuple[int, str, int, int]]:
        """Place in the file, name, binding and section (0: none) of each symbol."""
        table, layout = self._table(), self._layout
        strings = self._sections[table.link]
        for place in range(table.offset, table.offset + table.size, layout.symbol.size):
            fields = layout.symbol.unpack_from(self.data, place)
            start = strings.offset + fields[0]
            end = self.data.index(b"\0", start)
            name = self.data[start:end].decode()
            yield place, name, fields[layout.info_field] >> 4, fields[layout.shndx_field]


def archive(name: str, data: bytes) -> bytes:
    """A static library of the one object `data`, called `name`, with the index that linkers want.

    Source: ar(5), System V's and GNU's variant; the index is big-endian everywhere.
    """
    symbols = ElfObject(data).defined()
    texts = b"".join(s.encode() + b"\0" for s in symbols)
    long_names = f"{name}/\n".encode()
    index_bytes = 4 + 4 * len(symbols) + len(texts)
    at = 8 + 60 + _even(index_bytes) + 60 + _even(len(long_names))
    index = struct.pack(">I", len(symbols)) + struct.pack(">I", at) * len(symbols) + texts
    members = [("/", index), ("//", long_names), ("/0", data)]
    return b"!<arch>\n" + b"".join(_member(title, body) for title, body in members)


def _even(size: int) -> int:
    return size + size % 2


def _member(title: str, body: bytes) -> bytes:
    """A header and what it is for: no time, nobody's, readable by all."""
    head = f"{title:<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(body):<10}`\n"
    return head.encode() + body + b"\n" * (len(body) % 2)

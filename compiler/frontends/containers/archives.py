"""Zip archives: whether one is safe to open, and its entries, read without extracting.

The readers of other frameworks are not Python's `zipfile`. What each of them makes of an archive
agrees only where the archive says one thing: so the directory has to stand where its end says it
does, and the header before each entry has to repeat what the directory says. Torch's reader also
finds names without regard to case.

Layout and field names: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.7 to 4.3.16.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from infc.diagnostics import InfcError, fail

LOCAL_HEADER = b"PK\x03\x04"
MAX_ENTRIES = 200_000
MAX_RATIO = 100
FREE_BYTES = 64 << 20
"""What an archive may unpack into whatever its size; beyond it `MAX_RATIO` times its size."""

MAX_DIRECTORY_BYTES = 64 << 20

_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, ValueError),
    *(NotImplementedError, OverflowError, RuntimeError),
)
"""What `zipfile` raises for a damaged archive."""
_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\x05\x06"
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_MAGIC = b"PK\x06\x06"
_LOCATOR64 = struct.Struct("<4sLQL")
_LOCATOR64_MAGIC = b"PK\x06\x07"
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
_SIZES_FOLLOW = 1 << 3
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Archive:
    """An open archive that was found sane; `label` names it in messages."""

    def __init__(self, file: zipfile.ZipFile, label: str) -> None:
        self._file = file
        self.label = label
        self.sizes = {row.filename: row.file_size for row in file.infolist()}

    @property
    def names(self) -> list[str]:
        """Of the entries, in the order of the directory."""
        return list(self.sizes)

    def read(self, name: str, limit: int) -> bytes:
        """The content of an entry, at most `limit` bytes of it being allowed.

        Raises:
            InfcError: E116 where it is larger, E117 where it is missing or damaged.
        """
        if self.sizes.get(name, 0) > limit:
            raise unsafe(self.label, f"`{name}` takes {self.sizes[name]:,} bytes")
        with damage_reported(self.label), self._file.open(name) as stream:
            return stream.read(limit)

    def head(self, name: str, count: int) -> bytes:
        """The first `count` bytes of an entry.

        Raises:
            InfcError: E117 where it is missing or damaged.
        """
        with damage_reported(self.label), self._file.open(name) as stream:
            return stream.read(count)

    def open(self, name: str) -> BinaryIO:
        """A stream of the content, which raises what `zipfile` raises."""
        return self._file.open(name)  # type: ignore[return-value]


@contextmanager
def open_sane(source: Path | BytesIO, label: str = "") -> Iterator[Archive]:
    """The archive `source`, checked.

    Raises:
        InfcError: E116 where it is not safe to open, E117 where it is damaged.
    """
    name = label or str(source)
    opened = source.open("rb") if isinstance(source, Path) else source
    with opened as stream:
        with damage_reported(name):
            _require_sane(stream, name)
            file = zipfile.ZipFile(stream)
        with file:
            yield Archive(file, name)


def require_sane(path: Path) -> None:
    """Refuse an archive that no framework writes.

    Raises:
        InfcError: E116 for entries that lead outside, stand there twice, overlap, are encrypted,
            unpack into too much or are not what their headers say; E117 for a damaged archive.
    """
    with open_sane(path):
        pass


@contextmanager
def damage_reported(label: str) -> Iterator[None]:
    """Turn what `zipfile` raises for a damaged archive into E117."""
    try:
        yield
    except _DAMAGE as error:
        text = str(error.args[0]) if error.args else type(error).__name__
        raise damaged(label, text) from error


def unsafe(label: str, what: str) -> InfcError:
    """E116 for the archive `label`."""
    return fail("E116", f"`{label}` is not safe to open: {what}")


def damaged(label: str, what: str) -> InfcError:
    """E117 for the file `label`."""
    return fail("E117", f"`{label}` is damaged: {what}", help="download or export it again")


def entry_names(path: Path) -> set[str]:
    """The names in the directory of a zip archive; empty where that cannot be read."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            start, count = _directory(stream, size, str(path))
            if count > MAX_ENTRIES or size - start > MAX_DIRECTORY_BYTES:
                return set()
            with zipfile.ZipFile(stream) as file:
                return set(file.namelist())
    except (InfcError, *_DAMAGE):
        return set()


def names_in(data: bytes) -> set[str]:
    """The names in the headers of entries that stand somewhere in `data`, part of an archive."""
    found = set()
    for magic, header, at in ((LOCAL_HEADER, _LOCAL.size, 26), (b"PK\x01\x02", 46, 28)):
        start = data.find(magic)
        while start >= 0:
            size = int.from_bytes(data[start + at : start + at + 2], "little")
            name = data[start + header : start + header + size]
            found.add(name.decode("utf-8", "replace"))
            start = data.find(magic, start + 4)
    return found


def _require_sane(stream: BinaryIO, label: str) -> None:
    size = stream.seek(0, 2)
    start, count = _directory(stream, size, label)
    if count > MAX_ENTRIES:
        raise unsafe(label, f"it has more than {MAX_ENTRIES:,} entries")
    if size - start > MAX_DIRECTORY_BYTES:
        raise unsafe(label, f"its directory takes {size - start:,} bytes")
    with zipfile.ZipFile(stream) as file:
        rows = file.infolist()
        if len(rows) != count:
            raise unsafe(label, f"its directory has {len(rows):,} entries, its end says {count:,}")
        _require_sane_names(rows, label)
        _require_sane_sizes(rows, size, label)
        _require_sane_headers(stream, rows, start, label)


def _directory(stream: BinaryIO, size: int, label: str) -> tuple[int, int]:
    """(offset, number of entries) of the directory, which ends where its end begins."""
    tail_at = max(0, size - _END.size - 0xFFFF)
    stream.seek(tail_at)
    tail = stream.read()
    at = tail.rfind(_END_MAGIC)
    if at < 0 or len(tail) - at < _END.size:
        raise damaged(label, "the directory at its end is missing")
    fields = _END.unpack_from(tail, at)
    _, disk, first_disk, _, count, length, start, comment = fields
    if disk or first_disk:
        raise unsafe(label, "it is in several parts")
    if tail_at + at + _END.size + comment != size:
        raise unsafe(label, "something stands behind its directory")
    end = tail_at + at
    stream.seek(max(0, end - _LOCATOR64.size))
    locator = stream.read(_LOCATOR64.size)
    if locator.startswith(_LOCATOR64_MAGIC):
        _, _, end64, _ = _LOCATOR64.unpack(locator)
        if end64 != end - _LOCATOR64.size - _END64.size:
            raise unsafe(label, "its directory is not where its end says")
        stream.seek(end64)
        fields64 = _END64.unpack(stream.read(_END64.size))
        if fields64[0] != _END64_MAGIC:
            raise unsafe(label, "its directory is not where its end says")
        *_, count, length, start = fields64
        end = end64
    if start + length != end:
        raise unsafe(label, "its directory is not where its end says")
    return start, count


def _require_sane_names(rows: list[zipfile.ZipInfo], label: str) -> None:
    seen: set[str] = set()
    for row in rows:
        name = row.orig_filename
        parts = name.split("/")
        if "\0" in name or "\\" in name or name.startswith("/") or ".." in parts or ":" in parts[0]:
            raise unsafe(label, f"`{name}` would lie outside its folder")
        if row.filename != name:
            raise unsafe(label, f"`{name}` has another name as well")
        if stat.S_ISLNK(row.external_attr >> 16):
            raise unsafe(label, f"`{name}` is a symbolic link")
        if row.flag_bits & _ENCRYPTED:
            raise unsafe(label, f"`{name}` is encrypted")
        if row.compress_type not in _METHODS:
            raise unsafe(label, f"`{name}` is compressed in a way that no framework uses")
        if name.casefold() in seen:
            raise unsafe(label, f"`{name}` stands in it twice")
        seen.add(name.casefold())


def _require_sane_sizes(rows: list[zipfile.ZipInfo], size: int, label: str) -> None:
    total = sum(row.file_size for row in rows)
    if total > max(FREE_BYTES, MAX_RATIO * size):
        raise unsafe(label, f"{size:,} bytes unpack into {total:,}")
    for row in rows:
        if row.compress_type == zipfile.ZIP_STORED and row.compress_size != row.file_size:
            raise unsafe(label, f"`{row.orig_filename}` has two sizes")


def _require_sane_headers(
    stream: BinaryIO, rows: list[zipfile.ZipInfo], directory: int, label: str
) -> None:
    """Each entry lies before the next and the directory, and its header agrees with that."""
    ordered = sorted(rows, key=lambda row: row.header_offset)
    ends = [*(row.header_offset for row in ordered[1:]), directory]
    for row, end in zip(ordered, ends, strict=True):
        name = row.orig_filename
        stream.seek(row.header_offset)
        fields = _LOCAL.unpack(stream.read(_LOCAL.size))
        magic, _, flags, method, _, _, crc, packed, unpacked, name_size, extra_size = fields
        written = stream.read(name_size)
        if magic != LOCAL_HEADER or written != _encoded(row):
            raise unsafe(label, f"the header before `{name}` is that of something else")
        if (flags ^ row.flag_bits) & _ENCRYPTED or method != row.compress_type:
            raise unsafe(
                label, f"the header before `{name}` says something else than the directory"
            )
        told = (crc, packed, unpacked)
        known = (row.CRC, row.compress_size, row.file_size)
        for one, other in zip(told, known, strict=True):
            later = one == 0 and flags & _SIZES_FOLLOW
            if one not in (other, 0xFFFFFFFF) and not later:
                raise unsafe(label, f"the header before `{name}` has another size or checksum")
        start = row.header_offset + _LOCAL.size + name_size + extra_size
        if start + row.compress_size > end:
            raise unsafe(label, f"`{name}` overlaps with what follows it")


def _encoded(row: zipfile.ZipInfo) -> bytes:
    """The name as it stands in the file; `zipfile` decodes it by this flag (APPNOTE D.1)."""
    return row.orig_filename.encode("utf-8" if row.flag_bits & 0x800 else "cp437")

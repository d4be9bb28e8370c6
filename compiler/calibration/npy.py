"""`.npy` arrays and the `.npz` archives of them, read row by row: nothing is unpickled or mapped.

A header is checked against the bytes that follow it before anything is allocated. Uncompressed
arrays are read in place, in an archive too; compressed ones are unpacked as they are read, a row
at a time, so that what an archive claims to hold costs nothing.

Source: NEP 1 (numpy.lib.format), PKWARE APPNOTE.TXT 4.3.7 (local file header).
"""

from __future__ import annotations

import contextlib
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from infc.calibration.fitting import row_bytes, shown
from infc.diagnostics import InfcError, fail

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

MAX_HEADER_BYTES = 1 << 14
CHUNK_BYTES = 1 << 20
MAGIC = b"\x93NUMPY"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_BROKEN = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError)
"""What reading a file may raise, a damaged one included."""


def damaged(where: str, why: object) -> InfcError:
    """E402 about a file that is not as it should be."""
    return fail("E402", f"it cannot be read: {why}", where=where)


@dataclass(frozen=True, slots=True)
class Stored:
    """An array on disk: in the file `path`, or in its archive member `member`.

    `offset` is where the elements begin, in the file or, where `packed`, in the unpacked member.
    """

    path: Path
    where: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    offset: int
    member: str = ""
    packed: bool = False

    def rows(self, indices: Iterable[int]) -> Iterator[Array]:
        """The rows of the first axis at the ascending `indices`.

        Raises:
            InfcError: E402 where the file ends early or cannot be read.
        """
        import numpy as np

        shape = self.shape[1:]
        size = row_bytes(shape, self.dtype.itemsize, self.where)
        if self.fortran and math.prod(shape) != 1:
            yield from self._fortran_rows(indices)
            return
        with self._open() as stream:
            at = 0
            for index in indices:
                self._skip(stream, (index - at) * size)
                data = self._read(stream, size)
                at = index + 1
                yield np.frombuffer(data, self.dtype).reshape(shape)

    def whole(self) -> Array:
        """All of it.

        Raises:
            InfcError: E402 where it cannot be read.
        """
        import numpy as np

        size = row_bytes(self.shape, self.dtype.itemsize, self.where)
        with self._open() as stream:
            flat = np.frombuffer(self._read(stream, size), self.dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")

    def _fortran_rows(self, indices: Iterable[int]) -> Iterator[Array]:
        import numpy as np

        if self.packed:
            raise fail(
                "E402",
                "a compressed array in Fortran order cannot be read row by row",
                where=self.where,
                help="save `numpy.ascontiguousarray(x)`, or save it uncompressed",
            )
        mapped: Array = np.memmap(self.path, self.dtype, "r", self.offset, self.shape, "F")
        for index in indices:
            yield np.array(mapped[index])

    @contextlib.contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        """A stream that stands before the first element."""
        with contextlib.ExitStack() as stack:
            try:
                if self.packed:
                    archive = stack.enter_context(zipfile.ZipFile(self.path))
                    stream: IO[bytes] = stack.enter_context(archive.open(self.member))
                    self._skip(stream, self.offset)
                else:
                    stream = stack.enter_context(self.path.open("rb"))
                    stream.seek(self.offset)
            except (*_BROKEN, KeyError, RuntimeError) as error:
                raise damaged(self.where, error) from error
            yield stream

    def _skip(self, stream: IO[bytes], count: int) -> None:
        if not self.packed:
            stream.seek(count, 1)
            return
        while count > 0:
            count -= len(self._read(stream, min(count, CHUNK_BYTES)))

    def _read(self, stream: IO[bytes], count: int) -> bytes:
        """Exactly `count` bytes; the buffer grows with what is really there."""
        parts = []
        left = count
        try:
            while left and (part := stream.read(min(left, CHUNK_BYTES))):
                parts.append(part)
                left -= len(part)
        except _BROKEN as error:
            raise damaged(self.where, error) from error
        if left:
            raise damaged(self.where, f"it ends {left} bytes early")
        return parts[0] if len(parts) == 1 else b"".join(parts)


def open_npy(path: Path, where: str) -> Stored:
    """The array in a `.npy` file.

    Raises:
        InfcError: E402 where it is damaged, cut short, or needs unpickling.
    """
    try:
        with path.open("rb") as stream:
            return _stored(stream, path.stat().st_size, path, where)
    except _BROKEN as error:
        raise damaged(where, error) from error


def open_npz(path: Path, where: str) -> dict[str, Stored]:
    """The arrays in a `.npz` archive by name.

    Raises:
        InfcError: E402 where it is damaged, cut short, encrypted, or needs unpickling.
    """
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    name = info.filename.removesuffix(".npy")
                    found[name] = _member(archive, info, path, f"{where}:{name}")
    except (*_BROKEN, KeyError, RuntimeError) as error:
        raise damaged(where, error) from error
    if not found:
        raise damaged(where, "it is an archive without an array")
    return found


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, where: str) -> Stored:
    if info.flag_bits & 1:
        raise damaged(where, "it is encrypted")
    if info.compress_type not in _METHODS:
        raise damaged(where, f"compression method {info.compress_type} is not known")
    packed = info.compress_type != zipfile.ZIP_STORED
    begin = 0
    if not packed:
        if info.compress_size != info.file_size:
            raise damaged(where, "its sizes contradict each other")
        begin = _data_offset(path, info.header_offset)
        if begin + info.file_size > path.stat().st_size:
            raise damaged(where, "the archive ends early")
    with archive.open(info) as stream:
        return _stored(stream, info.file_size, path, where, begin, info.filename, packed)


def _data_offset(path: Path, header_offset: int) -> int:
    """Where a member's bytes begin; the central directory's lengths may differ from these."""
    with path.open("rb") as stream:
        stream.seek(header_offset)
        header = stream.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise ValueError("a local header is missing")
    name, extra = struct.unpack("<HH", header[26:30])
    return header_offset + 30 + int(name) + int(extra)


def _stored(
    stream: IO[bytes],
    available: int,
    path: Path,
    where: str,
    begin: int = 0,
    member: str = "",
    packed: bool = False,
) -> Stored:
    """Read a header from `stream`, which has `available` bytes and begins at `begin` of `path`."""
    from io import BytesIO

    import numpy as np

    start = stream.read(12)
    if start[:6] != MAGIC or len(start) < 12:
        raise damaged(where, "it is not a NumPy array")
    short = start[6] == 1
    size = struct.unpack_from("<H" if short else "<I", start, 8)[0]
    length = size + (10 if short else 12)
    if start[6] not in (1, 2) or not 2 < size <= MAX_HEADER_BYTES:
        raise damaged(where, "its header is not one of a plain array")
    header = BytesIO(start + stream.read(length - 12))
    header.seek(8)
    try:
        if short:
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(header)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(header)
    except Exception as error:  # NumPy's parser meets hostile text with errors of many types
        raise damaged(where, f"its header does not parse: {str(error)[:80]}") from error
    if dtype.hasobject:
        raise fail(
            "E402",
            "it holds pickled Python objects, which could run code; infc reads none",
            where=where,
            help="save an array of numbers: samples of different shapes go into a file each",
        )
    if dtype.names or dtype.subdtype:
        raise damaged(where, "its elements are records, not numbers")
    if dtype.itemsize == 0 or any(d < 0 for d in shape):
        raise damaged(where, f"its header makes no sense: {shown(shape)} of {dtype}")
    wanted = math.prod(shape) * dtype.itemsize
    if wanted != available - length:
        raise damaged(
            where,
            f"its header speaks of {shown(shape)} {dtype}, {wanted} bytes; it has "
            f"{available - length}",
        )
    return Stored(
        path, where, dtype, tuple(map(int, shape)), fortran, begin + length, member, packed
    )

"""Zip archives that no framework writes are refused before anything is read from them."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from infc.diagnostics import InfcError
from infc.frontends.containers import archives
from infc.frontends.containers.archives import open_sane, require_sane


def zipped(
    *entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED
) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of duplicate names
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, data in entries:
                archive.writestr(name, data)
    return buffer.getvalue()


GOOD = zipped(("m/a", b"first"), ("m/b", b"second"))


def replaced(old: bytes, new: bytes, count: int = 1, data: bytes = GOOD) -> bytes:
    assert data.count(old) >= count
    return data.replace(old, new, count)


def symlink() -> bytes:
    entry = zipfile.ZipInfo("m/link")
    entry.external_attr = 0o120777 << 16
    return zipped((entry, b"/etc/passwd"))


def encrypted() -> bytes:
    data = bytearray(GOOD)
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + at] |= 1
    return bytes(data)


def overlapping() -> bytes:
    """Both entries of the directory lead to the first one's data."""
    data = bytearray(zipped(("m/a", b"first"), ("m/a ", b"second")))
    second = data.rindex(b"PK\x01\x02")
    data[second + 42 : second + 46] = struct.pack("<L", 0)
    return bytes(data)


def quine_like() -> bytes:
    """A thousand entries of the directory, one kernel of data: 'a better zip bomb'."""
    data = zipped(*((f"m/{i:04}", b"x" * 100) for i in range(1000)))
    directory = data.index(b"PK\x01\x02")
    out = bytearray(data)
    at = directory
    while out[at : at + 4] == b"PK\x01\x02":
        out[at + 42 : at + 46] = struct.pack("<L", 0)
        name, extra, comment = struct.unpack_from("<3H", out, at + 28)
        at += 46 + name + extra + comment
    return bytes(out)


def moved_directory() -> bytes:
    """Something before the archive, as in a program that unpacks itself."""
    return b"PK\x03\x04" + GOOD


def two_directories() -> bytes:
    other = zipped(("m/a", b"other"))
    return GOOD + other


UNSAFE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a name that leads up": (lambda: zipped(("m/../../evil", b"x")), "outside its folder"),
    "an absolute name": (lambda: zipped(("/etc/passwd", b"x")), "outside its folder"),
    "a drive": (lambda: zipped(("C:/evil", b"x")), "outside its folder"),
    "backslashes": (lambda: replaced(b"m/b", b"m\\b", 2), "outside its folder"),
    "a null byte": (lambda: replaced(b"m/b", b"m/\0", 2), "outside its folder"),
    "a symbolic link": (symlink, "symbolic link"),
    "one name twice": (lambda: zipped(("m/a", b"1"), ("m/a", b"2")), "twice"),
    "one name in two cases": (lambda: zipped(("m/A.pkl", b"1"), ("m/a.PKL", b"2")), "twice"),
    "an encrypted entry": (encrypted, "encrypted"),
    "another compression": (
        lambda: zipped(("m/a", b"x" * 100), method=zipfile.ZIP_LZMA), "no framework uses"
    ),
    "a bomb": (lambda: zipped(("m/a", bytes(100 << 20)), method=zipfile.ZIP_DEFLATED), "unpack"),
    "entries that share their data": (overlapping, "overlaps"),
    "a thousand entries that share their data": (quine_like, "overlaps"),
    "another name in the header": (lambda: replaced(b"m/b", b"m/c"), "something else"),
    "another size in the header": (
        lambda: replaced(struct.pack("<2L", 5, 5), struct.pack("<2L", 4, 4)), "another size"
    ),
    "something before it": (moved_directory, "not where its end says"),
    "something behind it": (lambda: GOOD + b"x", "behind its directory"),
    "two archives in a row": (two_directories, "not where its end says"),
    "several parts": (
        lambda: replaced(b"PK\x05\x06\0\0", b"PK\x05\x06\1\0"), "several parts"
    ),
}  # fmt: skip


@pytest.mark.timeout(30)
@pytest.mark.parametrize("what", UNSAFE)
def test_unsafe_archive(what: str, tmp_path: Path) -> None:
    make, reason = UNSAFE[what]
    path = tmp_path / "m.pt"
    path.write_bytes(make())
    with pytest.raises(InfcError) as caught:
        require_sane(path)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E116"
    assert reason in diagnostic.message
    assert list(tmp_path.iterdir()) == [path]


def test_truncated_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    for end in range(4, len(GOOD)):
        path.write_bytes(GOOD[:end])
        with pytest.raises(InfcError) as caught:
            require_sane(path)
        assert [d.code for d in caught.value.diagnostics] == ["E117"], end


def test_sane_archive_and_its_entries(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(GOOD)
    with open_sane(path) as archive:
        assert archive.names == ["m/a", "m/b"]
        assert archive.read("m/b", 6) == b"second"
        assert archive.head("m/b", 3) == b"sec"
        with pytest.raises(InfcError, match="E116"):
            archive.read("m/b", 5)
        with pytest.raises(InfcError, match="E117"):
            archive.read("m/c", 5)


def test_wrong_checksum_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(replaced(b"second", b"sECond"))
    with open_sane(path) as archive, pytest.raises(InfcError, match="E117"):
        archive.read("m/b", 6)


def test_zip64_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as archive, archive.open("m/a", "w", force_zip64=True) as out:
        out.write(b"content")
    require_sane(path)
    many = zipped(*((f"m/{i}", b"") for i in range(70_000)))
    path.write_bytes(many)
    require_sane(path)


def test_too_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 1)
    path = tmp_path / "m.pt"
    path.write_bytes(GOOD)
    with pytest.raises(InfcError, match=r"E116.*more than 1 entries"):
        require_sane(path)

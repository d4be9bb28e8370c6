"""Files that are cut short, lie about themselves, or would run code: E402, nothing allocated."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infc.calibration.data import open_samples
from infc.diagnostics import InfcError
from infc.request import CalibrationOptions
from infc.signature import TensorSpec

FREE = TensorSpec("x", "float32", ("batch", "n"))


class RunsCode:
    def __reduce__(self) -> Any:
        return os.mkdir, ("a-pickle-was-run",)


def read(path: Path, spec: TensorSpec = FREE) -> int:
    return sum(1 for _ in open_samples(CalibrationOptions(str(path)), (spec,)))


def npy(array: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def header(text: str, version: int = 1) -> bytes:
    body = text.encode() + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(body))
    return b"\x93NUMPY" + bytes([version, 0]) + size + body


def claims(shape: str, descr: str = "'<f4'") -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}") + bytes(24)


HOSTILE = {
    "pickled": npy(np.array([RunsCode(), 1], object)),
    "cut-short": npy(np.ones((2, 9), np.float32))[:-1],
    "too-long": npy(np.ones((2, 9), np.float32)) + b"!",
    "header-cut-short": npy(np.ones((2, 9), np.float32))[:40],
    "only-magic": b"\x93NUMPY",
    "huge": claims("(99999999999, 99999)"),
    "negative": claims("(-2, -3)"),
    "huge-dimension": claims("(" + "9" * 4000 + ", 1)"),
    "zero-bytes-each": claims("(9, 1)", "'<V0'"),
    "records": claims("(2,)", "[('a', '<f4'), ('b', '<f8')]"),
    "subarrays": claims("(2,)", "('<f4', (3,))"),
    "no-shape": header("{'descr': '<f4', 'fortran_order': False}") + bytes(24),
    "no-dict": header("__import__('os').mkdir('a-pickle-was-run')"),
    "nested": header("(" * 5000),
    "version-9": b"\x93NUMPY\x09\x00" + bytes(100),
    "header-of-4-gib": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}",
    "object-descr": claims("(2,)", "'|O'"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("within", ["npy", "npz", "npz-packed", "folder"])
def test_hostile_arrays(
    name: str, within: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "x.npy"
    if within.startswith("npz"):
        file = tmp_path / "x.npz"
        packing = zipfile.ZIP_DEFLATED if within == "npz-packed" else zipfile.ZIP_STORED
        with zipfile.ZipFile(file, "w", packing) as archive:
            archive.writestr("x.npy", HOSTILE[name])
    else:
        file.write_bytes(HOSTILE[name])
    tracemalloc.start()
    with pytest.raises(InfcError) as caught:
        read(tmp_path if within == "folder" else file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E402", diagnostic.render()
    assert "x.np" in diagnostic.where
    assert peak < 4 << 20
    assert not (tmp_path / "a-pickle-was-run").exists()


def test_what_a_pickle_is_refused_as(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(HOSTILE["pickled"])
    with pytest.raises(InfcError, match="holds pickled Python objects, which could run code"):
        read(tmp_path / "x.npy")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([RunsCode()]))
    with pytest.raises(InfcError, match=r"E401.*neither arrays nor a table"):
        read(tmp_path / "x.pkl")


def packed(array: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, x=array)
    return out.getvalue()


ARRAY = np.random.default_rng(0).integers(0, 200, (4, 4096)).astype(np.uint8)
"""No bit of it makes a NaN, which would be found before a checksum is."""


def encrypted(data: bytes) -> bytes:
    out = bytearray(data)
    out[out.index(b"PK\x01\x02") + 8] |= 1
    return bytes(out)


def flipped(data: bytes) -> bytes:
    out = bytearray(data)
    for i in range(400, 420):
        out[i] ^= 0xFF
    return bytes(out)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        encrypted,
        flipped,
        lambda data: data[:4] + bytes(len(data) - 4),
        lambda data: data.replace(b"x.npy", b"x.txt"),
    ],
    ids=["half", "encrypted", "flipped", "zeros", "no-array"],
)
def test_damaged_archives(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(packed(ARRAY))
    assert read(tmp_path / "x.npz") == 4
    (tmp_path / "x.npz").write_bytes(damage(packed(ARRAY)))
    with pytest.raises(InfcError, match="E402"):
        read(tmp_path / "x.npz")


def test_a_zip_bomb_costs_no_memory(tmp_path: Path) -> None:
    """A gigabyte of zeros in a megabyte: one row of it is more than a sample may have."""
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        size = 1 << 30
        text = header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': (1, {size // 8})}}")
        with archive.open("x.npy", "w", force_zip64=True) as stream:
            stream.write(text)
            for _ in range(size >> 20):
                stream.write(bytes(1 << 20))
    assert (tmp_path / "x.npz").stat().st_size < 2 << 20
    tracemalloc.start()
    with pytest.raises(InfcError, match="E403"):
        read(tmp_path / "x.npz", TensorSpec("x", "float32", (1, 8)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_row_above_the_limit(tmp_path: Path) -> None:
    """Sparse, so that it is cheap to make; its header tells the truth."""
    size = 3 << 30
    text = header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': (1, {size})}}")
    with (tmp_path / "x.npy").open("wb") as stream:
        stream.write(text)
        stream.truncate(len(text) + size)
    with pytest.raises(InfcError, match=r"E402.*above the limit"):
        read(tmp_path / "x.npy")


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ARRAY)
    runs = iter(open_samples(CalibrationOptions(str(tmp_path / "x.npy")), (FREE,)))
    next(runs)
    os.truncate(tmp_path / "x.npy", 9_000)
    with pytest.raises(InfcError, match=r"E402.*bytes early"):
        list(runs)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(InfcError, match="E401"):
        read(tmp_path / "x.npy")


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(
    at=st.integers(0, 10**6),
    byte=st.integers(0, 255),
    cut=st.integers(0, 10**6),
    zipped=st.booleans(),
)
def test_any_damage_is_a_diagnostic(
    at: int, byte: int, cut: int, zipped: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    small = np.arange(12, dtype=np.float32).reshape(3, 4)
    data = bytearray(packed(small) if zipped else npy(small))
    data[at % len(data)] = byte
    path = tmp_path_factory.mktemp("damage") / "x"
    path.write_bytes(bytes(data[: len(data) - cut]))
    try:
        read(path)
    except InfcError as error:
        assert error.diagnostics[0].code[:3] == "E40", error

"""What a file is, from its bytes; what to do about it, in one diagnostic."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
from command import SMALL, write_model

from infc import frontends
from infc.diagnostics import InfcError
from infc.frontends.sniff import EXPORT, Kind, sniff


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return buffer.getvalue()


MODELS = {
    Kind.ONNX: b"\x08\x08\x12\x07pytorch",
    Kind.ONNX_TEXT: b'<\n  ir_version: 8,\n  opset_import: ["" : 17]\n>\nsmall',
    Kind.TORCHSCRIPT: zipped("net/data.pkl", "net/code/net.py", "net/constants.pkl"),
    Kind.TORCH_EXPORT: zipped("net/archive_format", "net/models/model.json"),
    Kind.TORCH_WEIGHTS: zipped("archive/data.pkl", "archive/data/0"),
    Kind.PICKLE: pickle.dumps({"weights": [1, 2, 3]}, protocol=2),
    Kind.SAFETENSORS: (60).to_bytes(8, "little") + b'{"w":{"dtype":"F32"}}',
    Kind.GGUF: b"GGUF\x03\0\0\0",
    Kind.KERAS: zipped("metadata.json", "config.json", "model.weights.h5"),
    Kind.HDF5: b"\x89HDF\r\n\x1a\n\0",
    Kind.GRAPH_DEF: b"\x0a\x33\x0a\x05input\x12\x0bPlaceholder",
    Kind.SAVED_MODEL: b"\x08\x01\x12\x90\x80\x02\x0a\x10\x12\x0eserve",
    Kind.TFLITE: b"\x1c\0\0\0TFL3\0\0",
    Kind.OPENVINO: b'<?xml version="1.0"?>\n<net name="x" version="11">',
    Kind.ORT: b"\x30\0\0\0ORTM\0\0",
    Kind.MINDSPORE_LITE: b"\x18\0\0\0MSL2\0\0",
    Kind.TENSORRT: b"ftrt\0\0\0\0",
}


def test_every_kind_has_a_sample_and_a_remedy() -> None:
    assert set(MODELS) == set(Kind)
    assert set(EXPORT) == set(Kind) - {Kind.ONNX}


@pytest.mark.parametrize("kind", MODELS, ids=lambda k: k.name)
def test_kind_is_told_from_bytes(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(MODELS[kind])
    assert sniff(path) is kind


@pytest.mark.parametrize("kind", EXPORT, ids=lambda k: k.name)
def test_other_kinds_come_with_the_way_to_onnx(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"  # whatever its name says
    path.write_bytes(MODELS[kind])
    with pytest.raises(InfcError) as caught:
        frontends.load(path)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E101"
    assert diagnostic.message == f"`{path}` is {kind.value}; this version of infc reads ONNX"
    assert diagnostic.help == EXPORT[kind]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"<!DOCTYPE html><title>404", "an HTML page"),
        (b"\n <HTML><body>", "an HTML page"),
        (b"just some text, t\xc3\xa9l\xc3\xa9", "a text file"),
        (b'{"a": 1}', "a text file"),
        (b"\x89PNG\r\n\x1a\n\0\0", "a PNG image"),
        (b"\x7fELF\x02\x01\x01\0", "a program or shared library"),
        (b"\x1f\x8b\x08\0", "a gzip archive"),
        (b"\0" * 257 + b"ustar\x0000", "a tar archive"),
        (zipped("a.npy"), "a NumPy archive"),
        (zipped("readme.txt"), "a zip archive that holds no model"),
    ],
)
def test_what_is_no_model(data: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(InfcError) as caught:
        sniff(path)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E101"
    assert what in diagnostic.message


def test_saved_model_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(MODELS[Kind.SAVED_MODEL])
    assert sniff(tmp_path) is Kind.SAVED_MODEL


def test_folder_names_the_models_in_it(tmp_path: Path) -> None:
    write_model(tmp_path / "a.onnx", SMALL)
    with pytest.raises(InfcError, match=r"E100.*\n.*name the model file in it: a\.onnx"):
        sniff(tmp_path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InfcError, match=r"E100.*No such file"):
        sniff(tmp_path / "none.onnx")


def test_null_byte_in_the_path() -> None:
    with pytest.raises(InfcError, match=r"E100"):
        sniff(Path("a\0b"))


@pytest.mark.timeout(20)
def test_fifo_and_device_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(InfcError, match=r"E100.*not a regular file"):
            sniff(path)


def test_real_files_of_other_frameworks(models: Path) -> None:
    assert sniff(models / "dtln" / "dtln_saved_model") is Kind.SAVED_MODEL
    assert sniff(models / "dtln" / "dtln_saved_model" / "saved_model.pb") is Kind.SAVED_MODEL
    assert sniff(models / "fsrcnn" / "FSRCNN_x2.pb") is Kind.GRAPH_DEF
    assert sniff(models / "mlperf_tiny" / "ad01.h5") is Kind.HDF5
    assert sniff(models / "mlperf_tiny" / "ad01_int8.tflite") is Kind.TFLITE
    for path in models.rglob("*.onnx"):
        assert sniff(path) is Kind.ONNX

"""What a file is, from its bytes; what to do about it, in one diagnostic."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
from command import SMALL, write_model

from infc import frontends
from infc.diagnostics import InfcError
from infc.frontends.frameworks import framework_of
from infc.frontends.sniff import EXPORT, Kind, sniff


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return buffer.getvalue()


def tarred(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


MODELS = {
    Kind.ONNX: b"\x08\x08\x12\x07pytorch",
    Kind.ONNX_TEXT: b'<\n  ir_version: 8,\n  opset_import: ["" : 17]\n>\nsmall',
    Kind.TORCHSCRIPT: zipped("net/data.pkl", "net/code/net.py", "net/constants.pkl"),
    Kind.TORCH_EXPORT: zipped("net/archive_format", "net/models/model.json"),
    Kind.TORCH_WEIGHTS: zipped("archive/data.pkl", "archive/data/0"),
    Kind.AOTINDUCTOR: zipped(
        "net/archive_format", "net/data/aotinductor/model/a.so", "net/data/weights/w"
    ),
    Kind.TORCH_TAR: tarred("sys_info", "pickle", "tensors", "storages"),
    Kind.PICKLE: pickle.dumps({"weights": [1, 2, 3]}, protocol=2),
    Kind.SAFETENSORS: (60).to_bytes(8, "little") + b'{"w":{"dtype":"F32"}}',
    Kind.SHARDED_CHECKPOINT: b'{\n "metadata": {}, "weight_map": {}}',
    Kind.GGUF: b"GGUF\x03\0\0\0",
    Kind.KERAS: zipped("metadata.json", "config.json", "model.weights.h5"),
    Kind.HDF5: b"\x89HDF\r\n\x1a\n\0",
    Kind.GRAPH_DEF: b"\x0a\x33\x0a\x05input\x12\x0bPlaceholder",
    Kind.SAVED_MODEL: b"\x08\x01\x12\x90\x80\x02\x0a\x10\x12\x0eserve",
    Kind.TF_CHECKPOINT: bytes(40) + (0xDB4775248B80FB57).to_bytes(8, "little"),
    Kind.TFLITE: b"\x1c\0\0\0TFL3\0\0",
    Kind.OPENVINO: b'<?xml version="1.0"?>\n<net name="x" version="11">',
    Kind.ORT: b"\x30\0\0\0ORTM\0\0",
    Kind.MINDSPORE_LITE: b"\x18\0\0\0MSL2\0\0",
    Kind.TENSORRT: b"ftrt\0\0\0\0",
}


def test_every_kind_has_a_sample_and_a_remedy() -> None:
    assert set(MODELS) == set(Kind) - {Kind.PYTHON}
    assert set(EXPORT) == {kind for kind in Kind if framework_of(kind) is None} - {Kind.ONNX}


@pytest.mark.parametrize("kind", MODELS, ids=lambda k: k.name)
def test_kind_is_told_from_bytes(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(MODELS[kind])
    assert sniff(path) is kind


@pytest.mark.parametrize("kind", EXPORT, ids=lambda k: k.name)
def test_kinds_that_are_not_read_come_with_what_to_do(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"  # whatever its name says
    path.write_bytes(MODELS[kind])
    with pytest.raises(InfcError) as caught:
        frontends.load(path)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E101"
    assert diagnostic.message == f"`{path}` is {kind.value}, which infc does not read"
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
        (b"\x93NUMPY\x01\0", "a NumPy array"),
        (b"\x18\0\0\0ET12", "an ExecuTorch program"),
        (b'model_checkpoint_path: "m-1"', "a list of TensorFlow checkpoints"),
        (b'{"class_name": "Sequential", "config": {}}', "the architecture of a Keras model"),
        (b"backend: tensorflow\nclass_name: Model\n", "the architecture of a Keras model"),
        (b"!!python/object/apply:os.system ['touch pwned']", "a text file"),
        (b'node {\n  name: "x"', "a TensorFlow graph in text form"),
        (b"saved_model_schema_version: 1", "a SavedModel in text form"),
        (zipped("a.npy"), "a NumPy archive"),
        (zipped("m/saved_model.pb", "m/variables/variables.index"), "with a SavedModel in it"),
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


def test_folder_names_the_saved_models_in_it(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(MODELS[Kind.SAVED_MODEL])
    with pytest.raises(InfcError, match=r"E100.*\n.*name the model file in it: 1$"):
        sniff(tmp_path)


def test_saved_model_in_text_form_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pbtxt").write_text("saved_model_schema_version: 1")
    assert sniff(tmp_path) is Kind.SAVED_MODEL


def test_checkpoint_is_a_folder_or_any_of_its_files(tmp_path: Path) -> None:
    data = tmp_path / "model-1.data-00000-of-00001"
    data.write_bytes(bytes(100))
    assert sniff(data) is Kind.ONNX  # nothing says what it is
    (tmp_path / "model-1.index").write_bytes(MODELS[Kind.TF_CHECKPOINT])
    assert sniff(data) is Kind.TF_CHECKPOINT
    assert sniff(tmp_path) is Kind.TF_CHECKPOINT


TORCH_ZIPS = (Kind.TORCHSCRIPT, Kind.TORCH_EXPORT, Kind.TORCH_WEIGHTS, Kind.KERAS)


@pytest.mark.parametrize("kind", TORCH_ZIPS, ids=lambda k: k.name)
def test_archive_that_is_cut_off_is_still_known(kind: Kind, tmp_path: Path) -> None:
    """What is wrong with it is then said by whoever opens it."""
    data = MODELS[kind]
    path = tmp_path / "cut"
    path.write_bytes(data[: data.index(b"PK\x01\x02")])
    assert sniff(path) is kind


def test_names_deep_in_a_large_directory_are_found(tmp_path: Path) -> None:
    """A checkpoint of ten thousand tensors, whose data.pkl is in neither end of the file."""
    weights = [f"m/data/{'x' * 60}{i}" for i in range(5000)]
    path = tmp_path / "big.pt"
    path.write_bytes(zipped(*weights, "m/data.pkl", *(f"{w}b" for w in weights)))
    assert sniff(path) is Kind.TORCH_WEIGHTS


def test_code_is_named_by_module_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sniff(Path("package.module:factory")) is Kind.PYTHON
    assert sniff(Path("models/net.py:make")) is Kind.PYTHON
    Path("a:b").write_bytes(MODELS[Kind.ONNX])
    assert sniff(Path("a:b")) is Kind.ONNX


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

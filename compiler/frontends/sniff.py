"""Tell what a model file is from its bytes, executing nothing.

The name of a file decides nothing. Archives are not opened: the names in a zip file stand in
clear in its local headers and, again, in the directory at its end.
"""

from __future__ import annotations

import os
import re
import stat
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from infc.diagnostics import InfcError, fail
from infc.user_code import Reference

HEAD_BYTES = 4096
TAIL_BYTES = 1 << 18


class Kind(Enum):
    """The model formats infc can tell apart; the value is how a message names them."""

    ONNX = "an ONNX model"
    PYTHON = "Python code that makes a model"
    ONNX_TEXT = "an ONNX model in text form"
    TORCHSCRIPT = "a TorchScript archive"
    TORCH_EXPORT = "a torch.export archive (.pt2)"
    TORCH_WEIGHTS = "a PyTorch checkpoint"
    PICKLE = "a pickle (an old PyTorch checkpoint, or any Python object)"
    SAFETENSORS = "a safetensors file: weights without a graph"
    GGUF = "a GGUF file"
    KERAS = "a Keras model (.keras)"
    HDF5 = "an HDF5 file (Keras)"
    SAVED_MODEL = "a TensorFlow SavedModel"
    GRAPH_DEF = "a frozen TensorFlow graph"
    TFLITE = "a TensorFlow Lite model"
    OPENVINO = "an OpenVINO IR"
    ORT = "a model in ONNX Runtime's own format (.ort)"
    MINDSPORE_LITE = "a MindSpore Lite model (.ms)"
    TENSORRT = "a TensorRT engine"


_TORCH = "torch.onnx.export(model.eval(), (example_input,), 'model.onnx', dynamo=True)"
_KERAS = "keras.saving.load_model(PATH).export('model.onnx', format='onnx')"
_TF2ONNX = "python -m tf2onnx.convert {} --output model.onnx"
_BUILT = "compile the model that it was built from"

EXPORT: dict[Kind, str] = {
    Kind.ONNX_TEXT: "onnx.save(onnx.load(PATH, format='onnxtxt'), 'model.onnx') "
    "(or format='textproto' or 'json', whichever it is)",
    Kind.TORCHSCRIPT: "in the program that made it: " + _TORCH,
    Kind.TORCH_EXPORT: "torch.onnx.export(torch.export.load(PATH), f='model.onnx', dynamo=True)",
    Kind.TORCH_WEIGHTS: "load the weights into the model they belong to, then " + _TORCH,
    Kind.PICKLE: "load it, where you trust it, into the model it belongs to, then " + _TORCH,
    Kind.SAFETENSORS: "load the weights into the model they belong to, then " + _TORCH,
    Kind.GGUF: "export the model that it was quantised from",
    Kind.KERAS: _KERAS,
    Kind.HDF5: _KERAS,
    Kind.SAVED_MODEL: _TF2ONNX.format("--saved-model FOLDER"),
    Kind.GRAPH_DEF: _TF2ONNX.format("--graphdef PATH --inputs NAME:0 --outputs NAME:0"),
    Kind.TFLITE: _TF2ONNX.format("--tflite PATH"),
    Kind.OPENVINO: _BUILT,
    Kind.ORT: _BUILT,
    Kind.MINDSPORE_LITE: _BUILT,
    Kind.TENSORRT: _BUILT,
}
"""How to get ONNX from what infc does not read."""


class _Magic(NamedTuple):
    at: int
    bytes: bytes
    kind: Kind


_MODELS = (
    _Magic(0, b"\x89HDF\r\n\x1a\n", Kind.HDF5),
    _Magic(4, b"TFL3", Kind.TFLITE),
    _Magic(4, b"ORTM", Kind.ORT),
    _Magic(4, b"MSL", Kind.MINDSPORE_LITE),
    _Magic(0, b"ftrt", Kind.TENSORRT),
    _Magic(0, b"ptrt", Kind.TENSORRT),
    _Magic(0, b"GGUF", Kind.GGUF),
    _Magic(8, b'{"', Kind.SAFETENSORS),
)
_OTHERS = (
    (0, b"\x7fELF", "a program or shared library"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (0, b"7z\xbc\xaf", "a 7-Zip archive"),
    (257, b"ustar", "a tar archive"),
)
_HTML = "an HTML page, most likely a download error"
_TEXTS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull`"),
    (b"<!doctype", _HTML, "download the model again"),
    (b"<html", _HTML, "download the model again"),
)


def sniff(path: Path) -> Kind:
    """Return the kind of the file or folder `path`, or of `package.module:factory`.

    Binary data that is none of the others is taken for ONNX, whose protobuf has no magic number;
    its frontend then says what is wrong with it.

    Raises:
        InfcError: E100 where it cannot be read, E101 where it is plainly no model.
    """
    if Reference.parse(str(path)) is not None and not os.path.lexists(path):
        return Kind.PYTHON
    try:
        if path.is_dir():
            return _sniff_folder(path)
        head, tail = _read(path)
    except OSError as error:
        raise fail("E100", f"`{path}` cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a null byte in the path
        raise fail("E100", f"`{path!s}` cannot be read: {error}".replace("\0", "\\0")) from error
    if not head:
        raise fail("E101", f"`{path}` is empty", help="download or export it again")
    if head.startswith(b"PK\x03\x04"):
        return _sniff_zip(path, head + tail)
    for magic in _MODELS:
        if head.startswith(magic.bytes, magic.at):
            return magic.kind
    if re.match(rb"\x80[\x02-\x05][\x80-\xffA-Za-z(\]}]", head):
        return Kind.PICKLE
    for at, magic_bytes, what in _OTHERS:
        if head.startswith(magic_bytes, at):
            remedy = "unpack it and name the model" if "archive" in what else ""
            raise _no_model(path, what, remedy)
    if _is_text(head):
        return _sniff_text(path, head.lstrip().lower())
    return _sniff_protobuf(head)


def _read(path: Path) -> tuple[bytes, bytes]:
    """The first and the last bytes of a regular file, which a pipe or a device is not."""
    # Non-blocking: opening a fifo must not wait for someone to write to it.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise fail("E100", f"`{path}` is not a regular file")
        head = stream.read(HEAD_BYTES)
        stream.seek(max(0, status.st_size - TAIL_BYTES))
        return head, stream.read(TAIL_BYTES)


def _sniff_folder(path: Path) -> Kind:
    if (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file():
        return Kind.SAVED_MODEL
    models = sorted(p.name for p in path.glob("*.onnx"))
    remedy = f"name the model file in it: {', '.join(models[:5])}" if models else ""
    raise fail("E100", f"`{path}` is a directory", help=remedy or "name the model file in it")


def _sniff_zip(path: Path, data: bytes) -> Kind:
    if b"model.weights.h5" in data or b"metadata.json" in data:
        return Kind.KERAS
    if b"archive_format" in data or b"serialized_exported_program.json" in data:
        return Kind.TORCH_EXPORT
    if b"/data.pkl" in data:
        return Kind.TORCHSCRIPT if b"/constants.pkl" in data else Kind.TORCH_WEIGHTS
    if b".npy" in data:
        raise _no_model(path, "a NumPy archive (.npz)", "")
    raise _no_model(path, "a zip archive that holds no model infc knows", "unpack it first")


def _sniff_text(path: Path, text: bytes) -> Kind:
    for start, what, remedy in _TEXTS:
        if text.startswith(start):
            raise _no_model(path, what, remedy)
    if text.startswith(b"<?xml") and b"<net" in text:
        return Kind.OPENVINO
    if re.search(rb'^\W{0,9}(ir_version|irversion)"?\s*:', text):
        return Kind.ONNX_TEXT
    raise _no_model(path, "a text file", "")


def _sniff_protobuf(head: bytes) -> Kind:
    """Tell TensorFlow's protobufs from ONNX's, by the type of their first fields.

    `ModelProto`: 1 = ir_version, varint; 2 = producer_name, text.
    `GraphDef`: 1 = node, message, whose 1 = name. `SavedModel`: 1 = schema version, varint;
    2 = meta graph, message, whose 1 = meta info, message.
    """
    if re.match(rb"\x0a[\x01-\xff]{1,5}?\x0a[\x01-\x7f][\x20-\x7e]", head):
        return Kind.GRAPH_DEF
    if re.match(rb"\x08\x01\x12[\x80-\xff]{0,4}[\x00-\x7f]\x0a", head):
        return Kind.SAVED_MODEL
    return Kind.ONNX


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # else the last character is only cut off
            return False
        text = head[: error.start].decode("utf-8")
    return all(c.isprintable() or c in "\t\r\n\f\ufeff" for c in text)


def _no_model(path: Path, what: str, remedy: str) -> InfcError:
    return fail("E101", f"`{path}` is {what}", help=remedy)

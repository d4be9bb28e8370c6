"""Tell what a model file is from its first bytes, executing nothing."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from infc.diagnostics import fail


class Kind(Enum):
    """The formats infc can tell apart; the value is how a message names them."""

    ONNX = "an ONNX model"
    ZIP = "a zip archive (PyTorch or Keras)"
    PICKLE = "a pickle"
    HDF5 = "an HDF5 file (Keras)"
    TFLITE = "a TensorFlow Lite model"
    TENSORFLOW = "a TensorFlow SavedModel"
    OPENVINO = "an OpenVINO IR"


_MAGIC = (
    (0, b"PK\x03\x04", Kind.ZIP),
    (0, b"\x89HDF\r\n\x1a\n", Kind.HDF5),
    (4, b"TFL3", Kind.TFLITE),
    (0, b"\x80\x02", Kind.PICKLE),
)
_TEXT = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull`"),
    (b"<!DOCTYPE", "an HTML page, most likely a download error", "download the model again"),
    (b"<html", "an HTML page, most likely a download error", "download the model again"),
)


def sniff(path: Path) -> Kind:
    """Return the kind of the file or folder `path`.

    Anything that is none of the others is taken for ONNX, whose protobuf has no magic number; its
    frontend then says what is wrong with it.

    Raises:
        InfcError: E100 where it cannot be read, E101 where it is plainly no model.
    """
    try:
        if path.is_dir():
            if (path / "saved_model.pb").exists():
                return Kind.TENSORFLOW
            raise fail("E100", f"`{path}` is a directory", help="name the model file in it")
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise fail("E100", f"`{path}` cannot be read: {error.strerror}") from error
    if not head:
        raise fail("E101", f"`{path}` is empty")
    for start, what, remedy in _TEXT:
        if head.lstrip().lower().startswith(start.lower()):
            raise fail("E101", f"`{path}` is {what}", help=remedy)
    if head.lstrip().startswith(b"<?xml"):
        return Kind.OPENVINO
    return next((k for at, magic, k in _MAGIC if head[at : at + len(magic)] == magic), Kind.ONNX)

"""Tell what a model file is from its bytes, executing nothing.

The name of a file decides nothing. Of a zip archive, only the names of the entries are looked at;
where its directory cannot be read, those that stand in clear at its beginning and its end.
"""

from __future__ import annotations

import os
import re
import stat
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from infc.diagnostics import InfcError, fail
from infc.frontends.containers import archives, weight_index
from infc.user_code import Reference

HEAD_BYTES = 4096
TAIL_BYTES = 1 << 18
MAX_NAMED = 8


class Kind(Enum):
    """The model formats infc can tell apart; the value is how a message names them."""

    ONNX = "an ONNX model"
    PYTHON = "Python code that makes a model"
    ONNX_TEXT = "an ONNX model in text form"
    TORCHSCRIPT = "a TorchScript archive"
    TORCH_EXPORT = "a torch.export archive (.pt2)"
    TORCH_WEIGHTS = "a PyTorch checkpoint"
    AOTINDUCTOR = "an AOTInductor package (.pt2): compiled code without its graph"
    TORCH_TAR = "a PyTorch checkpoint in the tar format of version 0.1"
    PICKLE = "a pickle (an old PyTorch checkpoint, or any Python object)"
    SAFETENSORS = "a safetensors file: weights without a graph"
    SHARDED_CHECKPOINT = "an index of weights that lie in several files"
    GGUF = "a GGUF file"
    KERAS = "a Keras model (.keras)"
    HDF5 = "an HDF5 file (Keras)"
    SAVED_MODEL = "a TensorFlow SavedModel"
    GRAPH_DEF = "a frozen TensorFlow graph"
    TF_CHECKPOINT = "a TensorFlow checkpoint: weights without a graph"
    TFLITE = "a TensorFlow Lite model"
    OPENVINO = "an OpenVINO IR"
    ORT = "a model in ONNX Runtime's own format (.ort)"
    MINDSPORE_LITE = "a MindSpore Lite model (.ms)"
    TENSORRT = "a TensorRT engine"


_BUILT = "compile the model that it was built from"

EXPORT: dict[Kind, str] = {
    Kind.ONNX_TEXT: "onnx.save(onnx.load(PATH, format='onnxtxt'), 'model.onnx') "
    "(or format='textproto' or 'json', whichever it is)",
    Kind.AOTINDUCTOR: "save the program that it was built from: torch.export.save(program, PATH)",
    Kind.TORCH_TAR: "load it, where you trust it, with torch.load(PATH, weights_only=False) and "
    "torch.save its state_dict",
    Kind.TF_CHECKPOINT: "restore it into the model it belongs to, then "
    "tf.saved_model.save(model, FOLDER)",
    Kind.GGUF: "export the model that it was quantised from",
    Kind.OPENVINO: _BUILT,
    Kind.ORT: _BUILT,
    Kind.MINDSPORE_LITE: _BUILT,
    Kind.TENSORRT: _BUILT,
}
"""What to do about what infc knows and does not read."""


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
    (4, b"ET1", "an ExecuTorch program"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (257, b"ustar", "a tar archive"),
)
_TAR_MEMBERS = (b"sys_info", b"pickle", b"tensors", b"storages")
"""The first of them begins a legacy checkpoint, torch/serialization.py `legacy_load`."""
_CHECKPOINT = (0xDB4775248B80FB57).to_bytes(8, "little")
"""The end of a table of LevelDB, which TensorFlow's index of a checkpoint is (table/format.h)."""
_HTML = "an HTML page, most likely a download error"
_KERAS_TEXT = "the architecture of a Keras model, without its weights"
_SAVE_KERAS = "save the whole model: `model.save('model.keras')`"
_TEXTS = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull`"),
    (rb"<!doctype", _HTML, "download the model again"),
    (rb"<html", _HTML, "download the model again"),
    (
        rb'model_checkpoint_path: "',
        "a list of TensorFlow checkpoints",
        "name a SavedModel's folder",
    ),
    (rb"(backend|class_name|config|keras_version): ?", _KERAS_TEXT, _SAVE_KERAS),
    (rb'\{[^{}]{0,99}"class_name": ?"(functional|model|sequential)', _KERAS_TEXT, _SAVE_KERAS),
    (
        rb"node:? ?\{",
        "a TensorFlow graph in text form",
        "write it in binary form: tf.io.write_graph(graph, FOLDER, NAME, as_text=False)",
    ),
    (rb"saved_model_schema_version:", "a SavedModel in text form", "name the folder that it is in"),
)
_MODEL_NAMES = (
    *("*.onnx", "*.pt2", "*.pt", "*.pth", "*.jit", "*.keras", "*.h5", "*.hdf5", "*.tflite", "*.pb"),
    *("*.safetensors", "pytorch_model.bin", "*.index.json"),
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
    if head.startswith(archives.LOCAL_HEADER):
        return _sniff_zip(path, head + tail)
    kind = _by_magic(head, tail)
    if kind is not None:
        return kind
    _require_no_other(path, head)
    if weight_index.is_index(head):
        return Kind.SHARDED_CHECKPOINT
    if _is_text(head):
        return _sniff_text(path, head.lstrip().lower())
    if _is_checkpoint_data(path):
        return Kind.TF_CHECKPOINT
    return _sniff_protobuf(head)


def _by_magic(head: bytes, tail: bytes) -> Kind | None:
    """The kind that the first and the last bytes of a file tell, None where they do not."""
    if tail.endswith(_CHECKPOINT):
        return Kind.TF_CHECKPOINT
    if head.partition(b"\0")[0] in _TAR_MEMBERS and head.startswith(b"ustar", 257):
        return Kind.TORCH_TAR
    for magic in _MODELS:
        if head.startswith(magic.bytes, magic.at):
            return magic.kind
    if re.match(rb"\x80[\x02-\x05][\x80-\xffA-Za-z(\]}]", head):
        return Kind.PICKLE
    return None


def _require_no_other(path: Path, head: bytes) -> None:
    """Refuse what begins as files do that are no models.

    Raises:
        InfcError: E101.
    """
    for at, magic_bytes, what in _OTHERS:
        if head.startswith(magic_bytes, at):
            remedy = "unpack it and name the model" if "archive" in what else ""
            raise _no_model(path, what, remedy)


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
    if _is_saved_model(path):
        return Kind.SAVED_MODEL
    if weight_index.index_in(path) is not None:
        return Kind.SHARDED_CHECKPOINT
    remedy = "name the model file in it"
    found = {p.name for pattern in _MODEL_NAMES for p in path.glob(pattern)}
    found |= {p.name for p in path.iterdir() if p.is_dir() and _is_saved_model(p)}
    if found:
        remedy += f": {', '.join(sorted(found)[:MAX_NAMED])}"
    elif any(_is_checkpoint_index(p) for p in path.glob("*.index")):
        return Kind.TF_CHECKPOINT
    raise fail("E100", f"`{path}` is a directory", help=remedy)


def _is_saved_model(folder: Path) -> bool:
    return any((folder / f"saved_model.{end}").is_file() for end in ("pb", "pbtxt"))


def _is_checkpoint_index(path: Path) -> bool:
    try:
        return _read(path)[1].endswith(_CHECKPOINT)
    except (OSError, InfcError):
        return False


def _is_checkpoint_data(path: Path) -> bool:
    """Whether it is `NAME.data-00000-of-00001`, which has no magic number, beside an index."""
    match = re.fullmatch(r"(.+)\.data-\d{5}-of-\d{5}", path.name)
    return match is not None and _is_checkpoint_index(path.with_name(f"{match[1]}.index"))


def _sniff_zip(path: Path, ends: bytes) -> Kind:
    names = archives.entry_names(path) or archives.names_in(ends)
    folders = {name.partition("/")[2] for name in names}
    if {"config.json", "metadata.json"} <= names or "model.weights.h5" in names:
        return Kind.KERAS
    if "serialized_exported_program.json" in names or "archive_format" in folders:
        compiled = any("/aotinductor/" in name for name in names)
        program = any(name.startswith("models/") for name in folders)
        return Kind.AOTINDUCTOR if compiled and not program else Kind.TORCH_EXPORT
    if "data.pkl" in folders:
        return Kind.TORCHSCRIPT if "constants.pkl" in folders else Kind.TORCH_WEIGHTS
    if "constants.pkl" in folders and any(name.startswith("code/") for name in folders):
        return Kind.TORCHSCRIPT
    if any(name.rpartition("/")[2] in ("saved_model.pb", "saved_model.pbtxt") for name in names):
        raise _no_model(path, "a zip archive with a SavedModel in it", "unpack it, name its folder")
    if any(name.endswith(".npy") for name in names):
        raise _no_model(path, "a NumPy archive (.npz)", "")
    raise _no_model(path, "a zip archive that holds no model infc knows", "unpack it first")


def _sniff_text(path: Path, text: bytes) -> Kind:
    for start, what, remedy in _TEXTS:
        if re.match(start, text):
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

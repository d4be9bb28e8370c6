"""External data: where a model's weights lie in other files, before anything reads them.

A model file is untrusted, and `location` is a path. It must be relative, stay in the model's
folder (also through every symbolic link on the way), and be a regular file that holds the bytes.
Source: onnx.proto, `TensorProto.external_data`; onnx/docs/ExternalData.md.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import onnx

from infc.diagnostics import InfcError, fail
from infc.frontends.findings import Findings, quoted
from infc.frontends.onnx_tensors import all_tensors, byte_size, is_external

_KEYS = ("location", "offset", "length", "checksum")
_NUMBER = re.compile(r"[0-9]{1,18}")
SMALL_BYTES = 8192
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes of one tensor: `size` bytes from `offset` in the file at `path`."""

    location: str
    path: Path
    offset: int
    size: int
    identity: tuple[int, int]
    """Device and inode when it was checked: the file that is read later must be the same."""


class _Refused(NamedTuple):
    problem: str
    remedy: str = ""


class _Found(NamedTuple):
    path: Path
    status: os.stat_result


def check_external(model: onnx.ModelProto, folder: Path, findings: Findings) -> list[Piece]:
    """Add an E103 for every external tensor that cannot be had; return where the others are.

    Tensors without a single byte are given their (empty) data: no file need exist for them.
    Small ones are read in, for what shape arithmetic needs should be at hand; so are those in
    attributes, because onnx_ir keeps only initializers outside.
    """
    pieces = []
    refused: set[tuple[str, str]] = set()
    for tensor, in_graph in all_tensors(model):
        if not is_external(tensor):
            continue
        if tensor.data_type == onnx.TensorProto.STRING:
            findings.add("E103", f"tensor {quoted(tensor.name)}: strings cannot be external")
            continue
        if not byte_size(tensor):
            del tensor.external_data[:]
            tensor.ClearField("data_location")
            tensor.raw_data = b""
            continue
        piece = _locate(tensor, folder)
        if isinstance(piece, Piece):
            pieces.append(piece)
            if piece.size <= SMALL_BYTES or not in_graph:
                _embed(tensor, piece)
            continue
        problem = piece.problem
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        if (location, problem) not in refused:  # once for a file, not once for each tensor
            refused.add((location, problem))
            message = f"external data {quoted(location)} {problem}"
            findings.add("E103", f"{message} (tensor {quoted(tensor.name)})", help=piece.remedy)
    return pieces


def _locate(tensor: onnx.TensorProto, folder: Path) -> Piece | _Refused:
    entries = {e.key: e.value for e in tensor.external_data}
    if not all(isinstance(text, str) for pair in entries.items() for text in pair):
        return _Refused("is not UTF-8")
    for entry in [e for e in tensor.external_data if e.key not in _KEYS]:
        tensor.external_data.remove(entry)
    location = entries.get("location", "")
    found = _resolve(location, folder)
    if isinstance(found, _Refused):
        return found
    path, status = found
    size = byte_size(tensor)
    for key in ("offset", "length"):
        if entries.get(key) and not _NUMBER.fullmatch(entries[key]):
            return _Refused(f"has the {key} {quoted(entries[key])}, which is not a size")
    offset, length = int(entries.get("offset") or 0), int(entries.get("length") or size)
    if length != size:
        return _Refused(f"gives the tensor {length} bytes; its shape and type need {size}")
    if offset + size > status.st_size:
        return _Refused(
            f"has {status.st_size} bytes; the tensor ends at byte {offset + size}",
            "the download may be incomplete",
        )
    return Piece(location, path, offset, size, (status.st_dev, status.st_ino))


def _resolve(location: str, folder: Path) -> _Found | _Refused:
    if not location or "\0" in location:
        return _Refused("has no location")
    if Path(location).is_absolute() or ".." in Path(location).parts:
        return _Refused("lies outside the model's folder", "put the file beside the model")
    try:
        base = folder.resolve(strict=True)
        path = (base / location).resolve(strict=True)
        status = path.stat()
    except FileNotFoundError:
        return _Refused("does not exist", f"it is looked for in `{folder}`")
    except (OSError, RuntimeError, ValueError) as error:
        return _Refused(f"cannot be reached: {getattr(error, 'strerror', None) or error}")
    if not path.is_relative_to(base):
        return _Refused(
            "leads out of the model's folder through a symbolic link",
            "put the file itself beside the model (`cp -L`)",
        )
    if not stat.S_ISREG(status.st_mode):
        return _Refused("is not a regular file")
    if status.st_nlink > 1:
        return _Refused(
            f"has {status.st_nlink} hard links, so it may be a file of somewhere else",
            "put a copy of it beside the model",
        )
    if not os.access(path, os.R_OK):
        return _Refused("may not be read by this user")
    return _Found(path, status)


def _embed(tensor: onnx.TensorProto, piece: Piece) -> None:
    with _open(piece) as stream:
        stream.seek(piece.offset)
        tensor.raw_data = stream.read(piece.size)
    tensor.ClearField("data_location")
    del tensor.external_data[:]


def sha256_with(model_digest: str, pieces: Iterable[Piece]) -> str:
    """The hash of a model: its file's own, or, with external data, that of all of it.

    With external data it is the SHA-256 of lines as `sha256sum` writes them, the model first,
    then each file in the order of its location. Of a file, only the bytes that a tensor uses are
    read, and each of them once: a sparse file of a terabyte costs no more than its tensors.

    Raises:
        InfcError: E103 where a file is no longer what was checked.
    """
    files: dict[str, list[Piece]] = {}
    for piece in pieces:
        files.setdefault(piece.location, []).append(piece)
    if not files:
        return model_digest
    lines = [f"{model_digest}  model"]
    lines += [f"{_sha256_of(files[location])}  {location}" for location in sorted(files)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _sha256_of(pieces: list[Piece]) -> str:
    digest = hashlib.sha256()
    with _open(pieces[0]) as stream:
        done = 0
        for piece in sorted(pieces, key=lambda p: p.offset):
            start, end = max(done, piece.offset), piece.offset + piece.size
            stream.seek(start)
            while start < end:
                block = stream.read(min(_BLOCK_BYTES, end - start))
                if not block:
                    raise _changed(piece.location)
                digest.update(block)
                start += len(block)
            done = max(done, end)
    return digest.hexdigest()


def _open(piece: Piece) -> BinaryIO:
    try:
        # Non-blocking: should the file have become a fifo since, opening it must not wait.
        handle = os.open(piece.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _changed(piece.location) from error
    status = os.fstat(handle)
    if (status.st_dev, status.st_ino) != piece.identity or not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise _changed(piece.location)
    return os.fdopen(handle, "rb")


def _changed(what: str) -> InfcError:
    return fail("E103", f"external data {quoted(what)} changed while it was read")

"""The index of a TensorFlow checkpoint: names, types, shapes and places of the variables.

`NAME.index` is a table as LevelDB writes them: blocks of keys, each sharing a prefix with the one
before it, and at the end of the file the place of the block that lists the blocks. A key is the
name of a variable, its value a `BundleEntryProto`.

Source: tensorflow/core/lib/io/format.h, block_builder.cc; protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from infc.frontends.containers import tensorflow_messages as messages
from infc.frontends.containers.archives import damaged
from infc.frontends.containers.description import Description, Value, Weights, text

MAX_INDEX_BYTES = 1 << 30
MAX_VARIABLES = 1_000_000
_FOOTER_BYTES = 48
_NO_COMPRESSION = 0
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


class MalformedIndexError(ValueError):
    """The table does not hold together."""


def describe(path: Path) -> Description:
    """The variables of the checkpoint that `path` belongs to: a folder, an index, or data.

    Raises:
        InfcError: E117 where the index is damaged or missing.
    """
    index = index_of(path)
    variables = read(index)
    return Description(
        "tensorflow-checkpoint",
        "TensorFlow checkpoint",
        weights=Weights.of(variables),
        tensors=variables,
        details={"index": index.name},
    )


def index_of(path: Path) -> Path:
    """The index beside `path`, or the newest by name in the folder."""
    if path.is_dir():
        found = sorted(path.glob("*.index"))
        if not found:
            raise damaged(str(path), "it has no index")
        return found[-1]
    head, mark, _ = path.name.partition(".data-")
    return path.with_name(f"{head}.index") if mark else path


def read(path: Path) -> list[Value]:
    """The variables that an index lists.

    Raises:
        InfcError: E117 where it is damaged.
    """
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise MalformedIndexError("it is too large")
        data = path.read_bytes()
        rows = []
        for key, value in _entries(data):
            entry = messages.parse(value, "BundleEntryProto", str(path))
            name = text(key).removesuffix(_VALUE)
            if key and name != _OBJECT_GRAPH:
                dtype = messages.dtype(entry.dtype)
                rows.append(Value(name, dtype, messages.shape(entry.shape)))
            if len(rows) > MAX_VARIABLES:
                raise MalformedIndexError("it lists too many variables")
    except (MalformedIndexError, IndexError, OSError) as error:
        raise damaged(str(path), f"its table cannot be read: {error}") from error
    return rows


def _entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values, in order."""
    footer = data[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES:
        raise MalformedIndexError("it is too short")
    place = 0
    for _ in range(2):  # the block of metadata, which is empty
        _, place = _varint(footer, place)
    offset, place = _varint(footer, place)
    size, _ = _varint(footer, place)
    for _, handle in _block(data, offset, size):
        inner, place = _varint(handle, 0)
        length, _ = _varint(handle, place)
        yield from _block(data, inner, length)


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a block; its list of restarts and a byte on compression follow them."""
    if size < 4 or offset + size + 1 > len(data):
        raise MalformedIndexError("a block leads out of the file")
    if data[offset + size] != _NO_COMPRESSION:
        raise MalformedIndexError("a block is compressed")
    restarts = int.from_bytes(data[offset + size - 4 : offset + size], "little")
    end = offset + size - 4 - 4 * restarts
    key = b""
    while offset < end:
        shared, offset = _varint(data, offset)
        own, offset = _varint(data, offset)
        length, offset = _varint(data, offset)
        if shared > len(key) or offset + own + length > end:
            raise MalformedIndexError("an entry leads out of its block")
        key = key[:shared] + data[offset : offset + own]
        offset += own
        yield key, data[offset : offset + length]
        offset += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """(number, the place behind it); seven bits a byte, the lowest first."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise MalformedIndexError("a number does not end")

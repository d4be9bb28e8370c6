"""safetensors: a JSON header with names, types, shapes and places, then the bytes.

    8 bytes     n, the size of the header, little endian
    n bytes     {"NAME": {"dtype": "F32", "shape": [...], "data_offsets": [begin, end]}, ...}
    the rest    the tensors, without gaps

Source: https://github.com/huggingface/safetensors, README.md "Format".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infc.frontends.containers.archives import damaged
from infc.frontends.containers.description import Description, Value, Weights, bits_of, is_size

MAX_HEADER_BYTES = 100_000_000
"""As in the reference implementation."""
DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
    "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16",
    "F32": "float32", "F64": "float64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu", "C64": "complex64", "F4": "float4_e2m1fn",
}  # fmt: skip
METADATA = "__metadata__"


def describe(path: Path) -> Description:
    """The tensors in `path`, whose places were checked.

    Raises:
        InfcError: E117 where the header is damaged or does not fit the file.
    """
    label, size = str(path), path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise damaged(label, f"its header would take {length:,} bytes")
        try:
            header = json.loads(stream.read(length))
            rows = {name: row for name, row in header.items() if name != METADATA}
            tensors = [_tensor(name, row) for name, row in rows.items()]
            spans = sorted(tuple(row["data_offsets"]) for row in rows.values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise damaged(label, "its header is not as it should be") from error
    _require_places(label, tensors, rows, spans, size - 8 - length)
    metadata = header.get(METADATA)
    details = metadata if isinstance(metadata, dict) else {}
    return Description(
        "safetensors",
        "safetensors checkpoint",
        weights=Weights.of(tensors),
        tensors=tensors,
        details={str(k): str(v) for k, v in details.items()},
    )


def _tensor(name: str, row: dict[str, Any]) -> Value:
    shape = row["shape"]
    if not all(map(is_size, shape)) or not all(map(is_size, row["data_offsets"])):
        raise ValueError("no size")
    return Value(name, DTYPES.get(row["dtype"], str(row["dtype"])), tuple(shape))


def _require_places(
    label: str,
    tensors: list[Value],
    rows: dict[str, Any],
    spans: list[tuple[int, ...]],
    size: int,
) -> None:
    for tensor, row in zip(tensors, rows.values(), strict=True):
        if len(row["data_offsets"]) != 2 or len(tensor.shape or ()) > 64:
            raise damaged(label, f"`{tensor.name}` has no place in it")
        begin, end = row["data_offsets"]
        bits = bits_of(tensor.dtype) * tensor.elements
        if bits_of(tensor.dtype) and -(-bits // 8) != end - begin:
            raise damaged(label, f"`{tensor.name}` takes {end - begin:,} bytes")
    place = 0
    for begin, end in spans:
        if begin != place or end < begin:
            raise damaged(label, "its tensors overlap or leave gaps")
        place = end
    if place != size:
        raise damaged(label, f"its tensors take {place:,} bytes, of which {size:,} are there")

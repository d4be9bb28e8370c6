"""The tensors in a PyTorch checkpoint: names, element types, shapes; never the values.

A tensor is pickled as a call of `torch._utils._rebuild_tensor_v2(storage, offset, size, stride,
...)`, its storage as a persistent id `("storage", torch.FloatStorage, key, place, numel)`.

Source: torch/_utils.py, torch/serialization.py.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from infc.frontends.containers import torch_archives
from infc.frontends.containers.archives import damaged
from infc.frontends.containers.description import Description, Value, Weights, is_size, shape_of
from infc.frontends.containers.pickle_machine import (
    Followed,
    Global,
    Made,
    MalformedPickleError,
    Persistent,
    Stream,
    Table,
    follow,
)
from infc.frontends.containers.pickles import (
    LEGACY_PICKLES,
    MAGIC,
    MAX_PICKLE_BYTES,
    is_plain,
    offenders,
    unsafe_in,
)

MAX_TENSORS = 200_000
MAX_DEPTH = 50
STORAGES = {
    "Bool": "bool", "Byte": "uint8", "Char": "int8", "Short": "int16", "Int": "int32",
    "Long": "int64", "Half": "float16", "BFloat16": "bfloat16", "Float": "float32",
    "Double": "float64", "ComplexFloat": "complex64", "ComplexDouble": "complex128",
    "QInt8": "qint8", "QUInt8": "quint8", "QInt32": "qint32",
}  # fmt: skip
_WRAPPERS = ("_rebuild_parameter", "_rebuild_parameter_with_state")
_INNER = ("_modules", "_parameters", "_buffers")
"""Where a module keeps what belongs to it, torch/nn/modules/module.py."""


def describe_archive(path: Path) -> Description:
    """The checkpoint in the zip archive `path`.

    Raises:
        InfcError: E116 where it is not safe to open, E117 where it is damaged.
    """
    with torch_archives.open_archive(path) as archive:
        data = archive.read("data.pkl", MAX_PICKLE_BYTES)
        version = archive.text("version")
        others = list(unsafe_in(archive, but="data.pkl"))
    seen = Followed()
    try:
        follow(BytesIO(data), seen)
    except MalformedPickleError as error:
        raise damaged(str(path), f"its `data.pkl` cannot be followed: {error}") from error
    return _description(seen, {"archive": f"version {version}"} if version else {}, others)


def describe_bare(path: Path) -> Description:
    """The checkpoint in the bare pickle `path`.

    Raises:
        InfcError: E117 where it is damaged.
    """
    seen = Followed()
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            value = _legacy_value(data, seen)
        except MalformedPickleError as error:
            raise damaged(str(path), f"its pickle cannot be followed: {error}") from error
    seen.value = value
    return _description(seen, {"archive": "none: before PyTorch 1.6"} if value else {})


def _legacy_value(stream: Stream, seen: Followed) -> Any:
    """The object: the fourth of five pickles, or the only one."""
    value = follow(stream, seen).value
    if not isinstance(value, int) or value != MAGIC:
        return value
    values = [follow(stream, seen).value for _ in range(LEGACY_PICKLES - 1)]
    return values[2]


def _description(
    seen: Followed, details: dict[str, str], others: Sequence[str] = ()
) -> Description:
    unsafe = list(dict.fromkeys([*offenders(seen, is_plain), *others]))
    tensors = list(tensors_in(seen.value))
    if _is_module(seen.value):
        kind, title = "torch-module", "pickled PyTorch module"
        details = {"class": _class(seen.value.maker), **details}
    elif tensors:
        kind, title = "torch-checkpoint", "PyTorch checkpoint"
    else:
        kind, title = "pickle", "pickle without tensors"
    keys = _keys(seen.value)
    if keys and len(keys) < len(tensors):
        details = {"keys": ", ".join(keys[:20]), **details}
    weights = Weights.of(tensors)
    return Description(
        kind, title, weights=weights, tensors=tensors, details=details, unsafe=unsafe
    )


def _is_module(value: Any) -> bool:
    """Whether an object has a module's insides: its class may be anybody's."""
    return isinstance(value, Made) and {"_modules", "_parameters"} <= set(_keys(value.state))


def _class(maker: Any) -> str:
    """The name of a class; before PyTorch 1.6 it stood beside its source code."""
    if isinstance(maker, Persistent) and isinstance(maker.id, tuple) and len(maker.id) > 1:
        maker = maker.id[1]
    return str(maker) if isinstance(maker, Global) else "unknown"


def _keys(value: Any) -> list[str]:
    return [key for key, _ in _pairs(value) if isinstance(key, str)]


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Table):
        return value.pairs
    if isinstance(value, Made):
        return [*value.pairs, *_pairs(value.state)]
    if isinstance(value, (list, tuple)):
        return [(str(index), row) for index, row in enumerate(value)]
    return []


def tensors_in(value: Any) -> Iterator[Value]:
    """The tensors that a value holds, named by the path to them; each object once.

    What an optimizer remembers is left out.
    """
    seen: set[int] = set()
    pending: list[tuple[tuple[str, ...], Any]] = [((), value)]
    found = 0
    while pending and found < MAX_TENSORS:
        place, row = pending.pop()
        if id(row) in seen or len(place) > MAX_DEPTH:
            continue
        if isinstance(row, (Table, Made, list, tuple)):
            seen.add(id(row))
        tensor = tensor_of(".".join(place), row)
        if tensor is not None:
            found += 1
            yield tensor
            continue
        inside = [
            (place if key in _INNER else (*place, str(key)), inner)
            for key, inner in _pairs(row)
            if _is_key(key) and not str(key).startswith("optim")
        ]
        pending.extend(reversed(inside))


def _is_key(value: Any) -> bool:
    return isinstance(value, str) or is_size(value)


def tensor_of(name: str, value: Any) -> Value | None:
    """The tensor that a pickled call would build; None for what is none."""
    for _ in range(MAX_DEPTH):
        if not (isinstance(value, Made) and isinstance(value.arguments, tuple) and value.arguments):
            return None
        maker = str(value.maker).rpartition(".")[2] if isinstance(value.maker, Global) else ""
        if maker in _WRAPPERS or (maker == "Parameter" and not value.pairs):
            value = value.arguments[0]
            continue
        if not maker.startswith("_rebuild_"):
            return None
        return _rebuilt(name, maker, value.arguments)
    return None


def _rebuilt(name: str, maker: str, arguments: tuple[Any, ...]) -> Value | None:
    """Of a call `maker(storage, offset, size, ...)`; `_rebuild_tensor_v3` has the type as well."""
    storage = arguments[0]
    if maker == "_rebuild_from_type_v2" and len(arguments) > 2:
        inner = Made(arguments[0], arguments[2])
        return tensor_of(name, inner)
    if not isinstance(storage, Persistent) or len(arguments) < 3:
        return None
    dtype = dtype_of(storage)
    if maker == "_rebuild_tensor_v3":
        named = [a.name for a in arguments[3:] if isinstance(a, Global) and a.module == "torch"]
        dtype = named[0] if named else dtype
    return Value(name, dtype, shape_of(arguments[2]))


def dtype_of(storage: Persistent) -> str:
    """The element type of a storage, "unknown" where its class is none of torch's."""
    row = storage.id
    if isinstance(row, tuple) and len(row) > 1 and isinstance(row[1], Global):
        return STORAGES.get(row[1].name.removesuffix("Storage"), "unknown")
    return "unknown"

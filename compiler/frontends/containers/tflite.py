"""TensorFlow Lite models: tensors with their quantisation, operators, signatures.

Source: tensorflow/lite/schema/schema.fbs; the numbers of fields are their places in it.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from infc.frontends.containers.archives import damaged
from infc.frontends.containers.description import (
    MAX_RANK,
    Description,
    Value,
    Weights,
    shape_of,
)
from infc.frontends.containers.flat_tables import FlatTable, MalformedTableError
from infc.frontends.containers.tflite_operators import OPERATORS

DTYPES = (
    *("float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64"),
    *("int8", "float64", "complex128", "uint64", "resource", "variant", "uint32", "uint16"),
    *("int4", "bfloat16"),
)
"""`enum TensorType`."""
CUSTOM = 32
MAX_TABLES = 1_000_000
MIN_RUNTIME = "min_runtime_version"


def describe(path: Path) -> Description:
    """The first subgraph of the model in `path`.

    Raises:
        InfcError: E117 where an offset leads out of the file or an index to nothing.
    """
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as m:
            return _described(m)
    except (MalformedTableError, IndexError, ValueError) as error:
        raise damaged(str(path), str(error)) from error


def _described(data: mmap.mmap) -> Description:
    if len(data) < 8:
        raise MalformedTableError("it has no header")
    model = FlatTable(data, int.from_bytes(data[:4], "little"))
    subgraphs = _bounded(model, 2)
    if not subgraphs:
        raise MalformedTableError("it has no graph")
    buffers = _bounded(model, 4)
    names = [_operator(code) for code in _bounded(model, 1)]
    operators: Counter[str] = Counter()
    for subgraph in subgraphs:
        operators.update(
            names[_index(row.scalar(0, "I"), names, "operator")] for row in _bounded(subgraph, 3)
        )
    tensors = _bounded(subgraphs[0], 0)
    values = [_value(row) for row in tensors]
    constants = [
        value for value, row in zip(values, tensors, strict=True) if _is_constant(row, buffers)
    ]
    inputs, outputs = (
        [values[_index(i, values, "tensor")] for i in subgraphs[0].integers(field)]
        for field in (1, 2)
    )
    return Description(
        "tflite",
        "TensorFlow Lite model",
        version=_version(model, buffers),
        inputs=_renamed(model, inputs, 0),
        outputs=_renamed(model, outputs, 1),
        weights=Weights.of(constants),
        operators=operators,
        details=_details(model, len(subgraphs)),
    )


def _bounded(table: FlatTable, field: int) -> list[FlatTable]:
    if table.length(field) > MAX_TABLES:
        raise MalformedTableError(f"a vector of {table.length(field):,} tables")
    return list(table.tables(field))


def _index(number: int, rows: Sequence[object], what: str) -> int:
    if not 0 <= number < len(rows):
        raise MalformedTableError(f"there is no {what} {number}")
    return number


def _operator(code: FlatTable) -> str:
    """The name; the number was a byte before it outgrew that."""
    number = max(code.scalar(0, "b"), code.scalar(3, "i"))
    if number == CUSTOM:
        return code.text(1) or "CUSTOM"
    return OPERATORS[number] if 0 <= number < len(OPERATORS) else f"operator {number}"


def _value(tensor: FlatTable) -> Value:
    if max(tensor.length(0), tensor.length(7)) > MAX_RANK:
        raise MalformedTableError("a tensor has too many dimensions")
    shape = tensor.integers(7) or tensor.integers(0)
    kind = tensor.scalar(1, "b")
    dtype = DTYPES[kind] if 0 <= kind < len(DTYPES) else f"type {kind}"
    return Value(tensor.text(3), dtype, shape_of(shape), detail=_quantization(tensor))


def _quantization(tensor: FlatTable) -> str:
    """`scale 0.0039, zero point -128`, or how many channels have a scale of their own."""
    row = tensor.table(4)
    if row is None or not row.length(2):
        return ""
    if row.length(2) > 1:
        return f"{row.length(2)} scales along axis {row.scalar(6, 'i')}"
    (scale,) = row.numbers(2, "f")
    zero = row.integers(3, "q")[:1] or (0,)
    return f"scale {scale:.6g}, zero point {zero[0]}"


def _is_constant(tensor: FlatTable, buffers: list[FlatTable]) -> bool:
    """Whether its values are in the file; those beyond 2 GB stand outside the tables."""
    number = tensor.scalar(2, "I")
    if not 0 < number < len(buffers):
        return False
    return buffers[number].length(0, 1) > 0 or buffers[number].scalar(2, "Q") > 1


def _renamed(model: FlatTable, values: list[Value], field: int) -> list[Value]:
    """The names of the first signature, which are those of the source model."""
    signature = next(iter(model.tables(7)), None)
    rows = [] if signature is None else _bounded(signature, field)
    if len(rows) != len(values) or (signature is not None and signature.scalar(4, "I")):
        return values
    names = {row.scalar(1, "I"): row.text(0) for row in rows}
    subgraph = next(model.tables(2))
    numbers = subgraph.integers(1 + field)
    return [
        Value(names.get(n, v.name) or v.name, v.dtype, v.shape, v.detail)
        for n, v in zip(numbers, values, strict=True)
    ]


def _version(model: FlatTable, buffers: list[FlatTable]) -> str:
    """The oldest TensorFlow that runs it, which converters since 1.14 record."""
    for row in _bounded(model, 6):
        number = row.scalar(1, "I")
        if row.text(0) == MIN_RUNTIME and number < len(buffers):
            text = buffers[number].raw(0, 32).rstrip(b"\0").decode("ascii", "replace")
            return f"for TensorFlow {text} or later" if text else ""
    return ""


def _details(model: FlatTable, subgraphs: int) -> dict[str, str]:
    details = {"schema": f"version {model.scalar(0, 'I')}"}
    if model.text(3):
        details["description"] = model.text(3)
    keys = [row.text(2) for row in _bounded(model, 7)]
    if keys:
        details["signatures"] = ", ".join(keys)
    if subgraphs > 1:
        details["subgraphs"] = str(subgraphs)
    return details

"""What a container says of the model in it, in plain values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infc.diagnostics import printable

MAX_RANK = 64
MAX_LISTED = 1000
"""Tensors, operators, inputs: more than these are counted and not listed."""
MAX_NAME = 300


@dataclass(frozen=True, slots=True)
class Value:
    """An input, an output or a tensor.

    `shape` is None where the rank is unknown; a dimension is a number, a name or None. `bounds` are
    the lowest, the typical and the highest size of a named one. `detail` is what else there is to
    say, such as how it is quantised.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None = None
    detail: str = ""
    bounds: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def elements(self) -> int:
        """How many numbers it holds; what is unknown counts as one."""
        dims = [d for d in self.shape or () if isinstance(d, int)]
        return math.prod(dims) if all(d >= 0 for d in dims) else 0

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        row: dict[str, Any] = {
            "name": text(self.name),
            "dtype": text(self.dtype),
            "shape": None if self.shape is None else [_dim(d) for d in self.shape],
        }
        if self.detail:
            row["detail"] = text(self.detail)
        if self.bounds:
            row["bounds"] = {text(k): list(v) for k, v in self.bounds.items()}
        return row


@dataclass(frozen=True, slots=True)
class Weights:
    """How many tensors, numbers and bytes of weights there are."""

    tensors: int
    elements: int
    bytes: int

    @classmethod
    def of(cls, values: Iterable[Value]) -> Weights:
        """The sums over `values`, whose element types are as numpy names them."""
        rows = list(values)
        bits = [row.elements * bits_of(row.dtype) for row in rows]
        return cls(len(rows), sum(row.elements for row in rows), sum(-(-b // 8) for b in bits))


@dataclass(frozen=True, slots=True)
class Description:
    """A model or a checkpoint.

    None stands for what the container does not record. `unsafe` is what loading it would run.
    """

    kind: str
    title: str
    version: str = ""
    inputs: Sequence[Value] | None = None
    outputs: Sequence[Value] | None = None
    weights: Weights | None = None
    tensors: Sequence[Value] = ()
    operators: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    unsafe: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it: no more than `MAX_LISTED` rows of anything."""
        ranked = sorted(self.operators.items(), key=lambda row: (-row[1], row[0]))[:MAX_LISTED]
        return {
            "kind": self.kind,
            "title": self.title,
            "version": text(self.version),
            "inputs": _rows(self.inputs),
            "outputs": _rows(self.outputs),
            "parameters": None
            if self.weights is None
            else {
                "tensors": self.weights.tensors,
                "elements": self.weights.elements,
                "bytes": self.weights.bytes,
            },
            "tensors": _rows(self.tensors),
            "nodes": sum(self.operators.values()),
            "operators": {text(name): number for name, number in ranked},
            "details": {text(k): text(v) for k, v in list(self.details.items())[:MAX_LISTED]},
            "unsafe": [text(name) for name in self.unsafe[:MAX_LISTED]],
        }


def _rows(values: Sequence[Value] | None) -> list[dict[str, Any]] | None:
    return None if values is None else [value.to_json() for value in values[:MAX_LISTED]]


def _dim(dim: int | str | None) -> int | str | None:
    return text(dim) if isinstance(dim, str) else dim


def text(value: object) -> str:
    """A name from the file, short enough and fit for a terminal and for UTF-8."""
    shown = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    shown = shown if len(shown) <= MAX_NAME else f"{shown[:MAX_NAME]}..."
    return printable(shown.encode("utf-8", "backslashreplace").decode("utf-8"))


def shape_of(dims: object) -> tuple[int | str | None, ...] | None:
    """`dims` from a file as a shape: None for what is none, -1 and null for an unknown size."""
    if not isinstance(dims, (list, tuple)) or len(dims) > MAX_RANK:
        return None
    return tuple(d if is_size(d) else None for d in dims)


def is_size(value: object) -> bool:
    """Whether it is a number of elements that some memory could hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def bits_of(dtype: str) -> int:
    """The width of an element of `float32`, `qint8`, `float8_e4m3fn`; 0 where that is unknown."""
    name = dtype.removeprefix("q").removeprefix("torch.")
    if name == "bool":
        return 8
    if name.startswith("float4"):
        return 4
    for word in ("bfloat", "complex", "float", "uint", "int", "bits"):
        if name.startswith(word):
            digits = name[len(word) :].partition("_")[0].partition("x")[0]
            return int(digits) if digits.isdecimal() and len(digits) < 4 else 0
    return 0

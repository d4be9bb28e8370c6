"""Tensor signatures, and tensors on disk in the form every worker and loader can read.

A *tensor folder* holds `tensors.json` and one raw file for each tensor: little-endian, C order,
no header. It is what crosses the process boundary: Python workers of any version, the C++ `main`
and the Java `Main` read and write it without a library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

DTYPES = {
    "float32": 4,
    "float64": 8,
    "float16": 2,
    "bfloat16": 2,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "bool": 1,
}
"""The element types that can cross the loader interface, with their size in bytes."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a model.

    `shape` holds an int for a fixed dimension, a name for a symbolic one and None for an unknown
    one; the shape itself is None where even the rank is unknown. `bounds` maps the names of
    dimensions to (low, typical, high) where the user gave them.

    `source_dtype` is the type in the source model where an artifact has another one; integers q
    then stand for the real numbers (q - zero_point) * scale, in `quantized` as (scale, zero_point).
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None
    bounds: Mapping[str, tuple[int, int, int]] | None = None
    source_dtype: str = ""
    quantized: tuple[float, int] | None = None

    @property
    def is_static(self) -> bool:
        """Whether every dimension is fixed."""
        return self.shape is not None and all(isinstance(d, int) for d in self.shape)

    def to_json(self) -> dict[str, Any]:
        """A plain dict, as in the manifest."""
        out: dict[str, Any] = {
            "name": self.name,
            "dtype": self.dtype,
            "shape": None if self.shape is None else list(self.shape),
        }
        if self.bounds:
            out["bounds"] = {k: list(v) for k, v in sorted(self.bounds.items())}
        if self.source_dtype:
            out["source_dtype"] = self.source_dtype
        if self.quantized:
            out["scale"], out["zero_point"] = self.quantized
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TensorSpec:
        """The inverse of `to_json`."""
        shape = None if data["shape"] is None else tuple(data["shape"])
        bounds = {k: (v[0], v[1], v[2]) for k, v in data.get("bounds", {}).items()}
        scale = data.get("scale")
        return cls(
            data["name"],
            data["dtype"],
            shape,
            bounds or None,
            data.get("source_dtype", ""),
            None if scale is None else (scale, data["zero_point"]),
        )


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype called `name`, bfloat16 included (through ml_dtypes)."""
    import numpy as np

    if name == "bfloat16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype


def save_tensors(folder: Path, tensors: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write `tensors` into the new folder `folder`, in order, as `0.bin`, `1.bin`, ..."""
    import numpy as np

    folder.mkdir(parents=True)
    index = []
    for i, (name, value) in enumerate(tensors.items()):
        array = np.asarray(value, order="C")
        file = f"{i}.bin"
        (folder / file).write_bytes(array.tobytes())
        index.append(
            {"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "file": file}
        )
    (folder / "tensors.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def load_tensors(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read a tensor folder.

    Raises:
        OSError: a file is missing.
        ValueError: the index is not one, or a file does not have the size its shape asks for.
    """
    import numpy as np

    out = {}
    for row in json.loads((folder / "tensors.json").read_text(encoding="utf-8")):
        data = (folder / row["file"]).read_bytes()
        out[row["name"]] = np.frombuffer(data, numpy_dtype(row["dtype"])).reshape(row["shape"])
    return out

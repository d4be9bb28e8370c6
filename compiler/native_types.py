"""Tensors of the source model as an artifact with `--io native` has them, and back.

    q = clip(round(x / scale) + zero_point)         x = (q - zero_point) * scale

Proof goes on in the source model's types: what an artifact is given is converted, and so is its
answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.signature import TensorSpec, load_tensors, numpy_dtype, save_tensors

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    Convert = Callable[[Array, TensorSpec], Array]


def converted(specs: Sequence[TensorSpec]) -> dict[str, TensorSpec]:
    """Those of `specs` that have another type than in the source model, by name."""
    return {spec.name: spec for spec in specs if spec.source_dtype}


def source_specs(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """`specs` as they are in the source model."""
    return tuple(
        replace(s, dtype=s.source_dtype or s.dtype, source_dtype="", quantized=None) for s in specs
    )


def encode(array: Array, spec: TensorSpec) -> Array:
    """`array`, of the source model's type, as the artifact takes or gives it."""
    import numpy as np

    dtype = numpy_dtype(spec.dtype)
    if spec.quantized is None:
        return array.astype(dtype)
    scale, zero_point = spec.quantized
    limits = np.iinfo(dtype)
    steps = np.rint(array.astype(np.float32) / np.float32(scale)) + zero_point
    return np.asarray(np.clip(steps, limits.min, limits.max).astype(dtype))


def decode(array: Array, spec: TensorSpec) -> Array:
    """The inverse of `encode`, but for the rounding; other types are left alone."""
    import numpy as np

    if array.dtype != numpy_dtype(spec.dtype):
        return array
    if spec.quantized is not None:
        scale, zero_point = spec.quantized
        array = (array.astype(np.int32) - zero_point).astype(np.float32) * np.float32(scale)
    return array.astype(numpy_dtype(spec.source_dtype))


def encoded(
    folders: Sequence[Path], native: Mapping[str, TensorSpec], place: Path
) -> tuple[Path, ...]:
    """The tensor folders `folders` as the artifact has them, in new folders in `place`."""
    return _mapped(folders, native, place, encode)


def decoded(
    folders: Sequence[Path], native: Mapping[str, TensorSpec], place: Path
) -> tuple[Path, ...]:
    """The inverse of `encoded`."""
    return _mapped(folders, native, place, decode)


def _mapped(
    folders: Sequence[Path], native: Mapping[str, TensorSpec], place: Path, convert: Convert
) -> tuple[Path, ...]:
    if not native:
        return tuple(folders)
    out = []
    for i, folder in enumerate(folders):
        tensors = load_tensors(folder)
        out.append(place / str(i))
        save_tensors(
            out[-1],
            {n: convert(v, native[n]) if n in native else v for n, v in tensors.items()},
        )
    return tuple(out)

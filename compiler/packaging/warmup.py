"""Warm-up requests from a bundle's reference vectors: no client waits for the first run.

Triton repeats a request to fill a batch, so that a file holds one sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infc.bundle import Bundle
from infc.packaging.interface import Interface

FOLDER = "warmup"
"""Beside config.pbtxt: the only place that Triton reads such files from."""

MAX_WARMUPS = 4
MAX_BYTES = 16 << 20
"""More than this of data is not copied into a repository."""


@dataclass(frozen=True, slots=True)
class WarmupInput:
    """An input of a request; `file` is in the folder `warmup`, `data` what it holds."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    file: str
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Warmup:
    """A request that Triton makes of itself before others can."""

    name: str
    batch: int
    inputs: tuple[WarmupInput, ...]

    def to_json(self) -> dict[str, Any]:
        """A plain dict, without the data."""
        inputs = [
            {"name": i.name, "data_type": i.data_type, "dims": list(i.dims), "file": i.file}
            for i in self.inputs
        ]
        return {"name": self.name, "batch": self.batch, "inputs": inputs}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Warmup:
        """The inverse of `to_json`."""
        rows = ({**row, "dims": tuple(row["dims"])} for row in data["inputs"])
        return cls(data["name"], data["batch"], tuple(WarmupInput(**row) for row in rows))


def warmups_of(bundle: Bundle, interface: Interface) -> tuple[Warmup, ...]:
    """One request for every shape in the reference vectors, a few at most; none without vectors."""
    folders = sorted((bundle.path / "reference").glob("[0-9]*"), key=lambda p: int(p.name))
    found: dict[object, Warmup] = {}
    room = MAX_BYTES
    for folder in folders:
        if not interface.inputs or len(found) == MAX_WARMUPS:
            break
        made = _warmup(folder / "inputs", f"reference {folder.name}", folder.name, interface)
        shapes = made and (made.batch, *(i.dims for i in made.inputs))
        if made is None or shapes in found:
            continue
        room -= sum(len(i.data) for i in made.inputs)
        if room < 0:
            break
        found[shapes] = made
    return tuple(found.values())


def _warmup(folder: Path, name: str, number: str, interface: Interface) -> Warmup | None:
    """The request of one set of vectors; None for one that Triton would refuse."""
    from infc.signature import load_tensors

    arrays = list(load_tensors(folder).values())
    batch = 1
    if interface.max_batch:
        batch = len(arrays[0])
        if not 1 <= batch <= interface.max_batch:
            return None
        arrays = [array[:1] for array in arrays]
    if any(array.size == 0 for array in arrays):
        return None
    inputs = tuple(
        WarmupInput(
            tensor.name,
            tensor.data_type,
            tuple(array.shape[1:] if interface.max_batch else array.shape) or (1,),
            f"{number}-{place}.bin",
            array.tobytes(),
        )
        for place, (tensor, array) in enumerate(zip(interface.inputs, arrays, strict=True))
    )
    return Warmup(name, batch, inputs)


def write(folder: Path, warmups: Sequence[Warmup]) -> None:
    """Write the files of `warmups` into the new folder `folder`, where there are any."""
    for tensor in (tensor for warmup in warmups for tensor in warmup.inputs):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / tensor.file).write_bytes(tensor.data)

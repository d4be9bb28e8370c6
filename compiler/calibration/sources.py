"""Where rows come from, as the rest of calibration sees it; and arrays in files as one of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from infc.calibration.fitting import Shape, by_name, require_fit
from infc.calibration.npy import Stored, damaged, open_npy, open_npz
from infc.diagnostics import fail
from infc.signature import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Row = tuple[str, dict[str, np.ndarray[Any, Any]]]
    """What to call the row in a diagnostic, and its arrays by input."""


class Source(Protocol):
    """Rows in an order that does not change."""

    @property
    def kind(self) -> str:
        """In one word; see `Samples`."""
        ...

    @property
    def count(self) -> int | None:
        """How many there are, None where only running somebody's code would tell."""
        ...

    @property
    def shapes(self) -> Mapping[str, Shape] | None:
        """Of the first row's arrays, None likewise."""
        ...

    @property
    def text(self) -> bool:
        """Whether floats may stand for integers."""
        ...

    def rows(self, indices: Iterable[int]) -> Iterator[Row]:
        """The rows at the ascending `indices`.

        Raises:
            InfcError: E402 to E407.
        """
        ...

    def digest(self, digest: Any, indices: Iterable[int]) -> bool:
        """Put into a hashlib object what decides those rows; False where that cannot be known."""
        ...


def add_file(digest: Any, path: Path, name: str) -> None:
    """Hash a file's name and content.

    Raises:
        InfcError: E402 where it cannot be read.
    """
    digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    try:
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256")
    except OSError as error:
        raise damaged(name, error.strerror) from error
    digest.update(content.digest())


class StackedArrays:
    """A `.npz` whose arrays are named after the inputs, or a `.npy` for a model with one input.

    The first axis of each array counts the samples.
    """

    text = False

    def __init__(self, path: Path, where: str, inputs: Sequence[TensorSpec], kind: str) -> None:
        self.kind = kind
        self._path = path
        if kind == "npy":
            arrays = by_name({_only(inputs, where): open_npy(path, where)}, inputs, where)
        else:
            arrays = by_name(open_npz(path, where), inputs, where)
        self._arrays: dict[str, Stored] = arrays
        for name, array in arrays.items():
            if not array.shape:
                raise fail(
                    "E403",
                    f"the array for `{name}` has no axis that counts the samples",
                    where=array.where,
                )
        counts = {array.shape[0]: name for name, array in arrays.items()}
        if len(counts) > 1:
            raise fail(
                "E403",
                "the arrays hold different numbers of samples: "
                + ", ".join(f"`{n}` {a.shape[0]}" for n, a in arrays.items()),
                where=where,
            )
        self.count = next(iter(counts))
        self.shapes = {n: a.shape[1:] for n, a in arrays.items()}

    def rows(self, indices: Iterable[int]) -> Iterator[Row]:
        """Read one at a time."""
        indices = list(indices)
        streams = {name: array.rows(indices) for name, array in self._arrays.items()}
        where = next(iter(self._arrays.values())).where if len(streams) == 1 else ""
        where = where or self._path.name
        for index in indices:
            yield f"{where}[{index}]", {name: next(stream) for name, stream in streams.items()}

    def digest(self, digest: Any, indices: Iterable[int]) -> bool:
        """All of the file: a part of an archive cannot be read without the rest."""
        add_file(digest, self._path, "")
        return True


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a folder and of those below it, in order; hidden ones are left out."""

    folder: Path
    name: str
    files: tuple[str, ...]

    def where(self, index: int) -> str:
        """What to call a file in a diagnostic."""
        return f"{self.name.rstrip('/')}/{self.files[index]}"

    def path(self, index: int) -> Path:
        """Where a file is."""
        return self.folder / self.files[index]

    def digest(self, digest: Any, indices: Iterable[int]) -> None:
        """Hash names and contents.

        Raises:
            InfcError: E402 where a file cannot be read.
        """
        for index in indices:
            add_file(digest, self.path(index), self.files[index])


class ArrayFolder:
    """A folder of `.npy` files, or of `.npz` files with an array for each input: a sample each."""

    kind = "array-folder"
    text = False

    def __init__(self, listing: Listing, inputs: Sequence[TensorSpec], batch: int) -> None:
        self._listing = listing
        self._inputs = tuple(inputs)
        self._batch = batch
        self.count = len(listing.files)
        self.shapes = {n: a.shape for n, a in self._open(0).items()}

    def _open(self, index: int) -> dict[str, Stored]:
        path, where = self._listing.path(index), self._listing.where(index)
        if path.suffix.lower() == ".npy":
            return {_only(self._inputs, where): open_npy(path, where)}
        return by_name(open_npz(path, where), self._inputs, where)

    def rows(self, indices: Iterable[int]) -> Iterator[Row]:
        """Read one file at a time, each of a shape of its own where the model allows it."""
        for index in indices:
            arrays = self._open(index)
            for spec in self._inputs:  # before anything is allocated
                require_fit(spec, arrays[spec.name].shape, arrays[spec.name].where, self._batch)
            yield (
                self._listing.where(index),
                {name: array.whole() for name, array in arrays.items()},
            )

    def digest(self, digest: Any, indices: Iterable[int]) -> bool:
        """The files that are read."""
        self._listing.digest(digest, indices)
        return True


def _only(inputs: Sequence[TensorSpec], where: str) -> str:
    """The name of the one input.

    Raises:
        InfcError: E405 where there are several.
    """
    if len(inputs) == 1:
        return inputs[0].name
    names = ", ".join(f"`{spec.name}`" for spec in inputs)
    raise fail(
        "E405",
        f"it holds one array, and the model has {len(inputs)} inputs: {names}",
        where=where,
        help="use `.npz` files with arrays of these names",
    )

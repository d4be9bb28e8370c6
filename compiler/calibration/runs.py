"""Rows made into runs of the model: scaled, converted, checked and put together in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from infc.calibration.fitting import (
    Fit,
    Shape,
    batch_size,
    cast,
    fit_shape,
    require_fit,
    scale,
    shown,
)
from infc.diagnostics import fail
from infc.preprocessing import Preprocess
from infc.signature import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from infc.calibration.sources import Row

    Array = np.ndarray[Any, Any]
    Feed = dict[str, Array]


@dataclass(slots=True)
class Batcher:
    """Puts `batch` rows into each run; where that is None the first row's shapes tell how many.

    `wanted_batch` is for inputs whose first dimension is open. `preprocess` is what is still to be
    done; floats of `text` may stand for integers.
    """

    inputs: Sequence[TensorSpec]
    preprocess: Preprocess | None
    wanted_batch: int
    batch: int | None
    text: bool

    def runs(self, rows: Iterator[Row]) -> Iterator[Feed]:
        """The values for each run; rows that do not fill the last batch are left over.

        Raises:
            InfcError: E403 to E406 for the row that is wrong, E401 where there is no whole batch.
        """
        feed: Feed = {}
        seen = 0
        for where, arrays in rows:
            if self.batch is None:
                shapes = {name: array.shape for name, array in arrays.items()}
                self.batch = batch_size(self.inputs, shapes, self.wanted_batch)
            for spec in self.inputs:
                fit = require_fit(spec, arrays[spec.name].shape, where, self.wanted_batch)
                value = self._value(arrays[spec.name], spec, fit, where)
                self._place(feed, spec.name, value, fit, seen % self.batch, where)
            seen += 1
            if seen % self.batch == 0:
                self._require_consistent(feed, where)
                yield feed
                feed = {}
        if self.batch is not None and 0 < seen < self.batch:
            raise fail(
                "E401", f"there are {seen} samples, and one run of the model takes {self.batch}"
            )

    def _value(self, array: Array, spec: TensorSpec, fit: Fit, where: str) -> Array:
        """In the input's element type; in its shape, but for the batch dimension."""
        import numpy as np

        value = cast(scale(array, self.preprocess, where), spec, where, text=self.text)
        value = value.reshape(fit.shape)
        return np.ascontiguousarray(value) if value.ndim else value

    def _place(
        self, feed: Feed, name: str, value: Array, fit: Fit, position: int, where: str
    ) -> None:
        """Put `value` into `feed`, at `position` of the batch where it is a piece of one."""
        import numpy as np

        if self.batch == 1:
            feed[name] = value if fit.whole else value[None]
            return
        assert self.batch is not None
        if position == 0:
            feed[name] = value if fit.whole else np.empty((self.batch, *value.shape), value.dtype)
        have = feed[name]
        if have.shape != (value.shape if fit.whole else (self.batch, *value.shape)):
            raise fail(
                "E403",
                f"`{name}` is {shown(value.shape)} here, and otherwise in the same batch",
                where=where,
                help="samples of different shapes cannot be batched: use `--calibration-batch 1`",
            )
        if not fit.whole:
            have[position] = value
        elif not np.array_equal(have, value):
            raise fail(
                "E403",
                f"`{name}` has no batch dimension, and changes within a batch of {self.batch}",
                where=where,
                help="use `--calibration-batch 1`",
            )

    def _require_consistent(self, feed: Feed, where: str) -> None:
        """Dimensions with one name have one size in a run."""
        sizes: dict[str, tuple[int, str]] = {}
        for spec in self.inputs:
            for dim, size in zip(spec.shape or (), feed[spec.name].shape, strict=bool(spec.shape)):
                if not isinstance(dim, str):
                    continue
                known, name = sizes.setdefault(dim, (size, spec.name))
                if known != size:
                    raise fail(
                        "E403",
                        f"the dimension `{dim}` is {known} in `{name}` and {size} in `{spec.name}`",
                        where=where,
                    )


def samples_in(inputs: Sequence[TensorSpec], shapes: Mapping[str, Shape], batch: int) -> int:
    """How many samples a run of `batch` rows of `shapes` has: rows may be batches already.

    Only an open first dimension that all inputs share is taken for one.
    """
    sizes = {
        shapes[spec.name][0] if fit and fit.whole and fit.shape else 0
        for spec in inputs
        for fit in [fit_shape(spec, shapes[spec.name], batch)]
        if spec.shape and not isinstance(spec.shape[0], int)
    }
    return sizes.pop() if batch == 1 and len(sizes) == 1 and max(sizes) > 0 else batch


@dataclass(slots=True)
class Sameness:
    """Which inputs never changed, from a hash of the first run's values.

    `samples` counts those seen; `finished` says that all of them were.
    """

    samples: int = 0
    finished: bool = False
    _first: dict[str, bytes] = field(default_factory=dict)
    _only: dict[str, float | None] = field(default_factory=dict)
    _runs: int = 0

    def add(self, feed: Feed, samples: int) -> None:
        """Look at the values of one run, which has `samples` samples."""
        self._runs += 1
        self.samples += samples
        if self._runs == 1:
            self._first = {name: _hash(value) for name, value in feed.items()}
            self._only = {name: _only_value(value) for name, value in feed.items()}
            return
        for name in [n for n, seen in self._first.items() if _hash(feed[n]) != seen]:
            del self._first[name]

    def same(self) -> dict[str, float | None]:
        """The inputs that never changed, with their one value where all elements have the same."""
        if not self.finished or self._runs < 2:
            return {}
        return {name: self._only[name] for name in self._first}


def _hash(value: Array) -> bytes:
    return hashlib.blake2b(repr(value.shape).encode() + value.tobytes(), digest_size=16).digest()


def _only_value(value: Array) -> float | None:
    first = value.reshape(-1)[:1]
    return float(first[0]) if first.size and bool((value == first[0]).all()) else None

"""Samples with labels: what a metric is taken on.

    data.npz            the inputs, as for calibration, and an array `labels`: (samples, ...)
    table.csv           with `--preprocess label=COLUMN`
    module:function     yields (inputs, label), the inputs as for calibration
    file.py:function

They are read by what reads calibration data, with the same `--preprocess` and the same batch. A
function may yield whole batches; its label is an array of that many then.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.calibration.callables import Callable
from infc.calibration.data import Samples
from infc.calibration.discovery import find_source
from infc.calibration.fitting import Shape
from infc.calibration.npy import open_npz
from infc.calibration.sources import Source
from infc.calibration.tables import Table
from infc.diagnostics import fail
from infc.preprocessing import Preprocess
from infc.request import CalibrationOptions
from infc.signature import TensorSpec, numpy_dtype, save_tensors
from infc.user_code import Reference

if TYPE_CHECKING:
    import numpy as np

    from infc.calibration.sources import Row

    Array = np.ndarray[Any, Any]
    Run = tuple[dict[str, Array], Array]
    """The inputs by name, and the labels, (samples, ...)."""

LABELS = "labels"
PACK = 64
"""So many samples make a run where the model leaves the size of a batch open."""
MAX_BYTES = 4 << 30
"""Of inputs on the disk: 7,000 photos of 224 x 224. Beyond, as many are taken, spread evenly."""


class _Stored:
    """A source whose rows have their labels beside them."""

    def __init__(self, source: Source, labels: Array) -> None:
        self.kind = source.kind
        self.text = source.text
        self.count = source.count
        self.shapes: Mapping[str, Shape] | None = source.shapes
        self.pending: deque[Array] = deque()
        self._source = source
        self._labels = labels

    def rows(self, indices: Iterable[int]) -> Iterator[Row]:
        """As the source's; the label of each is in `pending` when it is given."""
        indices = list(indices)
        for index, row in zip(indices, self._source.rows(indices), strict=True):
            self.pending.append(self._labels[index])
            yield row

    def digest(self, digest: Any, indices: Iterable[int]) -> bool:
        """The source's: labels are in the same file."""
        return self._source.digest(digest, indices)


class _Yielded(Callable):
    """The user's own code, which yields (inputs, label)."""

    def __init__(self, reference: Reference, folder: Path, inputs: Sequence[TensorSpec]) -> None:
        super().__init__(reference, folder, inputs)
        self.pending: deque[Array] = deque()

    def _arrays(self, value: Any, where: str) -> dict[str, Array]:
        import numpy as np

        if not isinstance(value, tuple) or len(value) != 2:
            raise fail("E423", "it is no pair of inputs and label", where=where)
        self.pending.append(np.asarray(value[1]))
        return super()._arrays(value[0], where)


def open_labelled(
    options: CalibrationOptions, inputs: Sequence[TensorSpec], folder: Path
) -> tuple[Samples, deque[Array]]:
    """The samples in `options.data`, relative to `folder`, and a queue of labels.

    That holds the labels of the rows that were read since it was last emptied.

    Raises:
        InfcError: E401 to E405 for the data, E423 where it has no labels.
    """
    data = options.data
    reference = Reference.parse(data)
    options = replace(options, samples=None)
    source: _Stored | _Yielded
    if reference is not None and not (folder / data).exists():
        source = _Yielded(reference, folder, inputs)
    else:
        found = find_source(options, inputs, folder)
        source = _Stored(found, _labels(found, data, folder))
        if source.count is not None and source.shapes is not None:
            sizes = (
                math.prod(source.shapes[s.name]) * numpy_dtype(s.dtype).itemsize for s in inputs
            )
            limit = max(1, MAX_BYTES // max(1, sum(sizes)))
            options = replace(options, samples=min(source.count, limit))
    return Samples(options, inputs, source, folder), source.pending


def _labels(source: Source, data: str, folder: Path) -> Array:
    """The label of every row."""
    import numpy as np

    if isinstance(source, Table):
        texts = source.labels()
        if texts is None:
            raise fail(
                "E423",
                "no column is said to hold the labels",
                where=data,
                help="name it: `--preprocess label=COLUMN`, by its number or by its name",
            )
        try:
            return np.array([float(text) for text in texts])
        except ValueError:
            return np.array(texts)
    stored = open_npz(folder / Path(data).expanduser(), data) if source.kind == "npz" else {}
    if LABELS not in stored:
        raise fail(
            "E423",
            f"it holds no array `{LABELS}`" if stored else "it holds no labels",
            where=data,
            help=f"a .npz with the inputs and an array `{LABELS}`, a .csv with "
            "`--preprocess label=COLUMN`, or a function that yields (inputs, label)",
        )
    labels = np.stack(list(stored[LABELS].rows(range(stored[LABELS].shape[0]))))
    if len(labels) != source.count:
        raise fail("E423", f"there are {source.count} samples and {len(labels)} labels", where=data)
    return labels


def is_batched(specs: Sequence[TensorSpec]) -> bool:
    """Whether the first dimension of all inputs and outputs is one batch of open size."""
    first = {spec.shape[0] if spec.shape else None for spec in specs}
    fixed = all(isinstance(d, int) for spec in specs for d in (spec.shape or ())[1:])
    return fixed and len(first) == 1 and isinstance(first.pop(), str)


@dataclass(frozen=True, slots=True)
class Exported:
    """Tensor folders of runs, and a `.npz` with the labels of each, called "0", "1", ...

    `samples` counts the labels of each run; `fingerprint` is of all of it, None for a function's.
    """

    runs: tuple[Path, ...]
    labels: Path
    samples: tuple[int, ...]
    fingerprint: str | None


def export(payload: Mapping[str, Any]) -> Exported:
    """Write the labelled data to disk.

    `payload` holds `data`, relative to `home`, the model's `inputs`, `preprocess` and `batch` of
    calibration, the samples that make a run at most (`pack`) and the new `folder`.

    Raises:
        InfcError: E401 to E407, E423.
    """
    import numpy as np

    spec = payload["preprocess"]
    options = CalibrationOptions(
        payload["data"],
        preprocess=Preprocess.parse(spec) if spec else None,
        batch=payload["batch"],
    )
    inputs = [TensorSpec.from_json(row) for row in payload["inputs"]]
    folder = Path(payload["folder"])
    samples, pending = open_labelled(options, inputs, Path(payload["home"]))
    labels: list[Array] = []
    runs: list[Path] = []
    written = 0
    for feed, of_run in _packed(_labelled(samples, pending), payload["pack"]):
        runs.append(folder / str(len(runs)))
        save_tensors(runs[-1], feed)
        labels.append(of_run)
        written += sum(array.nbytes for array in feed.values())
        if written >= MAX_BYTES:
            break
    if not runs:
        raise fail("E401", "there is no whole batch of labelled samples", where=payload["data"])
    file = folder / "labels.npz"
    named: dict[str, Any] = {str(number): array for number, array in enumerate(labels)}
    np.savez(file, **named)
    return Exported(tuple(runs), file, tuple(map(len, labels)), samples.fingerprint)


def _labelled(samples: Samples, pending: deque[Array]) -> Iterator[Run]:
    for feed in samples:
        labels = _of_a_run(list(pending), next(iter(feed.values())))
        pending.clear()
        yield feed, labels


def _packed(runs: Iterator[Run], most: int) -> Iterator[Run]:
    """Join runs along the first axis while they have at most `most` samples; 1: leave them."""
    import numpy as np

    pack: list[Run] = []

    def joined() -> Run:
        feeds = [feed for feed, _ in pack]
        whole = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
        return whole, np.concatenate([labels for _, labels in pack])

    for run in runs:
        fits = pack and pack[0][1].shape[1:] == run[1].shape[1:]
        if pack and (not fits or sum(len(labels) for _, labels in (*pack, run)) > most):
            yield joined()
            pack = []
        pack.append(run)
    if pack:
        yield joined()


def _of_a_run(labels: list[Array], first: Array) -> Array:
    """(samples, ...), from the labels of a run's rows; `first` is the run's first input."""
    import numpy as np

    if len(labels) == 1 and labels[0].ndim and first.ndim and len(labels[0]) == len(first) > 1:
        return labels[0]  # a row that is a batch by itself
    shapes = {label.shape for label in labels}
    if len(shapes) > 1:
        raise fail(
            "E423",
            f"labels of one run have the shapes {' and '.join(map(str, sorted(shapes)))}",
            help="use `--calibration-batch 1`",
        )
    return np.stack(labels)

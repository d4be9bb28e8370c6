"""The samples that activations are measured on: found out, checked, and read one at a time.

The user's own code runs when the first sample is asked for, which is in a worker.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.calibration import remarks
from infc.calibration.callables import Callable
from infc.calibration.discovery import find_source
from infc.calibration.fitting import batch_size
from infc.calibration.runs import Batcher, Sameness, samples_in
from infc.calibration.sources import Source
from infc.diagnostics import Diagnostic, fail
from infc.preprocessing import Preprocess
from infc.request import CalibrationOptions
from infc.signature import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Feed = dict[str, np.ndarray[Any, Any]]

FORMAT = 1
"""Part of every fingerprint: raised when the same data would give other samples."""


class Samples:
    """Values for all inputs of a model, one set for each run, in constant memory.

    `kind` is `npz`, `npy`, `array-folder`, `images`, `table`, `function` or `random`. `count` is
    how many runs there are, None where only running the user's code would tell; a run has
    `batch` samples, None likewise.
    """

    def __init__(
        self,
        options: CalibrationOptions,
        inputs: Sequence[TensorSpec],
        source: Source,
        folder: Path,
    ) -> None:
        self.kind = source.kind
        self.count: int | None = None
        self.batch: int | None = None
        self._options = options
        self._inputs = tuple(inputs)
        self._source = source
        self._folder = folder
        self._fingerprint: str | None = None
        self._in_a_run = 1
        self._seen = Sameness()
        if source.count is not None and source.shapes is not None:
            self.batch = batch_size(inputs, source.shapes, options.batch)
            self._require_a_run(source.count, self.batch)
            wanted = source.count if options.samples is None else options.samples
            self.count = min(source.count // self.batch, -(-wanted // self.batch))
            self._in_a_run = samples_in(inputs, source.shapes, self.batch)

    def _require_a_run(self, count: int, batch: int) -> None:
        if count < max(batch, 1):
            message = f"there are {count} samples, and one run of the model takes {batch}"
            raise fail("E401", message if count else "there is no sample", where=self._options.data)

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the data that is used, of how it is used, and of what the model takes.

        The same for the same samples, wherever they lie; None for a function. All the data is
        read, once.

        Raises:
            InfcError: E402 where a file cannot be read.
        """
        if self._fingerprint is None and self.count is not None:
            how = {
                **self._how(),
                "runs": self.count,
                "batch": self.batch,
            }
            digest = hashlib.sha256(json.dumps(how, sort_keys=True).encode())
            if self._source.digest(digest, self._indices(0)):
                self._fingerprint = digest.hexdigest()
        return self._fingerprint

    @property
    def origin(self) -> str:
        """SHA-256 of where a function's samples come from, which does not tell what they are."""
        options = self._options
        place = str(self._folder), options.data, options.samples, options.batch
        how = {**self._how(), "place": place}
        return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()

    def _how(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": self.kind,
            "preprocess": str(self._options.preprocess or ""),
            "inputs": [spec.to_json() for spec in self._inputs],
        }

    def repeats(self) -> bool:
        """Whether the samples can be read a second time; the user's code may run for the answer."""
        return not isinstance(self._source, Callable) or self._source.repeats()

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """E408 to E410 and E415; those that take reading the data, once that is done."""
        where = self._options.data
        out: list[Diagnostic | None] = []
        if self.kind == "random":
            out.append(remarks.random_data(where))
        if self.kind == "images":
            out.append(remarks.wrong_unit(self._options.preprocess, where))
        if self.count is not None:
            out.append(remarks.too_few(self.count * self._in_a_run, where))
        elif self._seen.finished:
            out.append(remarks.too_few(self._seen.samples, where))
        out += [remarks.constant(name, v, where) for name, v in self._seen.same().items()]
        return tuple(warning for warning in out if warning is not None)

    def __iter__(self) -> Iterator[Feed]:
        return self.start(0)

    def start(self, at: int) -> Iterator[Feed]:
        """The values for each run from the run `at` on: input name to array, batch included.

        Raises:
            InfcError: E402 to E407 at the sample that is wrong, which is named.
        """
        seen = Sameness()
        pending = None if self.kind == "images" else self._options.preprocess
        batcher = Batcher(self._inputs, pending, self._options.batch, self.batch, self._source.text)
        # How many rows make a run of a function's is known when the first is there: it starts over.
        rows = self._source.rows(self._indices(0 if self.count is None else at))
        for number, feed in enumerate(batcher.runs(rows), 0 if self.count is None else at):
            shapes = {name: array.shape for name, array in feed.items()}
            seen.add(feed, samples_in(self._inputs, shapes, batcher.batch or 1))
            if number >= at:
                yield feed
        if at == 0 or self.count is None:
            seen.finished = True
            self._seen = seen

    def _indices(self, at: int) -> Iterator[int]:
        """Of the rows of the runs from `at` on: those used are spread evenly over all there are."""
        if self.count is None or self.batch is None or self._source.count is None:
            end = self._options.samples
            return iter(range(1 << 62 if end is None else end))
        used = self.count * self.batch
        there = self._source.count
        return (i * there // used for i in range(at * self.batch, used))

    def to_json(self) -> dict[str, Any]:
        """What `reopen` makes the same samples of, in another process or folder."""
        options = self._options
        return {
            "folder": str(self._folder),
            "inputs": [spec.to_json() for spec in self._inputs],
            "data": options.data,
            "samples": options.samples,
            "preprocess": None if options.preprocess is None else str(options.preprocess),
            "batch": options.batch,
            "seed": options.seed,
        }


def reopen(document: Mapping[str, Any]) -> Samples:
    """The samples that `Samples.to_json` describes.

    Raises:
        InfcError: as `open_samples`.
    """
    spec = document["preprocess"]
    options = CalibrationOptions(
        data=document["data"],
        samples=document["samples"],
        preprocess=Preprocess.parse(spec) if spec else None,
        batch=document["batch"],
        seed=document["seed"],
    )
    inputs = tuple(TensorSpec.from_json(row) for row in document["inputs"])
    return open_samples(options, inputs, Path(document["folder"]))


def open_samples(
    options: CalibrationOptions, inputs: Sequence[TensorSpec], folder: Path | None = None
) -> Samples:
    """Find out what `options.data` is, relative to `folder` (the working directory).

    Raises:
        InfcError: E401 for what is not there or no samples, E402 for what cannot be read, E403 to
            E405 for what does not fit the inputs, E110 for a preprocessing that does not fit the
            data, E501 without Pillow.
    """
    home = Path.cwd() if folder is None else folder
    return Samples(options, inputs, find_source(options, inputs, home), home)

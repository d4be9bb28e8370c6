"""How well a graph answers, in a worker: SQNR against the float graph, and the task's metric.

A graph is written to a file, run as ONNX defines it (ONNX Runtime, nothing optimised), and its
session closed before the next is made. Answers are compared as they come: memory grows with
neither the samples nor the graphs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import building
from infc.comparison import Threshold, compare, is_floating
from infc.mixed_precision.metrics import open_metric
from infc.quantization import Range, Scheme
from infc.quantizing import Calibrated, chosen
from infc.request import CalibrationOptions
from infc.signature import load_tensors
from infc.targets import RunJob
from infc.verification.running import UNOPTIMIZED

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    Array = np.ndarray[Any, Any]
    Tensors = dict[str, Array]

ANYTHING = Threshold(math.inf, -math.inf)
WORST_DB = -999.0
"""What an answer that is not finite where the reference is counts as."""


@dataclass(frozen=True, slots=True)
class Figures:
    """`sqnr_db` is that of the worst output, inf where it is exact; None: was not measured."""

    sqnr_db: float | None = None
    metric: float | None = None

    def to_json(self) -> dict[str, Any]:
        """What was measured; an SQNR without noise is null. Three digits after the point."""
        out: dict[str, Any] = {}
        if self.sqnr_db is not None:
            out["sqnr_db"] = None if math.isinf(self.sqnr_db) else round(self.sqnr_db, 3)
        if self.metric is not None:
            out["metric"] = round(self.metric, 9)
        return out

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Figures:
        """The inverse of `to_json`."""
        sqnr = document.get("sqnr_db", math.nan)
        return cls(
            math.inf if sqnr is None else None if math.isnan(sqnr) else float(sqnr),
            document.get("metric"),
        )


def worst_sqnr_db(pairs: Iterator[tuple[Tensors, Tensors]]) -> float:
    """The SQNR of the worst floating output over all (reference, answer) pairs; inf where exact.

    Whole numbers are looked at only where there is nothing else.
    """
    floating: set[str] = set()

    def watched() -> Iterator[tuple[Tensors, Tensors]]:
        for reference, answer in pairs:
            floating.update(name for name, array in reference.items() if is_floating(array))
            yield reference, answer

    errors = compare(watched(), ANYTHING)
    rows = [e for e in errors if e.name in floating] or list(errors)
    found = [math.inf if e.sqnr_db is None else max(e.sqnr_db, WORST_DB) for e in rows]
    return min(found, default=math.inf)


def score(name: str, folder: Path, answers: Iterator[Tensors], labels: Path, every: int) -> float:
    """The metric called `name` of `answers`, those to every `every`th run of the labelled data.

    Raises:
        InfcError: E423.
    """
    import numpy as np

    metric = open_metric(name, folder)
    with np.load(labels, allow_pickle=False) as rows:
        for number, answer in enumerate(answers):
            metric.add(answer, rows[str(number * every)])
    return metric.value()


def run(file: Path, names: Sequence[str], feeds: Sequence[Path]) -> Iterator[Tensors]:
    """The outputs `names` of the graph in `file` for each tensor folder of `feeds`.

    Raises:
        BackEndError: ONNX Runtime refuses the graph or a sample.
    """
    from infc.targets import onnxruntime

    inputs = tuple(load_tensors(feeds[0]))
    threads = len(os.sched_getaffinity(0))
    call = onnxruntime.open(RunJob(file, UNOPTIMIZED, tuple(names), inputs, threads))
    for folder in feeds:
        yield call(load_tensors(folder))


class Subject:
    """The equalised float graph of a job, and the data that its variants are tried on.

    `runs` and `reference` are the tensor folders of calibration samples and of the float graph's
    answers, `labelled` those of labelled runs ([] where there is no metric).
    """

    def __init__(self, payload: Mapping[str, Any]) -> None:
        import onnx_ir as ir

        self.model: ir.Model = ir.load(payload["model"])
        self.outputs: list[str] = payload["outputs"]
        self.runs = [Path(folder) for folder in payload["feeds"]]
        self.reference = [Path(folder) for folder in payload["reference"]]
        self.labelled = [Path(folder) for folder in payload["labelled"]["feeds"]]
        self._labelled = payload["labelled"]
        self._ranges = Path(payload["ranges"])
        # The data is not needed any more: only what ranges are chosen by.
        self._calibration = CalibrationOptions("-", **payload["calibration"])

    def scales(self, scheme: Scheme) -> tuple[dict[str, Range], dict[str, Array]]:
        """The ranges and means that a target of `scheme` is quantised with."""
        from infc.calibration.ranges import load

        ranges = load(self._ranges)
        return chosen(Calibrated(self.model, ranges, self._calibration, (), ()), scheme)

    def figures(self, model: ir.Model, runs: int | None, labelled: int | None) -> Figures:
        """Of `model`, on so many runs at most, spread evenly (None: all); 0 leaves a figure out.

        Raises:
            InfcError: E423 where the metric cannot be computed.
            BackEndError: ONNX Runtime refuses the graph or a sample.
        """
        file = Path.cwd() / "candidate.onnx"
        building.save_model(model, file)
        sqnr = metric = None
        if self.runs and runs != 0:
            every = step(len(self.runs), runs)
            exact = (load_tensors(folder) for folder in self.reference[::every])
            given = run(file, self.outputs, self.runs[::every])
            sqnr = worst_sqnr_db(zip(exact, given, strict=True))
        if self.labelled and labelled != 0:
            every = step(len(self.labelled), labelled)
            given = run(file, self.outputs, self.labelled[::every])
            metric = self.score(given, every)
        return Figures(sqnr, metric)

    def score(self, answers: Iterator[Tensors], every: int = 1) -> float:
        """The metric of `answers` to every `every`th labelled run.

        Raises:
            InfcError: E423.
        """
        row = self._labelled
        return score(row["metric"], Path(row["home"]), answers, Path(row["labels"]), every)


def step(there: int, wanted: int | None) -> int:
    """The step that leaves at most `wanted` of what is there."""
    return 1 if wanted is None else -(-there // wanted)

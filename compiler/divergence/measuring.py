"""Run the float graph and the target's artifact with checkpoints as outputs, and compare them.

The artifact is built by the back end itself, with its own legalisation, from the graph with a few
outputs more. Where it refuses, the checkpoints are halved until the ones that it cannot give are
found; those are left out, with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import building, comparison
from infc.comparison import THRESHOLDS, OutputError, Threshold
from infc.diagnostics import InfcError
from infc.divergence.layers import INPUT, Layer, expose
from infc.divergence.rebuilding import Rebuilt
from infc.request import Precision, WorkerLimits
from infc.signature import TensorSpec, load_tensors, save_tensors
from infc.targets import Artifact
from infc.verification.running import UNOPTIMIZED, run_artifact, run_entry
from infc.verification.sets import Sets, compare_sets

if TYPE_CHECKING:
    import numpy as np

    Tensors = Mapping[str, np.ndarray[Any, Any]]

MAX_BUILDS = 40
"""Artifacts that are built at most to find the checkpoints that a back end refuses."""
NOT_THERE = "the target's graph has no such value"


def float_answers(
    rebuilt: Rebuilt, layers: Sequence[Layer], sets: Sets, scratch: Path, limits: WorkerLimits
) -> tuple[Path, ...]:
    """The tensor folders of the float graph's outputs and checkpoints, nothing optimised.

    Inputs among the layers are not in them.

    Raises:
        InfcError: E601 where the outputs are not those of the source model, E5xx.
    """
    model, _ = expose(rebuilt.exact, layers, rounded=False)
    outputs = [str(v.name) for v in model.graph.outputs]
    scratch.mkdir(parents=True)
    building.save_model(model, scratch / "model.onnx")
    names = list(load_tensors(sets.feeds[0])), outputs
    answers = run_entry(
        "infc.targets.onnxruntime",
        scratch / "model.onnx",
        UNOPTIMIZED,
        sets.feeds,
        names,
        scratch,
        limits,
        "the float graph",
    )
    # The same runtime and the same quantised arithmetic: no allowance for that.
    floats = {k: v for k, v in sets.computed_in.items() if v is not Precision.INT8}
    own = replace(sets, computed_in=floats)
    errors = compare_sets(own, answers, THRESHOLDS[Precision.FP32])
    comparison.require(
        errors, "E601", "the float graph", "the passes are to blame, not the back end"
    )
    return answers


@dataclass(slots=True)
class Bench:
    """Builds and runs the artifact with checkpoints; counts the builds.

    `sets` have the feeds and the source model's answers, `exact` the tensor folders of
    `float_answers`. `scratch` is a folder that is there.
    """

    rebuilt: Rebuilt
    sets: Sets
    exact: tuple[Path, ...]
    scratch: Path
    limits: WorkerLimits
    tell: Callable[[str], None]
    builds: int = field(default=0, init=False)

    def measure(self, layers: Sequence[Layer]) -> tuple[dict[str, OutputError], dict[str, str]]:
        """The errors of the checkpoints of `layers`, and why there is none, by value."""
        _, found = expose(self.rebuilt.model, layers, rounded=self.rebuilt.rounded)
        reasons = {la.value: NOT_THERE for la in layers if la.value not in found}
        errors, refused = self._halved([la for la in layers if la.value in found])
        return errors, {**reasons, **refused}

    def _halved(self, layers: Sequence[Layer]) -> tuple[dict[str, OutputError], dict[str, str]]:
        if not layers:
            return {}, {}
        if self.builds >= MAX_BUILDS:
            return {}, {la.value: f"not tried after {MAX_BUILDS} builds" for la in layers}
        try:
            return self._together(layers), {}
        except InfcError as error:
            if len(layers) == 1:
                return {}, {layers[0].value: f"refused: {error.diagnostics[0].message}"}
        middle = len(layers) // 2
        errors, reasons = self._halved(layers[:middle])
        more, others = self._halved(layers[middle:])
        return {**errors, **more}, {**reasons, **others}

    def _together(self, layers: Sequence[Layer]) -> dict[str, OutputError]:
        """All of them in one artifact.

        Raises:
            InfcError: the back end refuses it.
        """
        self.tell(f"building with {len(layers)} checkpoint{'' if len(layers) == 1 else 's'}")
        folder, artifact, found = self.build(layers)
        reference = tuple(self._expected(found, folder))
        own = replace(self.sets, reference=reference)
        self.tell("running it")
        entry = folder / "model" / artifact.entry
        answers, _ = run_artifact(own, self.rebuilt.target, entry, folder, self.limits)
        names = {spec.name: value for value, spec in found.items()}
        errors = comparison.compare(
            _pairs(reference, answers, names), Threshold(math.inf, -math.inf)
        )
        return {error.name: error for error in errors}

    def build(
        self, layers: Sequence[Layer] = ()
    ) -> tuple[Path, Artifact, Mapping[str, TensorSpec]]:
        """The folder that the artifact lies in, in `model`, and its checkpoints by value.

        Raises:
            InfcError: the back end refuses it.
        """
        self.builds += 1
        rebuilt = self.rebuilt
        folder = self.scratch / f"build-{self.builds}"
        folder.mkdir(parents=True)
        model, found = expose(rebuilt.model, layers, rounded=rebuilt.rounded)
        rebuilt.end.legalize(model, rebuilt.target)
        inputs, outputs = rebuilt.signature
        there = {spec.name for spec in outputs}
        more = {spec.name: spec for spec in found.values() if spec.name not in there}
        artifact = building.build(
            model,
            rebuilt.source_name,
            rebuilt.end,
            rebuilt.target,
            (inputs, (*outputs, *more.values())),
            folder / "model",
            folder,
            self.limits,
            rebuilt.samples,
        )
        return folder, artifact, found

    def _expected(self, found: Mapping[str, TensorSpec], folder: Path) -> Iterator[Path]:
        """Tensor folders of all outputs of the artifact, in its order and by its names."""
        outputs = [spec.name for spec in self.rebuilt.signature[1]]
        for i, (exact, feeds) in enumerate(zip(self.exact, self.sets.feeds, strict=True)):
            known = {**load_tensors(feeds), **load_tensors(exact)}
            expected = {name: known[name] for name in outputs}
            expected |= {spec.name: known[value] for value, spec in found.items()}
            save_tensors(folder / f"expected-{i}", expected)
            yield folder / f"expected-{i}"


def _pairs(
    reference: Sequence[Path], answers: Sequence[Path], names: Mapping[str, str]
) -> Iterator[tuple[Tensors, Tensors]]:
    """(reference, answer) of the checkpoints `names`: as the artifact calls them, to value."""
    for expected, given in zip(reference, answers, strict=True):
        exact, found = load_tensors(expected), load_tensors(given)
        yield (
            {value: exact[name] for name, value in names.items()},
            {value: found[name] for name, value in names.items() if name in found},
        )


def is_input(layer: Layer) -> bool:
    """Whether `layer` is an input of the graph."""
    return layer.operators == INPUT

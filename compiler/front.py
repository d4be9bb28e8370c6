"""What all targets of a command share: the optimised graph, its proof, the calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import (
    building,
    comparison,
    frontends,
    manifest,
    mixed_precision,
    own_calibration,
    pipeline,
    pruning,
    quantizing,
    targets,
    verification,
)
from infc.frontends import Reading, Source
from infc.frontends.onnx import spec_of
from infc.measured import Measured
from infc.mixed_precision import Budget
from infc.mixed_precision.layers import CANONICAL
from infc.outcomes import Progress
from infc.quantizing import Calibrated
from infc.reference import Reference
from infc.request import Precision, Request
from infc.signature import TensorSpec
from infc.targets import Target
from infc.targets.schemes import scheme_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.quantizing import Opener


@dataclass(frozen=True, slots=True)
class Optimized:
    """The front half's result, shared by all targets."""

    source: Source
    model: ir.Model
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    records: tuple[pipeline.PassRecord, ...]
    operators: dict[str, dict[str, int]]
    reference: Reference | None
    proof: dict[str, Any]
    measured: Measured
    samples: Opener | None
    """Opens the calibration samples, once for all who read them; None without any."""
    pruning: dict[str, Any] | None = None
    """What the manifest says of it; `reference` is the pruned graph then."""

    @property
    def signature(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Inputs and outputs."""
        return self.inputs, self.outputs

    @property
    def nodes(self) -> tuple[int, int]:
        """How many there are in the source and in the optimised graph."""
        before, after = (sum(self.operators[k].values()) for k in ("source", "optimized"))
        return before, after


@dataclass(frozen=True, slots=True)
class Shared:
    """All that the targets of a command share.

    `calibrated` is None where no target is at INT8, `budget` where none is held to one.
    """

    optimized: Optimized
    calibrated: Calibrated | None
    budget: Budget | None


def optimize(request: Request, stage: Path, progress: Progress, *, int8: bool = False) -> Optimized:
    """Frontend and passes, and the proof that they changed nothing."""
    progress("", "reading the model")
    how = Reading(stage / "source", request.reading, request.toolchains, request.limits)
    source = frontends.load(request.model, request.inputs, how)
    before = manifest.operators(source.model)
    samples = quantizing.opener(request.calibration, source.inputs)
    real = int8 or request.pruning is not None
    reference = _reference(request, source, samples if real else None, stage, progress)
    records = pipeline.run(source.model, request.passes, lambda name: progress("", f"pass {name}"))
    histogram = {"source": before, "optimized": manifest.operators(source.model)}
    outputs = tuple(spec_of(v) for v in source.model.graph.outputs)
    proof = {}
    if reference is not None:
        progress("", "verifying the optimised graph")
        scratch = stage / "optimized"
        scratch.mkdir()
        building.save_model(source.model, scratch / "model.onnx")
        errors = reference.require(
            lambda sets: verification.check_optimized(sets, outputs, scratch, request.limits),
            source.model,
        )
        proof = comparison.summary(errors)
    pruned = None
    if request.pruning is not None:
        where = stage / "pruned"
        pruned = pruning.prune(
            request.pruning, source, outputs, reference, where, request.limits, progress
        )
        reference = pruned.reference
        histogram["optimized"] = manifest.operators(source.model)
    measured = Measured(
        source.model,
        source.inputs,
        request.calibration,
        reference.options if reference else request.verify,
        stage / "measured",
        request.limits,
    )
    return Optimized(
        source,
        source.model,
        source.inputs,
        outputs,
        records,
        histogram,
        reference,
        proof,
        measured,
        samples,
        pruned.document if pruned else None,
    )


def _reference(
    request: Request, source: Source, samples: Opener | None, stage: Path, progress: Progress
) -> Reference | None:
    """The source model's answers, to some of `samples`; None where no proof is asked for.

    Raises:
        InfcError: E107, E604; E112 where an imported graph does not answer as its framework does.
    """
    options = request.verify
    if not options.enabled:
        return None
    if samples is not None and options.data is None:
        progress("", "reading calibration samples")
        options = quantizing.proof_inputs(samples, options, stage / "samples", request.limits)
    progress("", "running the source model")
    reference = Reference(source, options, stage, request.limits)
    origin = source.origin
    if origin is not None:
        progress("", "verifying the import")
        scratch = stage / "imported"
        reference.require(
            lambda sets: verification.check_imported(sets, origin, scratch, request.limits),
            source.model,
        )
    return reference


def wants_int8(chosen: Sequence[Target]) -> bool:
    """Whether any of the targets is at INT8."""
    return any(target.precision is Precision.INT8 for target in chosen)


def calibrate(
    request: Request,
    optimized: Optimized,
    chosen: Sequence[Target],
    stage: Path,
    progress: Progress,
) -> Calibrated | None:
    """The ranges for all INT8 targets at once; None where there is no such target."""
    asking = [t for t in chosen if t.precision is Precision.INT8 and not own_calibration.is_own(t)]
    found = {t.name: scheme_of(targets.back_end(t.back_end)) for t in asking}
    wanting = {name: scheme for name, scheme in found.items() if scheme is not None}
    if not wanting:
        return None
    return quantizing.calibrate(
        optimized.model,
        optimized.samples,
        request.calibration,
        wanting,
        stage / "calibration",
        request.limits,
        lambda step: progress("", step),
        also=(CANONICAL,) if request.budget is not None else (),
    )


def budget(
    request: Request,
    optimized: Optimized,
    calibrated: Calibrated | None,
    stage: Path,
    progress: Progress,
) -> Budget | None:
    """What the INT8 targets are held to, beyond the threshold of all; None for nothing."""
    if request.budget is None or not request.budget.of_accuracy:
        return None
    return mixed_precision.prepare(
        request.budget,
        optimized.model,
        calibrated,
        optimized.signature,
        request.calibration,
        optimized.samples,
        stage / "budget",
        request.limits,
        lambda step: progress("", step),
    )

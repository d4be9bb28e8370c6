"""The neutral graph to what one back end takes: Q/DQ, types and layout written into it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infc import building, mixed_precision, native_io, precision, quantizing
from infc.assembly.job import Job
from infc.diagnostics import Diagnostic
from infc.mixed_precision import Kept
from infc.native_io import Native
from infc.precision import Lowered
from infc.quantizing import Quantized
from infc.targets.abilities import own_operators_of
from infc.targets.schemes import scheme_of

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class Legal:
    """The graph as its back end is handed it, `model`, and what was done for that.

    `provable` is the graph before the back end's own operators took their place, where nothing
    else than that can be run here; None where `model` serves. `quantized` is None for a float
    target, and where the back end's converter quantises by itself.
    """

    model: ir.Model
    provable: ir.Model | None
    native: Native
    kept: Kept
    quantized: Quantized | None
    lowered: Lowered

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """What the user is to know of it."""
        return (*self.kept.warnings, *self.lowered.warnings, *self.native.warnings)


def legalise(job: Job) -> Legal:
    """Quantise, convert and legalise a clone of the graph that all targets share.

    Raises:
        InfcError: E204, E205, E4xx for what the graph or the target does not allow.
    """
    request, optimized = job.request, job.shared.optimized
    kept = _kept(job)
    job.watch.start("legalising")
    quantized = _quantized(job, request.keep_float | kept.layers)
    lowered = _lowered(job, quantized)
    model, native = lowered.model, Native(*optimized.signature)
    if request.native_io:
        native = native_io.apply(model, job.target, optimized.signature, optimized.measured)
    provable = model.clone() if job.absent and own_operators_of(job.end) else None
    job.end.legalize(model, job.target)
    return Legal(model, provable, native, kept, quantized, lowered)


def _kept(job: Job) -> Kept:
    """What stays in float for the budget; nothing where the converter quantises by itself."""
    budget, scheme = job.shared.budget, scheme_of(job.end)
    if budget is None or not job.int8:
        return Kept()
    job.watch.start("searching what stays in float")
    if scheme is None:
        return Kept()
    request, place = job.request, job.scratch / "search"
    return mixed_precision.search(
        budget, scheme, place, request.limits, job.watch.announce, request.keep_float
    )


def _quantized(job: Job, keep_float: frozenset[str]) -> Quantized | None:
    """The graph with Q/DQ; None where the target is float or its converter quantises by itself."""
    calibrated, scheme = job.shared.calibrated, scheme_of(job.end)
    if calibrated is None or scheme is None or not job.int8:
        return None
    if job.request.native_io:
        scheme = replace(scheme, least_channels=1)  # or the input would not be an integer
    return quantizing.quantized(calibrated, scheme, keep_float)


def _lowered(job: Job, quantized: Quantized | None) -> Lowered:
    """The graph at the oldest opset that the back end takes, its floats of the target's type."""
    request, optimized, calibrated = job.request, job.shared.optimized, job.shared.calibrated
    neutral = quantized.model if quantized else optimized.model.clone()
    raised = building.raise_opset(neutral, job.end)
    if quantized is None or calibrated is None:
        return precision.lower(raised, job.target, optimized.measured, request.keep_float)
    return precision.lower_rest(
        raised,
        job.target,
        request.fallback,
        replace(optimized.measured, model=calibrated.model),
        request.keep_float | frozenset(quantized.record.quantized),
    )

"""What the user holds the artifact to beyond the threshold of all: accuracy and latency."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from infc import beside, building, latency, mixed_precision, native_types, precision
from infc.assembly.job import Job
from infc.assembly.lowering import Legal
from infc.assembly.production import Product
from infc.latency import Subject
from infc.request import Precision
from infc.targets.abilities import peer_of
from infc.verification.running import UNOPTIMIZED


def hold(job: Job, legal: Legal, product: Product) -> dict[str, Any]:
    """Hold an INT8 artifact to its budget; its accuracy, for the manifest.

    What cannot be run is not timed; of its accuracy, the graph that it was built of tells.

    Raises:
        InfcError: E421, E422 where it is outside, E204, E50x.
    """
    subject = _subject(job, legal, product)
    figures: dict[str, Any] = {}
    if job.int8:
        figures = _accuracy(job, subject)
        _require_latency(job, subject)
    peer = peer_of(job.end)
    if peer and not job.absent and not job.request.native_io:
        job.watch.start("timing the artifact")
        job.watch.measured["beside"] = beside.time_beside(
            peer,
            job.target,
            product.entry,
            job.shared.optimized.model,
            legal.native.signature,
            job.scratch / "beside",
            job.request.limits,
        )
    return figures


def _subject(job: Job, legal: Legal, product: Product) -> Subject:
    """What is run: the artifact, or in ONNX Runtime the graph that it was built of."""
    if not job.absent:
        return Subject(job.target, product.entry, legal.native.signature)
    stand_in = replace(UNOPTIMIZED, name=job.target.name)
    return Subject(stand_in, product.graph, legal.native.signature)


def _accuracy(job: Job, subject: Subject) -> dict[str, Any]:
    budget = job.shared.budget
    if budget is None:
        return {}
    job.watch.start("holding the artifact to the budget")
    native = native_types.converted([s for specs in subject.signature for s in specs])
    own = replace(budget, sets=replace(budget.sets, native=native))
    place, limits = job.scratch / "held", job.request.limits
    return mixed_precision.check(own, subject.target, subject.entry, place, limits)


def _require_latency(job: Job, subject: Subject) -> None:
    budget = job.request.budget
    if budget is None or not budget.of_latency:
        return
    job.watch.start("timing the artifact")
    exact = _exact(job) if budget.max_ratio is not None else None
    place = job.scratch / "timed"
    job.watch.latency = latency.require(budget, subject, exact, place, job.request.limits)


def _exact(job: Job) -> Subject:
    """The artifact of the same target at fp32."""
    scratch, optimized = job.scratch / "exact", job.shared.optimized
    exact = replace(job.target, precision=Precision.FP32)
    neutral = building.raise_opset(optimized.model.clone(), job.end)
    model = precision.lower(neutral, exact, optimized.measured).model
    job.end.legalize(model, exact)
    folder = scratch / "model"
    scratch.mkdir(parents=True)
    artifact = building.build(
        model,
        job.request.model.name,
        job.end,
        exact,
        optimized.signature,
        folder,
        scratch,
        job.request.limits,
    )
    return Subject(exact, folder / artifact.entry, optimized.signature)

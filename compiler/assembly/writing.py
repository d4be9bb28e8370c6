"""The manifest of a bundle, its report, and the files that only say how it came about."""

from __future__ import annotations

from typing import Any

from infc import bundle, deferral, manifest, mixed_precision, quantizing, report
from infc.assembly.job import Job
from infc.assembly.lowering import Legal
from infc.assembly.production import Product
from infc.assembly.proof import Proof


def write(
    job: Job, legal: Legal, product: Product, proof: Proof, figures: dict[str, Any]
) -> dict[str, Any]:
    """Write what is left of the bundle; return its manifest.

    `figures` are the artifact's, of what the user holds it to.
    """
    job.watch.start("writing the manifest")
    document = {**_fields(job, legal, product, proof), **_quantization(job, legal, figures)}
    _keep_measurements(job, legal)
    shared = job.shared
    pictures = (
        quantizing.pictures(shared.calibrated, legal.quantized)
        if shared.calibrated is not None and legal.quantized is not None
        else ()
    )
    files = bundle.file_table(job.finished)
    page = report.render({**document, "files": files}, None, pictures)
    (job.finished / "report.html").write_text(page, encoding="utf-8")
    return bundle.write_manifest(job.finished, document, files)


def _fields(job: Job, legal: Legal, product: Product, proof: Proof) -> dict[str, Any]:
    """The manifest, but for what INT8 adds to it."""
    optimized, request = job.shared.optimized, job.request
    document = manifest.fields(
        job.name,
        optimized.source,
        job.end,
        job.target,
        product.artifact,
        legal.native.signature,
        product.languages,
        optimized.records,
        optimized.operators,
        proof.verification,
    )
    if proof.on_device:
        document |= deferral.fields(proof.on_device, proof.verification)
    if request.keep_float:
        document["keep_float"] = sorted(request.keep_float)
    if optimized.pruning is not None:
        document["pruning"] = optimized.pruning
    if legal.lowered.document is not None:
        document["conversion"] = legal.lowered.document
    return document


def _quantization(job: Job, legal: Legal, figures: dict[str, Any]) -> dict[str, Any]:
    """The manifest's `quantization`, in a mapping; {} where infc did not quantise."""
    calibrated = job.shared.calibrated
    if calibrated is None or legal.quantized is None:
        return {}
    section = quantizing.describe(calibrated, legal.quantized)
    if job.shared.budget is not None and legal.kept.document:
        section["budget"] = {**legal.kept.document, "artifact": figures}
    return {"quantization": section}


def _keep_measurements(job: Job, legal: Legal) -> None:
    """Put the ranges, and what was measured for a budget, into the bundle."""
    calibrated, budget = job.shared.calibrated, job.shared.budget
    if calibrated is None or legal.quantized is None:
        return
    if budget is not None and budget.sensitivity is not None:
        text = budget.sensitivity.dump()
        (job.finished / mixed_precision.SENSITIVITY).write_text(text, encoding="utf-8")
    if calibrated.ranges is not None:
        text = calibrated.ranges.dump()
        (job.finished / quantizing.RANGES).write_text(text, encoding="utf-8")

"""The artifact against the source model; its graph, where the artifact cannot be run here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from infc import comparison, deferral, handed_over, pruning, verification
from infc.assembly.job import Job
from infc.assembly.lowering import Legal
from infc.assembly.production import Product
from infc.comparison import OutputError
from infc.reference import Reference, describe
from infc.verification.sets import Sets, record_sets


@dataclass(frozen=True, slots=True)
class Proof:
    """The manifest's `verification`, and its `on_device`: {} for what is built here."""

    verification: dict[str, Any]
    on_device: dict[str, Any]


def prove(job: Job, legal: Legal, product: Product) -> Proof:
    """Compare what was made with the source model; keep what it takes to do so again.

    Raises:
        InfcError: E602 where it does not answer as the source model does, E204, E5xx.
    """
    reference = job.shared.optimized.reference
    found: dict[str, Any] = {"verdict": "skipped"}
    if reference is not None:
        job.watch.start("verifying")
        found = _compared(job, legal, product, reference)
        # The device has nothing else to prove the engine with.
        least = 0 if job.deferred is None else 1
        record_sets(reference.sets, job.finished, least)
    if job.deferred is None:
        return Proof(found, {})
    sets = reference.sets if reference is not None else None
    signature = job.shared.optimized.signature
    on_device = deferral.write_kit(
        job.finished, job.name, job.target, job.deferred, signature, sets
    )
    return Proof(found, on_device)


def _compared(job: Job, legal: Legal, product: Product, reference: Reference) -> dict[str, Any]:
    """The manifest's `verification` of what can be run."""
    limits, optimized, absent = job.request.limits, job.shared.optimized, job.absent

    def check(given: Sets) -> tuple[OutputError, ...]:
        sets = replace(given, native=legal.native.converted)
        if absent:
            place = job.scratch / "graph"
            return handed_over.check_graph(sets, job.target, product.graph, place, limits)
        return verification.check_artifact(sets, job.target, product.entry, job.scratch, limits)

    errors = comparison.summary(reference.require(check, optimized.model))
    return {
        "verdict": "graph" if absent else "passed",
        **({"reason": absent} if absent else {}),
        **describe(reference.options, reference.sets),
        **({"reference": pruning.REFERENCE} if optimized.pruning is not None else {}),
        "optimized": optimized.proof,
        "graph" if absent else "artifact": errors,
    }

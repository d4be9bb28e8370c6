"""One target of a command: its graph, its artifact, the proof of it, its bundle.

    Job -> lowering.legalise -> Legal -> production.produce -> Product -> proof.prove -> Proof
        -> holding.hold -> figures -> writing.write -> manifest

Each step takes what the ones before it gave, and changes none of it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from infc import bundle, deferral, finishing, logbook
from infc.assembly import holding, lowering, production, proof, writing
from infc.assembly.job import Job, job_for
from infc.device.completing import WORKSHOP
from infc.device.producing import TIMING_CACHE
from infc.diagnostics import Diagnostic, InfcError, internal_error
from infc.front import Shared
from infc.logbook import Stopwatch
from infc.outcomes import Progress, TargetResult
from infc.request import Request
from infc.targets import Target

Assembled = tuple[dict[str, Any], tuple[Diagnostic, ...]]
"""A bundle's manifest, and what the user is to know of it."""


def bundle_folder(request: Request, target: Target) -> Path:
    """Where the bundle of a target goes."""
    return request.output / f"{request.name or request.stem}-{target.name}"


def log_folder(request: Request, target: Target) -> Path:
    """Where its log goes, beside the bundle."""
    folder = bundle_folder(request, target)
    return folder.with_name(f"{folder.name}.log")


def compile_for(
    request: Request, shared: Shared, target: Target, stage: Path, progress: Progress
) -> TargetResult:
    """Everything for one target; its failures are in the result."""
    watch = Stopwatch(lambda name: progress(target.name, name))
    scratch = stage / target.name
    try:
        job = job_for(request, shared, target, scratch, watch)
        return _published(job, bundle_folder(request, target), log_folder(request, target))
    except Exception as failure:
        if isinstance(failure, OSError) and failure.errno in bundle.UNWRITABLE:
            raise  # concerns every target
        watch.stop()
        error = failure if isinstance(failure, InfcError) else InfcError(internal_error(failure))
        kept = any(d.code[1] in "56" and d.code != "E501" for d in error.diagnostics)
        log = log_folder(request, target) if kept else None
        if log is not None:
            logbook.keep(scratch, log, None, shared.optimized.records, watch)
        return TargetResult(target.name, None, log, error.diagnostics, {}, watch.seconds)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _published(job: Job, destination: Path, log: Path) -> TargetResult:
    """Build the bundle, also on the machine that the user names, and publish it with its log."""
    name, watch, records = job.target.name, job.watch, job.shared.optimized.records
    document, warnings = _assembled(job)
    if job.request.remote and document["state"] == "deferred":
        watch.start(f"building on {job.request.remote}")
        document, trouble = _finished_there(job, destination)
        warnings = (*warnings, *trouble)
        if document["state"] == "deferred" and deferral.is_finished(destination):
            # That is older, and of more use: the new bundle is not worth replacing it.
            logbook.keep(job.scratch, log, document, records, watch)
            return TargetResult(name, None, log, warnings, {}, watch.seconds)
    watch.start("publishing")
    watch.stop()
    logbook.keep(job.scratch, log, document, records, watch)
    bundle.publish(job.finished, destination)
    proved = document["verification"]
    return TargetResult(name, destination, log, warnings, proved, watch.seconds, watch.measured)


def _assembled(job: Job) -> Assembled:
    """Make the whole bundle in the job's folder."""
    legal = lowering.legalise(job)
    product = production.produce(job, legal)
    proved = proof.prove(job, legal, product)
    figures = holding.hold(job, legal, product)
    document = writing.write(job, legal, product, proved, figures)
    return document, (*legal.warnings, *product.warnings)


def _finished_there(job: Job, destination: Path) -> Assembled:
    """Have the engine of the bundle built on the other machine.

    The timing cache of the bundle in `destination`, which is to be replaced, serves again.

    Raises:
        InfcError: it failed, and the user wants no deferred bundle.
    """
    finished, request = job.finished, job.request
    cache = destination / TIMING_CACHE
    if cache.is_file():
        shutil.copyfile(cache, finished / TIMING_CACHE)
    trouble: tuple[Diagnostic, ...] = ()
    try:
        trouble = finishing.finish(
            finished,
            remote=request.remote,
            stand_in=request.stand_in,
            limits=request.limits,
            progress=lambda _, line: job.watch.announce(line),
            log=job.scratch / "log",
            shown=destination,
        ).diagnostics
    except InfcError as error:
        if not request.deferred:
            raise
        trouble = error.diagnostics
    shutil.rmtree(finished / WORKSHOP, ignore_errors=True)
    return dict(bundle.open_bundle(finished, check_hashes=False).manifest), trouble

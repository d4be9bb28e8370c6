"""One target of a command: its graph, its artifact, the proof of it, its bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import (
    beside,
    building,
    bundle,
    comparison,
    deferral,
    direct_path,
    finishing,
    handed_over,
    latency,
    loaders,
    logbook,
    manifest,
    mixed_precision,
    native_io,
    native_types,
    own_calibration,
    precision,
    pruning,
    quantizing,
    report,
    targets,
    tuning,
    verification,
)
from infc.comparison import OutputError
from infc.device.completing import WORKSHOP
from infc.device.producing import TIMING_CACHE
from infc.diagnostics import Diagnostic, InfcError, fail, internal_error
from infc.front import Optimized
from infc.logbook import Stopwatch
from infc.mixed_precision import Budget, Kept
from infc.native_io import Native
from infc.outcomes import Progress, TargetResult
from infc.quantizing import Calibrated, Quantized
from infc.reference import Reference, describe
from infc.request import Precision, Request
from infc.targets import Artifact, BackEnd, Target
from infc.targets.abilities import absence_of, is_tunable, own_operators_of, peer_of
from infc.targets.schemes import scheme_of
from infc.verification import Sets

if TYPE_CHECKING:
    from infc.calibration.pictures import Picture


def bundle_folder(request: Request, target: Target) -> Path:
    """Where the bundle of a target goes."""
    return request.output / f"{request.name or request.stem}-{target.name}"


def log_folder(request: Request, target: Target) -> Path:
    """Where its log goes, beside the bundle."""
    folder = bundle_folder(request, target)
    return folder.with_name(f"{folder.name}.log")


def compile_for(
    request: Request,
    optimized: Optimized,
    calibrated: Calibrated | None,
    budget: Budget | None,
    target: Target,
    stage: Path,
    progress: Progress,
) -> TargetResult:
    """Everything for one target; its failures are in the result."""
    watch = Stopwatch(lambda name: progress(target.name, name))
    scratch = stage / target.name
    destination, log = bundle_folder(request, target), log_folder(request, target)
    try:
        finished, document, warnings = _build_bundle(
            request, optimized, calibrated, budget, target, scratch, watch
        )
        if request.remote and document["state"] == "deferred":
            watch.start(f"building on {request.remote}")
            document, trouble = _finish_there(request, destination, finished, scratch, watch)
            warnings = (*warnings, *trouble)
            if document["state"] == "deferred" and deferral.is_finished(destination):
                # That is older, and of more use: the new bundle is not worth replacing it.
                logbook.keep(scratch, log, document, optimized.records, watch)
                return TargetResult(target.name, None, log, warnings, {}, watch.seconds)
        watch.start("publishing")
        watch.stop()
        logbook.keep(scratch, log, document, optimized.records, watch)
        bundle.publish(finished, destination)
    except Exception as failure:
        if isinstance(failure, OSError) and failure.errno in bundle.UNWRITABLE:
            raise  # concerns every target
        watch.stop()
        error = failure if isinstance(failure, InfcError) else InfcError(internal_error(failure))
        kept = any(d.code[1] in "56" and d.code != "E501" for d in error.diagnostics)
        if kept:
            logbook.keep(scratch, log, None, optimized.records, watch)
        return TargetResult(
            target.name, None, log if kept else None, error.diagnostics, {}, watch.seconds
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    proof = document["verification"]
    return TargetResult(
        target.name, destination, log, warnings, proof, watch.seconds, watch.measured
    )


def _finish_there(
    request: Request, destination: Path, finished: Path, scratch: Path, watch: Stopwatch
) -> tuple[dict[str, Any], tuple[Diagnostic, ...]]:
    """Have the engine of the bundle in `finished` built; its manifest, and what went wrong.

    The timing cache of the bundle that is to be replaced serves again.

    Raises:
        InfcError: it failed, and the user wants no deferred bundle.
    """
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
            progress=lambda _, line: watch.announce(line),
            log=scratch / "log",
            shown=destination,
        ).diagnostics
    except InfcError as error:
        if not request.deferred:
            raise
        trouble = error.diagnostics
    shutil.rmtree(finished / WORKSHOP, ignore_errors=True)
    return dict(bundle.open_bundle(finished, check_hashes=False).manifest), trouble


def _build_bundle(
    request: Request,
    optimized: Optimized,
    calibrated: Calibrated | None,
    budget: Budget | None,
    target: Target,
    scratch: Path,
    watch: Stopwatch,
) -> tuple[Path, dict[str, Any], tuple[Diagnostic, ...]]:
    """Make the whole bundle in `scratch`; return its folder, its manifest and the warnings."""
    end = targets.back_end(target.back_end)
    precision.require_keeping(target, request.keep_float)
    precision.require_fallback(target, request.fallback)
    reason = deferral.reason_of(target, elsewhere=bool(request.remote))
    if reason is None:
        building.require_toolchain(target)
    elif not request.deferred and not request.remote:
        raise deferral.unwanted(target, reason)
    absent = _absence(request, end, target, reason or "")
    if request.native_io:
        native_io.require_native(target, absent)
    finished = scratch / "bundle"
    finished.mkdir(parents=True)
    name = bundle.identifier(request.name or request.stem)

    kept = Kept()
    if budget is not None and target.precision is Precision.INT8:
        watch.start("searching what stays in float")
        kept = _kept(request, budget, end, scratch / "search", watch.announce)

    watch.start("legalising")
    quantized = _quantized(calibrated, end, target, request.keep_float | kept.layers)
    neutral = quantized.model if quantized else optimized.model.clone()
    raised = building.raise_opset(neutral, end)
    if quantized and calibrated:
        lowered = precision.lower_rest(
            raised,
            target,
            request.fallback,
            replace(optimized.measured, model=calibrated.model),
            request.keep_float | frozenset(quantized.record.quantized),
        )
    else:
        lowered = precision.lower(raised, target, optimized.measured, request.keep_float)
    model = lowered.model
    native = Native(*optimized.signature)
    if request.native_io:
        native = native_io.apply(model, target, optimized.signature, optimized.measured)
    signature = native.signature
    provable = model.clone() if absent and own_operators_of(end) else None
    end.legalize(model, target)

    if request.tuning.measures and is_tunable(end):
        watch.start("tuning")
        watch.measured["tuning"] = tuning.tune(
            model,
            request.model.name,
            end,
            target,
            request.tuning,
            signature,
            scratch / "tuning",
            request.limits,
            watch.announce,
        )
    watch.start("building")
    samples, remarks = own_calibration.samples_for(
        target, request.calibration, optimized.inputs, scratch / "own", request.limits
    )
    source_name, folder = request.model.name, finished / "model"
    if reason is None:

        def through_graph(place: Path) -> Artifact:
            return building.build(
                model,
                source_name,
                end,
                target,
                signature,
                place,
                scratch,
                request.limits,
                samples,
                watch.announce,
                name,
                request.tuning,
            )

        artifact = direct_path.build(
            request, optimized, target, through_graph, folder, scratch, watch
        )
    else:
        artifact = deferral.write_graph(
            model, source_name, end, target, folder, scratch, request.limits
        )

    told = tuning.warnings(request.tuning, artifact)
    watch.start("rendering loaders")
    opened, recipe = artifact, None
    if reason is not None:
        opened, recipe = deferral.for_loader(target, signature, folder)
    languages = loaders.possible(target, request.loaders)
    loaders.render(finished, name, target, opened, *signature, languages, recipe)

    graph, entry = scratch / "model.onnx", folder / artifact.entry
    if provable is not None:
        graph = scratch / "provable.onnx"
        building.save_model(provable, graph)
    proof: dict[str, Any] = {"verdict": "skipped"}
    if optimized.reference is not None:
        watch.start("verifying")
        proof = _proof(
            optimized, optimized.reference, target, absent, (graph, entry), scratch, request, native
        )
        # The device has nothing else to prove the engine with.
        least = 0 if reason is None else 1
        verification.record_sets(optimized.reference.sets, finished, least)
    on_device: dict[str, Any] = {}
    if reason is not None:
        sets = optimized.reference.sets if optimized.reference is not None else None
        on_device = deferral.write_kit(finished, name, target, reason, optimized.signature, sets)
    if absent:
        # What can be run of it is the graph that it was built of.
        stand_in = replace(verification.UNOPTIMIZED, name=target.name)
        subject = latency.Subject(stand_in, graph, signature)
    else:
        subject = latency.Subject(target, entry, signature)
    figures = _require_budget(request, optimized, budget, end, target, subject, scratch, watch)
    peer = peer_of(end)
    if peer and not absent and not request.native_io:
        watch.start("timing the artifact")
        watch.measured["beside"] = beside.time_beside(
            peer, target, entry, optimized.model, signature, scratch / "beside", request.limits
        )

    watch.start("writing the manifest")
    document = manifest.fields(
        name,
        optimized.source,
        end,
        target,
        artifact,
        signature,
        languages,
        optimized.records,
        optimized.operators,
        proof,
    )
    if on_device:
        document |= deferral.fields(on_device, proof)
    if request.keep_float:
        document["keep_float"] = sorted(request.keep_float)
    if optimized.pruning is not None:
        document["pruning"] = optimized.pruning
    if lowered.document is not None:
        document["conversion"] = lowered.document
    pictures: Sequence[Picture] = ()
    if calibrated is not None and quantized is not None:
        document["quantization"] = quantizing.describe(calibrated, quantized)
        if budget is not None and kept.document:
            document["quantization"]["budget"] = {**kept.document, "artifact": figures}
        if budget is not None and budget.sensitivity is not None:
            text = budget.sensitivity.dump()
            (finished / mixed_precision.SENSITIVITY).write_text(text, encoding="utf-8")
        pictures = quantizing.pictures(calibrated, quantized)
        if calibrated.ranges is not None:
            text = calibrated.ranges.dump()
            (finished / quantizing.RANGES).write_text(text, encoding="utf-8")
    files = bundle.file_table(finished)
    (finished / "report.html").write_text(
        report.render({**document, "files": files}, None, pictures), encoding="utf-8"
    )
    document = bundle.write_manifest(finished, document, files)
    return (
        finished,
        document,
        (*kept.warnings, *lowered.warnings, *native.warnings, *remarks, *told),
    )


def _absence(request: Request, end: BackEnd, target: Target, reason: str) -> str:
    """Why the artifact cannot be run here; "" where it can. `reason` is why it is deferred.

    Raises:
        InfcError: E205 where it has to be, to be timed.
    """
    absent = reason or absence_of(end, target)
    timed = request.budget is not None and request.budget.of_latency
    if absent and timed and target.precision is Precision.INT8:
        raise fail(
            "E205",
            f"`--max-latency` times the artifact of `{target.name}`, which cannot run: {absent}",
            help="leave it out here, and `infc bench` the bundle where it can",
        )
    return absent


def _proof(
    optimized: Optimized,
    reference: Reference,
    target: Target,
    absent: str,
    files: tuple[Path, Path],
    scratch: Path,
    request: Request,
    native: Native,
) -> dict[str, Any]:
    """The manifest's `verification`: of the artifact, or of its graph where that cannot run.

    `absent` says why it cannot; `files` are the graph and the artifact.
    """
    graph, entry = files

    def check(given: Sets) -> tuple[OutputError, ...]:
        sets = replace(given, native=native.converted)
        if absent:
            return handed_over.check_graph(sets, target, graph, scratch / "graph", request.limits)
        return verification.check_artifact(sets, target, entry, scratch, request.limits)

    errors = comparison.summary(reference.require(check, optimized.model))
    return {
        "verdict": "graph" if absent else "passed",
        **({"reason": absent} if absent else {}),
        **describe(reference.options, reference.sets),
        **({"reference": pruning.REFERENCE} if optimized.pruning is not None else {}),
        "optimized": optimized.proof,
        "graph" if absent else "artifact": errors,
    }


def _kept(
    request: Request,
    budget: Budget,
    end: BackEnd,
    scratch: Path,
    tell: Callable[[str], None],
) -> Kept:
    """What stays in float for the budget; nothing where the converter quantises by itself."""
    scheme = scheme_of(end)
    if scheme is None:
        return Kept()
    return mixed_precision.search(budget, scheme, scratch, request.limits, tell, request.keep_float)


def _require_budget(
    request: Request,
    optimized: Optimized,
    budget: Budget | None,
    end: BackEnd,
    target: Target,
    subject: latency.Subject,
    scratch: Path,
    watch: Stopwatch,
) -> dict[str, Any]:
    """Hold the artifact to what the user asked for; its accuracy, for the manifest.

    `subject` is what is run for that.
    """
    figures: dict[str, Any] = {}
    if target.precision is not Precision.INT8:
        return figures
    if budget is not None:
        watch.start("holding the artifact to the budget")
        native = native_types.converted([s for specs in subject.signature for s in specs])
        own = replace(budget, sets=replace(budget.sets, native=native))
        figures = mixed_precision.check(
            own, subject.target, subject.entry, scratch / "held", request.limits
        )
    if request.budget is not None and request.budget.of_latency:
        watch.start("timing the artifact")
        exact = None
        if request.budget.max_ratio is not None:
            exact = _float_subject(request, optimized, end, target, scratch / "exact")
        watch.latency = latency.require(
            request.budget,
            subject,
            exact,
            scratch / "timed",
            request.limits,
        )
    return figures


def _float_subject(
    request: Request, optimized: Optimized, end: BackEnd, target: Target, scratch: Path
) -> latency.Subject:
    """The artifact of the same target at fp32, built in the new folder `scratch`."""
    exact = replace(target, precision=Precision.FP32)
    neutral = building.raise_opset(optimized.model.clone(), end)
    model = precision.lower(neutral, exact, optimized.measured).model
    end.legalize(model, exact)
    scratch.mkdir(parents=True)
    folder = scratch / "model"
    artifact = building.build(
        *(model, request.model.name, end, exact, optimized.signature, folder, scratch),
        request.limits,
    )
    return latency.Subject(exact, folder / artifact.entry, optimized.signature)


def _quantized(
    calibrated: Calibrated | None, end: BackEnd, target: Target, keep_float: frozenset[str]
) -> Quantized | None:
    """The graph with Q/DQ; None where the target is float or its converter quantises by itself."""
    scheme = scheme_of(end)
    if calibrated is None or scheme is None or target.precision is not Precision.INT8:
        return None
    return quantizing.quantized(calibrated, scheme, keep_float)

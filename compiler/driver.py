"""The line of DESIGN.md, top to bottom.

Request -> frontend -> ir.Model -> passes -> per target: legalise -> build -> Artifact
        -> loader -> verify -> Bundle
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import (
    building,
    bundle,
    comparison,
    frontends,
    latency,
    loaders,
    manifest,
    mixed_precision,
    own_calibration,
    pipeline,
    precision,
    quantizing,
    report,
    targets,
    verification,
)
from infc.budget import BudgetOptions
from infc.bundle import Bundle
from infc.comparison import OutputError
from infc.diagnostics import (
    Diagnostic,
    ExitCode,
    InfcError,
    combined_exit_code,
    fail,
    internal_error,
)
from infc.feeds import typical_feeds, write_feeds
from infc.frontends import Source
from infc.frontends.onnx import spec_of
from infc.mixed_precision import Budget, Kept
from infc.mixed_precision.layers import CANONICAL
from infc.quantizing import Calibrated, Quantized
from infc.reference import Reference, describe, reference_sets
from infc.request import (
    CalibrationOptions,
    InputSpec,
    PassOptions,
    Precision,
    Request,
    VerifyOptions,
    WorkerLimits,
)
from infc.signature import TensorSpec
from infc.targets import BackEnd, Target
from infc.targets.schemes import named, scheme_of
from infc.verification import Sets

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.calibration.pictures import Picture

TIMINGS = "timings.json"
"""What every log folder holds."""
Progress = Callable[[str, str], None]
"""Called with (target or "", what is being done now)."""


def _silent(target: str, step: str) -> None:
    """The progress of those who do not want any."""


@dataclass(frozen=True, slots=True)
class TargetResult:
    """What became of one target. `bundle` is None where it failed, `log` where nothing was run."""

    target: str
    bundle: Path | None
    log: Path | None
    diagnostics: tuple[Diagnostic, ...]
    verification: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """Of this target alone."""
        if self.bundle is not None:
            return ExitCode.DONE
        return InfcError(*self.diagnostics).exit_code


@dataclass(frozen=True, slots=True)
class CompileResult:
    """What became of a request: one row for each target, in the order they were named."""

    results: tuple[TargetResult, ...]
    passes: tuple[pipeline.PassRecord, ...]
    nodes_before: int
    nodes_after: int
    notes: tuple[Diagnostic, ...]

    @property
    def exit_code(self) -> ExitCode:
        """Of the whole command."""
        return combined_exit_code([r.exit_code for r in self.results])


@dataclass(frozen=True, slots=True)
class OptimizeResult:
    """What `optimize` wrote, and the comparison with the source model ({} where skipped)."""

    output: Path
    passes: tuple[pipeline.PassRecord, ...]
    nodes_before: int
    nodes_after: int
    verification: dict[str, Any]
    notes: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True)
class QuantizeResult:
    """What `quantize` wrote.

    `quantization` is what a manifest would say of it, `verification` the comparison with the
    source model ({} where skipped).
    """

    output: Path
    quantization: dict[str, Any]
    verification: dict[str, Any]
    notes: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """A verification that passed: the error of every output. A failed one raises."""

    bundle: Path
    through: str
    sets: int
    errors: tuple[OutputError, ...]
    device: str
    """That the target names."""
    ran_on: str
    """The same, or what stood in where that is absent."""


@dataclass(frozen=True, slots=True)
class _Optimized:
    """The front half's result, shared by all targets."""

    source: Source
    model: ir.Model
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    records: tuple[pipeline.PassRecord, ...]
    operators: dict[str, dict[str, int]]
    reference: Reference | None
    proof: dict[str, Any]
    measured: precision.Measured

    @property
    def signature(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        return self.inputs, self.outputs

    @property
    def nodes(self) -> tuple[int, int]:
        before, after = (sum(self.operators[k].values()) for k in ("source", "optimized"))
        return before, after


def compile(request: Request, progress: Progress = _silent) -> CompileResult:
    """Build a bundle for every target of `request`; a target that fails does not stop the others.

    Raises:
        InfcError: for what concerns all targets: the request, the model, a pass, the reference.
    """
    chosen = targets.choose(request.targets, request.precision, request.options, request.toolchains)
    mixed_precision.require_applicable(request.budget, chosen)
    building.require_any_toolchain(chosen)
    with bundle.staging(request.output) as stage:
        for target in chosen:
            bundle.require_replaceable(_destination(request, target))
            bundle.require_replaceable(_log_folder(request, target), TIMINGS)
        optimized = _optimize(request, stage, progress, int8=_wants_int8(chosen))
        calibrated = _calibrate(request, optimized, chosen, stage, progress)
        budget = _budget(request, optimized, calibrated, stage, progress)
        results = tuple(
            _compile_for(request, optimized, calibrated, budget, t, stage, progress) for t in chosen
        )
    before, after = optimized.nodes
    warnings = optimized.reference.warnings() if optimized.reference else ()
    notes = (*optimized.source.notes, *warnings, *(calibrated.notes if calibrated else ()))
    return CompileResult(results, optimized.records, before, after, notes)


def optimize(
    model: Path,
    output: Path,
    *,
    inputs: Sequence[InputSpec] = (),
    passes: PassOptions = PassOptions(),  # noqa: B008
    verify: VerifyOptions = VerifyOptions(),  # noqa: B008
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    external_data: bool | None = None,
    progress: Progress = _silent,
) -> OptimizeResult:
    """Run the passes only, and write the neutral graph to the file `output`, atomically.

    Raises:
        InfcError: E1xx, E3xx, E601, E701; nothing is written then.
    """
    _require_file(output, "optimize")
    request = Request(
        model,
        ("cpu",),
        output.parent,
        None,
        tuple(inputs),
        passes=passes,
        verify=verify,
        limits=limits,
    )
    with bundle.staging(output.parent) as stage:
        optimized = _optimize(request, stage, progress)
        _publish_file(optimized.model, output, stage, external_data)
    before, after = optimized.nodes
    return OptimizeResult(
        output, optimized.records, before, after, optimized.proof, optimized.source.notes
    )


def _require_file(output: Path, verb: str) -> None:
    if output.is_dir():
        raise fail(
            "E110", f"`-o {output}` is a folder", help=f"name the file: `{verb}` writes only one"
        )


def _publish_file(
    model: ir.Model, output: Path, stage: Path, external_data: bool | None = None
) -> None:
    """Write `model` in `stage`, and move it, and the file of its weights, to `output`."""
    finished = stage / "finished"
    finished.mkdir()
    building.save_model(model, finished / output.name, external_data=external_data)
    # The weights first: a model file that is there finds its data.
    for file in sorted(finished.iterdir(), key=lambda p: p.name == output.name):
        file.replace(output.parent / file.name)


def quantize(
    model: Path,
    output: Path,
    scheme: str,
    calibration: CalibrationOptions | None,
    *,
    keep_float: frozenset[str] = frozenset(),
    budget: BudgetOptions | None = None,
    inputs: Sequence[InputSpec] = (),
    passes: PassOptions = PassOptions(),  # noqa: B008
    verify: VerifyOptions = VerifyOptions(),  # noqa: B008
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    external_data: bool | None = None,
    progress: Progress = _silent,
) -> QuantizeResult:
    """Passes, calibration and Q/DQ only: write the INT8 graph to the file `output`, atomically.

    `scheme` names a row of `targets.schemes.SCHEMES`; its back end need not be installed. The
    nodes in `keep_float` stay in float32, and as few more as `budget` asks for, which has no limit
    of latency. `calibration` may be None for a model that came
    quantised.

    Raises:
        InfcError: E110 for an unknown scheme or node, E1xx, E3xx, E401 to E414, E601, E602, E701;
            nothing is written then.
    """
    _require_file(output, "quantize")
    wanted = named(scheme)
    request = Request(
        model,
        (wanted.name,),
        output.parent,
        None,
        tuple(inputs),
        passes=passes,
        verify=verify,
        limits=limits,
        calibration=calibration,
        budget=budget,
    )
    with bundle.staging(output.parent) as stage:
        optimized = _optimize(request, stage, progress, int8=True)
        quantizing.require_nodes(optimized.model, keep_float)
        calibrated = quantizing.calibrate(
            optimized.model,
            optimized.inputs,
            calibration,
            {wanted.name: wanted},
            stage / "calibration",
            limits,
            lambda step: progress("", step),
            also=(CANONICAL,) if budget is not None else (),
        )
        held = _budget(request, optimized, calibrated, stage, progress)
        kept = Kept()
        if held is not None:
            kept = mixed_precision.search(
                held,
                wanted,
                stage / "search",
                limits,
                lambda step: progress("", step),
                keep_float,
            )
        progress("", "quantising")
        result = quantizing.quantized(calibrated, wanted, keep_float | kept.layers)
        proof: dict[str, Any] = {}
        if optimized.reference is not None:
            progress("", "verifying the quantised graph")
            scratch = stage / "quantized"
            scratch.mkdir()
            building.save_model(result.model, scratch / "model.onnx")
            errors = optimized.reference.require(
                lambda sets: verification.check_quantized(sets, optimized.outputs, scratch, limits),
                optimized.model,
            )
            proof = comparison.summary(errors)
        _publish_file(result.model, output, stage, external_data)
    warnings = optimized.reference.warnings() if optimized.reference else ()
    notes = (*optimized.source.notes, *warnings, *calibrated.notes, *kept.warnings)
    document = quantizing.describe(calibrated, result)
    if kept.document:
        document["budget"] = kept.document
    return QuantizeResult(output, document, proof, notes)


def verify(
    path: Path,
    *,
    through: str = "runtime",
    source: Path | None = None,
    options: VerifyOptions = VerifyOptions(),  # noqa: B008
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    toolchains: Mapping[str, str] | None = None,
    progress: Progress = _silent,
) -> VerifyResult:
    """Run the bundle's artifact again and compare it with the source model.

    The reference is the one recorded in the bundle, or, where `source` names the model, that
    model run now with `options`. `through` is `runtime`, `cpp` or `java`. `toolchains` maps the
    bundle's back end to the environment that its workers run in.

    Raises:
        InfcError: E702 for a damaged bundle, E602 or E603 where an output is outside its
            threshold, and what building and running the loader may raise.
    """
    subject, target = _open(path, toolchains)
    threshold = comparison.THRESHOLDS[target.precision]
    with verification.scratch_folder() as scratch:
        if source is not None:
            progress("", "running the source model")
            origin = frontends.load(source)
            origin = replace(origin, inputs=subject.inputs)
            sets = reference_sets(origin, options, scratch / "reference", limits)
        else:
            sets = verification.recorded_sets(subject)
        progress("", f"running the artifact through {through}")
        answers, ran_on = _run_bundle(subject, target, sets, through, scratch, limits)
        errors = verification.compare_sets(sets, answers, threshold)
    code = "E602" if through == "runtime" else "E603"
    comparison.require(errors, code, f"`{path}` through {through}", "compile the model again")
    return VerifyResult(path, through, len(sets.feeds), errors, target.device, ran_on)


def bench(
    path: Path,
    *,
    runs: int = 20,
    warmup: int = 3,
    threads: int = 1,
    through: str = "runtime",
    dims: Mapping[str, int] | None = None,
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    toolchains: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Time the bundle's artifact: the least, median and greatest latency in milliseconds.

    `dims` gives values to dynamic dimensions; the others take their typical value. `toolchains`
    is as for `verify`.

    Raises:
        InfcError: E110 for an unknown dimension, E702, and what running may raise.
    """
    subject, target = _open(path, toolchains)
    with verification.scratch_folder() as scratch:
        feeds = typical_feeds(subject.inputs, dims or {})
        (folder,) = write_feeds([feeds], scratch)
        timing = verification.Timing(runs, warmup, threads)
        if through == "runtime":
            figures = verification.bench_in_worker(subject, folder, timing, scratch / "run", limits)
        else:
            figures = loaders.bench_through(subject, through, folder, timing, scratch, limits)
            figures = {**figures, "ran_on": _loader_device(subject, target)}
    return {
        "bundle": str(path),
        "target": target.name,
        "device": target.device,
        "through": through,
        "threads": threads,
        "inputs": {k: list(v.shape) for k, v in feeds.items()},
        **figures,
    }


def _open(path: Path, toolchains: Mapping[str, str] | None) -> tuple[Bundle, Target]:
    """A bundle and its target, whose workers run where the user says."""
    subject = bundle.open_bundle(path)
    recorded = Target.from_json(subject.manifest["target"])
    (target,) = targets.in_toolchains([recorded], toolchains or {})
    return replace(subject, manifest={**subject.manifest, "target": target.to_json()}), target


def _optimize(
    request: Request, stage: Path, progress: Progress, *, int8: bool = False
) -> _Optimized:
    """Frontend and passes, and the proof that they changed nothing."""
    progress("", "reading the model")
    source = frontends.load(request.model, request.inputs)
    before = manifest.operators(source.model)
    records = pipeline.run(source.model, request.passes, lambda name: progress("", f"pass {name}"))
    histogram = {"source": before, "optimized": manifest.operators(source.model)}
    outputs = tuple(spec_of(v) for v in source.model.graph.outputs)
    reference, proof = None, {}
    if request.verify.enabled:
        options = request.verify
        if request.calibration is not None and int8 and options.data is None:
            progress("", "reading calibration samples")
            options = quantizing.proof_inputs(
                request.calibration, source.inputs, options, stage / "samples", request.limits
            )
        progress("", "running the source model")
        reference = Reference(source, options, stage, request.limits)
        progress("", "verifying the optimised graph")
        scratch = stage / "optimized"
        scratch.mkdir()
        building.save_model(source.model, scratch / "model.onnx")
        errors = reference.require(
            lambda sets: verification.check_optimized(sets, outputs, scratch, request.limits),
            source.model,
        )
        proof = comparison.summary(errors)
    measured = precision.Measured(
        source.model,
        source.inputs,
        request.calibration,
        reference.options if reference else request.verify,
        stage / "measured",
        request.limits,
    )
    return _Optimized(
        source, source.model, source.inputs, outputs, records, histogram, reference, proof, measured
    )


def _wants_int8(chosen: Sequence[Target]) -> bool:
    return any(target.precision is Precision.INT8 for target in chosen)


def _calibrate(
    request: Request,
    optimized: _Optimized,
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
        optimized.inputs,
        request.calibration,
        wanting,
        stage / "calibration",
        request.limits,
        lambda step: progress("", step),
        also=(CANONICAL,) if request.budget is not None else (),
    )


def _budget(
    request: Request,
    optimized: _Optimized,
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
        stage / "budget",
        request.limits,
        lambda step: progress("", step),
    )


def _destination(request: Request, target: Target) -> Path:
    return request.output / f"{request.name or request.model.stem}-{target.name}"


def _log_folder(request: Request, target: Target) -> Path:
    bundle_folder = _destination(request, target)
    return bundle_folder.with_name(f"{bundle_folder.name}.log")


def _compile_for(
    request: Request,
    optimized: _Optimized,
    calibrated: Calibrated | None,
    budget: Budget | None,
    target: Target,
    stage: Path,
    progress: Progress,
) -> TargetResult:
    """Everything for one target; its failures are in the result."""
    watch = _Stopwatch(lambda name: progress(target.name, name))
    scratch = stage / target.name
    destination, log = _destination(request, target), _log_folder(request, target)
    try:
        finished, document, warnings = _build_bundle(
            request, optimized, calibrated, budget, target, scratch, watch
        )
        watch.start("publishing")
        watch.stop()
        _keep_log(scratch, log, document, optimized, watch)
        bundle.publish(finished, destination)
    except Exception as failure:
        if isinstance(failure, OSError) and failure.errno in bundle.UNWRITABLE:
            raise  # concerns every target
        watch.stop()
        error = failure if isinstance(failure, InfcError) else InfcError(internal_error(failure))
        kept = any(d.code[1] in "56" and d.code != "E501" for d in error.diagnostics)
        if kept:
            _keep_log(scratch, log, None, optimized, watch)
        return TargetResult(
            target.name, None, log if kept else None, error.diagnostics, {}, watch.seconds
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    proof = document["verification"]
    return TargetResult(target.name, destination, log, warnings, proof, watch.seconds)


def _build_bundle(
    request: Request,
    optimized: _Optimized,
    calibrated: Calibrated | None,
    budget: Budget | None,
    target: Target,
    scratch: Path,
    watch: _Stopwatch,
) -> tuple[Path, dict[str, Any], tuple[Diagnostic, ...]]:
    """Make the whole bundle in `scratch`; return its folder, its manifest and the warnings."""
    end = targets.back_end(target.back_end)
    building.require_toolchain(target)
    finished = scratch / "bundle"
    finished.mkdir(parents=True)

    kept = Kept()
    if budget is not None and target.precision is Precision.INT8:
        watch.start("searching what stays in float")
        kept = _kept(budget, end, scratch / "search", request.limits, watch.announce)

    watch.start("legalising")
    quantized = _quantized(calibrated, end, target, kept.layers)
    neutral = quantized.model if quantized else optimized.model.clone()
    lowered = precision.lower(building.raise_opset(neutral, end), target, optimized.measured)
    model = lowered.model
    end.legalize(model, target)

    watch.start("building")
    samples, remarks = own_calibration.samples_for(
        target, request.calibration, optimized.inputs, scratch / "own", request.limits
    )
    artifact = building.build(
        model,
        request.model.name,
        end,
        target,
        optimized.signature,
        finished / "model",
        scratch,
        request.limits,
        samples,
    )

    watch.start("rendering loaders")
    name = bundle.identifier(request.name or request.model.stem)
    loaders.render(finished, name, target, artifact, *optimized.signature, request.loaders)

    proof: dict[str, Any] = {"verdict": "skipped"}
    if optimized.reference is not None:
        watch.start("verifying")
        entry = finished / "model" / artifact.entry
        errors = optimized.reference.require(
            lambda sets: verification.check_artifact(sets, target, entry, scratch, request.limits),
            optimized.model,
        )
        sets = optimized.reference.sets
        proof = {
            "verdict": "passed",
            **describe(optimized.reference.options, sets),
            "optimized": optimized.proof,
            "artifact": comparison.summary(errors),
        }
        verification.record_sets(sets, finished)
    entry = finished / "model" / artifact.entry
    figures = _require_budget(request, optimized, budget, end, target, entry, scratch, watch)

    watch.start("writing the manifest")
    document = manifest.fields(
        name,
        optimized.source,
        end,
        target,
        artifact,
        optimized.signature,
        request.loaders,
        optimized.records,
        optimized.operators,
        proof,
    )
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
    return finished, document, (*kept.warnings, *lowered.warnings, *remarks)


def _kept(
    budget: Budget,
    end: BackEnd,
    scratch: Path,
    limits: WorkerLimits,
    tell: Callable[[str], None],
) -> Kept:
    """What stays in float for the budget; nothing where the converter quantises by itself."""
    scheme = scheme_of(end)
    if scheme is None:
        return Kept()
    return mixed_precision.search(budget, scheme, scratch, limits, tell)


def _require_budget(
    request: Request,
    optimized: _Optimized,
    budget: Budget | None,
    end: BackEnd,
    target: Target,
    entry: Path,
    scratch: Path,
    watch: _Stopwatch,
) -> dict[str, Any]:
    """Hold the artifact to what the user asked for; its accuracy, for the manifest."""
    figures: dict[str, Any] = {}
    if target.precision is not Precision.INT8:
        return figures
    if budget is not None:
        watch.start("holding the artifact to the budget")
        figures = mixed_precision.check(budget, target, entry, scratch / "held", request.limits)
    if request.budget is not None and request.budget.of_latency:
        watch.start("timing the artifact")
        exact = None
        if request.budget.max_ratio is not None:
            exact = _float_subject(request, optimized, end, target, scratch / "exact")
        watch.latency = latency.require(
            request.budget,
            latency.Subject(target, entry),
            exact,
            *optimized.signature,
            scratch / "timed",
            request.limits,
        )
    return figures


def _float_subject(
    request: Request, optimized: _Optimized, end: BackEnd, target: Target, scratch: Path
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
    return latency.Subject(exact, folder / artifact.entry)


def _quantized(
    calibrated: Calibrated | None, end: BackEnd, target: Target, keep_float: frozenset[str]
) -> Quantized | None:
    """The graph with Q/DQ; None where the target is float or its converter quantises by itself."""
    scheme = scheme_of(end)
    if calibrated is None or scheme is None or target.precision is not Precision.INT8:
        return None
    return quantizing.quantized(calibrated, scheme, keep_float)


def _run_bundle(
    subject: Bundle, target: Target, sets: Sets, through: str, scratch: Path, limits: WorkerLimits
) -> tuple[tuple[Path, ...], str]:
    """The folders of the answers, and the device that gave them."""
    if through == "runtime":
        return verification.run_artifact(sets, target, subject.entry, scratch / "run", limits)
    answers = tuple(scratch / f"outputs-{i}" for i in range(len(sets.feeds)))
    loaders.run_through(subject, through, sets.feeds, answers, scratch, limits)
    return answers, _loader_device(subject, target)


def _loader_device(subject: Bundle, target: Target) -> str:
    """What `loaders` run a loader on: where the artifact itself was verified."""
    return str(subject.manifest["artifact"]["notes"].get("verified_on", target.device))


def _keep_log(
    scratch: Path,
    log: Path,
    document: Mapping[str, Any] | None,
    optimized: _Optimized,
    watch: _Stopwatch,
) -> None:
    """Publish what may differ from build to build: the worker's log, the times."""
    timings: dict[str, Any] = {
        "steps": {k: round(v, 6) for k, v in watch.seconds.items()},
        "passes": [r.to_json(timings=True) for r in optimized.records],
    }
    if watch.latency:
        timings["latency"] = watch.latency
    folder = scratch / "log-folder"
    folder.mkdir(parents=True)
    if (scratch / "log").exists():
        shutil.copyfile(scratch / "log", folder / "worker.log")
    (folder / TIMINGS).write_text(json.dumps(timings, indent=2) + "\n", encoding="utf-8")
    if document is not None:
        (folder / "report.html").write_text(report.render(document, timings), encoding="utf-8")
    bundle.publish(folder, log)


class _Stopwatch:
    """Seconds for each step, announced as they begin."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self.latency: dict[str, Any] = {}
        """Of the artifacts, where they were timed."""
        self.announce = announce
        self._running: tuple[str, float] | None = None

    def start(self, step: str) -> None:
        self.stop()
        self.announce(step)
        self._running = (step, time.perf_counter())

    def stop(self) -> None:
        if self._running is not None:
            step, began = self._running
            self.seconds[step] = time.perf_counter() - began
            self._running = None

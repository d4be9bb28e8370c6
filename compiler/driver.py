"""The line of DESIGN.md, top to bottom.

Request -> frontend -> ir.Model -> passes -> per target: legalise -> build -> Artifact
-> loader -> verify -> Bundle
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import __version__, bundle, frontends, loaders, pipeline, targets, verification, workers
from infc.diagnostics import Diagnostic, ExitCode, InfcError, combined_exit_code, fail
from infc.frontends import Source
from infc.request import Precision, Request
from infc.signature import TensorSpec
from infc.targets import Artifact, BackEnd, Target

if TYPE_CHECKING:
    import onnx_ir as ir

Progress = Callable[[str, str], None]
"""Called with (target or "", what is being done now)."""

EXTERNAL_DATA_BYTES = 1 << 30
"""Weights above this go beside the protobuf, which cannot hold more than 2 GiB."""


@dataclass(frozen=True, slots=True)
class TargetResult:
    """What became of one target. `bundle` is None where it failed."""

    target: str
    bundle: Path | None
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
    notes: tuple[Diagnostic, ...]

    @property
    def exit_code(self) -> ExitCode:
        """Of the whole command."""
        return combined_exit_code([r.exit_code for r in self.results])


@dataclass(frozen=True, slots=True)
class _Context:
    """What the steps for one target share."""

    request: Request
    source: Source
    model: ir.Model
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    records: tuple[pipeline.PassRecord, ...]
    sets: verification.Sets | None
    optimized: dict[str, Any]
    stage: Path


def compile(request: Request, progress: Progress = lambda target, step: None) -> CompileResult:
    """Build a bundle for every target of `request`; a target that fails does not stop the others.

    Raises:
        InfcError: for what concerns all targets: the request, the model, a pass, the reference.
    """
    chosen = [
        targets.configure(targets.look_up(name), request.precision, request.options)
        for name in request.targets
    ]
    progress("", "reading the model")
    source = frontends.load(request.model, request.inputs)
    records = pipeline.run(source.model, request.passes, lambda name: progress("", f"pass {name}"))
    with bundle.staging(request.output) as stage:
        context = _prepare(request, source, records, stage, progress)
        results = tuple(_compile_for(context, target, progress) for target in chosen)
    return CompileResult(results, records, source.notes)


def _prepare(
    request: Request,
    source: Source,
    records: tuple[pipeline.PassRecord, ...],
    stage: Path,
    progress: Progress,
) -> _Context:
    """Run the reference once for all targets, and the optimised graph against it."""
    from infc.frontends.onnx import spec_of

    inputs = source.inputs
    outputs = tuple(spec_of(v) for v in source.model.graph.outputs)
    sets, optimized = None, {}
    if request.verify.enabled:
        progress("", "running the source model")
        sets = reference_sets(request, source, stage / "reference")
        progress("", "verifying the optimised graph")
        optimized = _verify_optimized(request, source.model, sets, stage / "optimized")
    return _Context(request, source, source.model, inputs, outputs, records, sets, optimized, stage)


def reference_sets(request: Request, source: Source, scratch: Path) -> verification.Sets:
    """Run the source model by its own framework's semantics.

    Raises:
        InfcError: E107 where it does not run, E604 where its answer proves nothing.
    """
    scratch.mkdir(parents=True)
    feeds = verification.write_feeds(
        verification.make_feeds(source.inputs, request.verify), scratch
    )
    reference = source.reference
    target = Target("reference", "onnxruntime", "", options=reference.options)
    try:
        answers = verification.run_in_worker(
            reference.module,
            reference.entry.resolve(),
            target,
            feeds,
            [s.name for s in source.outputs],
            scratch / "run",
            scratch / "log",
            request.limits,
            "the source model",
        )
    except InfcError as error:
        first = error.diagnostics[0]
        if first.code not in ("E204", "E506"):
            raise
        raise fail(
            "E107",
            first.message,
            notes=first.notes,
            help="give the shapes it needs with `--input`, or skip with `--no-verify`",
        ) from error
    sets = verification.Sets(feeds, answers)
    verification.require_finite(sets)
    return sets


def _verify_optimized(
    request: Request, model: ir.Model, sets: verification.Sets, scratch: Path
) -> dict[str, Any]:
    scratch.mkdir(parents=True)
    save_model(model, scratch / "model.onnx")
    target = Target("optimized", "onnxruntime", "", options={"graph-optimization": "off"})
    answers = verification.run_in_worker(
        "infc.targets.onnxruntime",
        scratch / "model.onnx",
        target,
        sets.feeds,
        [str(v.name) for v in model.graph.outputs],
        scratch / "run",
        scratch / "log",
        request.limits,
        "the optimised graph",
    )
    errors = verification.compare(sets, answers, verification.THRESHOLDS[Precision.FP32])
    if not all(e.ok for e in errors):
        raise verification.disagreement(
            "E601",
            errors,
            "the optimised graph",
            "find the pass with `--disable-pass` and report it",
        )
    return dict(verification.summary(errors))


def save_model(model: ir.Model, path: Path) -> None:
    """Write `model`; weights too large for one protobuf go to `<name>.data` beside it."""
    import onnx_ir as ir

    weights = sum(
        v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None
    )
    external = f"{path.name}.data" if weights > EXTERNAL_DATA_BYTES else None
    ir.save(model, path, external_data=external)


def _compile_for(context: _Context, target: Target, progress: Progress) -> TargetResult:
    """Everything for one target; its failures are in the result."""
    seconds: dict[str, float] = {}

    def step(name: str) -> None:
        now = time.perf_counter()
        if seconds:
            last = next(reversed(seconds))
            seconds[last] = now - seconds[last]
        if name:
            seconds[name] = now
            progress(target.name, name)

    try:
        path, proof = _build_bundle(context, target, step)
    except InfcError as error:
        return TargetResult(target.name, None, error.diagnostics, seconds=seconds)
    finally:
        step("")
    return TargetResult(target.name, path, (), proof, seconds)


def _build_bundle(
    context: _Context, target: Target, step: Callable[[str], None]
) -> tuple[Path, dict[str, Any]]:
    request = context.request
    end = targets.back_end(target.back_end)
    require_toolchain(end)
    scratch = context.stage / target.name
    finished = scratch / "bundle"
    finished.mkdir(parents=True)
    log = scratch / "log"

    step("legalising")
    model = context.model.clone()
    end.legalize(model, target)
    save_model(model, scratch / "model.onnx")

    step("building")
    artifact = _build(context, end, target, scratch, finished / "model", log)

    step("rendering loaders")
    name = bundle.identifier(request.name or request.model.stem)
    loaders.render(
        finished, name, target, artifact, context.inputs, context.outputs, request.loaders
    )

    proof: dict[str, Any] = {"verdict": "skipped"}
    if context.sets is not None:
        step("verifying")
        proof = _verify_artifact(context, target, artifact, finished, scratch, log)

    step("publishing")
    bundle.write_manifest(finished, _manifest(context, end, target, name, artifact, proof))
    destination = request.output / f"{request.name or request.model.stem}-{target.name}"
    bundle.publish(finished, destination)
    return destination, proof


def require_toolchain(end: BackEnd) -> None:
    """Refuse a back end that is not installed, before anything is built.

    Raises:
        InfcError: E501 with the command that installs it.
    """
    from importlib.util import find_spec

    for module in end.MODULES:
        if find_spec(module) is None:
            raise fail(
                "E501",
                f"back end `{end.NAME}` needs the Python module `{module}`",
                help=f"pip install 'infc[{end.EXTRA}]'",
            )


def _build(
    context: _Context, end: BackEnd, target: Target, scratch: Path, output: Path, log: Path
) -> Artifact:
    payload = {
        "model": str((scratch / "model.onnx").resolve()),
        "output": str(output.resolve()),
        "target": target.to_json(),
        "inputs": [s.to_json() for s in context.inputs],
        "outputs": [s.to_json() for s in context.outputs],
    }
    call = workers.Call(
        targets.module_of(end.NAME),
        "build",
        payload,
        scratch / "build",
        log,
        f"`{end.NAME}` while building",
    )
    value = workers.call(call, context.request.limits)
    if "unsupported" in value:
        raise _unsupported(context, end, value["unsupported"])
    try:
        artifact = Artifact(value["entry"], tuple(value["files"]), value["notes"])
        missing = [f for f in (artifact.entry, *artifact.files) if not (output / f).is_file()]
    except (KeyError, TypeError) as error:
        raise fail("E504", f"`{end.NAME}` did not say what it built") from error
    if missing:
        raise fail("E504", f"`{end.NAME}` did not write {', '.join(missing)}")
    return artifact


def _unsupported(context: _Context, end: BackEnd, rows: Sequence[Sequence[str]]) -> InfcError:
    """E203 for every node, in graph order."""
    opsets = context.model.opset_imports
    found = []
    for node, op_type, domain, reason in rows:
        version = opsets.get(domain, 0)
        full = f"{domain}.{op_type}" if domain else op_type
        found.append(
            Diagnostic(
                "E203",
                f"`{full}` is not supported by `{end.NAME}`",
                where=f"{context.request.model.name}:{context.model.graph.name}/{node} "
                f"({op_type}-{version})",
                notes=(reason,) if reason else (),
                help="compile for another back end (`infc targets`), or replace the operator",
            )
        )
    return InfcError(*found)


def _verify_artifact(
    context: _Context, target: Target, artifact: Artifact, finished: Path, scratch: Path, log: Path
) -> dict[str, Any]:
    assert context.sets is not None
    answers = verification.run_in_worker(
        targets.module_of(target.back_end),
        (finished / "model" / artifact.entry).resolve(),
        target,
        context.sets.feeds,
        [s.name for s in context.outputs],
        scratch / "verify",
        log,
        context.request.limits,
        f"`{target.back_end}` while running the artifact",
    )
    errors = verification.compare(context.sets, answers, verification.THRESHOLDS[target.precision])
    if not all(e.ok for e in errors):
        raise verification.disagreement(
            "E602",
            errors,
            f"the `{target.name}` artifact",
            "nothing was published; another back end may do better",
        )
    options = context.request.verify
    return {
        "verdict": "passed",
        "through": "runtime",
        "inputs": "user data" if options.data else f"random, seed {options.seed}",
        "sets": len(context.sets.feeds),
        "optimized": context.optimized,
        "artifact": dict(verification.summary(errors)),
    }


def _manifest(
    context: _Context,
    end: BackEnd,
    target: Target,
    name: str,
    artifact: Artifact,
    proof: dict[str, Any],
) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "infc": __version__,
        "name": name,
        "state": "ready",
        "target": target.to_json(),
        "inputs": [s.to_json() for s in context.inputs],
        "outputs": [s.to_json() for s in context.outputs],
        "artifact": {
            "entry": f"model/{artifact.entry}",
            "files": [f"model/{f}" for f in artifact.files],
            "notes": dict(artifact.notes),
        },
        "source": {
            "file": context.source.path.name,
            "kind": context.source.kind,
            "sha256": context.source.sha256,
        },
        "passes": [r.to_json(timings=False) for r in context.records],
        "toolchain": {d: version(d) for d in ("onnx", "onnx-ir", *end.DISTRIBUTIONS)},
        "verification": proof,
    }

"""The line of DESIGN.md, top to bottom.

Request -> frontend -> ir.Model -> passes -> per target: legalise -> build -> Artifact
        -> loader -> verify -> Bundle

`front` is the part up to the passes and the calibration, `assembly` the part of each target,
`proving` what is done with a bundle afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import (
    assembly,
    building,
    bundle,
    comparison,
    deferral,
    front,
    logbook,
    mixed_precision,
    quantizing,
    targets,
    tuning,
    verification,
)
from infc.budget import BudgetOptions
from infc.diagnostics import fail
from infc.frontends.frameworks import of_back_ends
from infc.import_options import ImportOptions
from infc.input_spec import InputSpec
from infc.mixed_precision import Kept
from infc.mixed_precision.layers import CANONICAL
from infc.outcomes import (
    CompileResult,
    FinishResult,
    OptimizeResult,
    Progress,
    QuantizeResult,
    TargetResult,
    VerifyResult,
    silent,
)
from infc.proving import bench, verify
from infc.prune_options import PruneOptions
from infc.request import CalibrationOptions, PassOptions, Request, VerifyOptions, WorkerLimits
from infc.targets.schemes import named

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "CompileResult",
    "FinishResult",
    "OptimizeResult",
    "Progress",
    "QuantizeResult",
    "TargetResult",
    "VerifyResult",
    "bench",
    "compile",
    "optimize",
    "quantize",
    "verify",
]


def compile(request: Request, progress: Progress = silent) -> CompileResult:
    """Build a bundle for every target of `request`; a target that fails does not stop the others.

    Raises:
        InfcError: for what concerns all targets: the request, the model, a pass, the reference.
    """
    given = of_back_ends(request.toolchains)
    chosen = targets.choose(request.targets, request.precision, request.options, given)
    mixed_precision.require_applicable(request.budget, chosen)
    building.require_any_toolchain(chosen)
    deferral.require_wanted(request, chosen)
    tuning.require_tunable(request.tuning, chosen)
    with bundle.staging(request.output) as stage:
        for target in chosen:
            bundle.require_replaceable(assembly.bundle_folder(request, target))
            bundle.require_replaceable(assembly.log_folder(request, target), logbook.TIMINGS)
        optimized = front.optimize(request, stage, progress, int8=front.wants_int8(chosen))
        quantizing.require_nodes(optimized.model, request.keep_float)
        calibrated = front.calibrate(request, optimized, chosen, stage, progress)
        budget = front.budget(request, optimized, calibrated, stage, progress)
        shared = front.Shared(optimized, calibrated, budget)
        results = tuple(
            assembly.compile_for(request, shared, target, stage, progress) for target in chosen
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
    reading: ImportOptions = ImportOptions(),  # noqa: B008
    toolchains: Mapping[str, str] | None = None,
    passes: PassOptions = PassOptions(),  # noqa: B008
    verify: VerifyOptions = VerifyOptions(),  # noqa: B008
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    external_data: bool | None = None,
    pruning: PruneOptions | None = None,
    progress: Progress = silent,
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
        reading=reading,
        toolchains=dict(toolchains or {}),
        passes=passes,
        verify=verify,
        limits=limits,
        pruning=pruning,
    )
    with bundle.staging(output.parent) as stage:
        optimized = front.optimize(request, stage, progress)
        _publish_file(optimized.model, output, stage, external_data)
    before, after = optimized.nodes
    return OptimizeResult(
        output,
        optimized.records,
        before,
        after,
        optimized.proof,
        optimized.source.notes,
        optimized.pruning,
    )


def quantize(
    model: Path,
    output: Path,
    scheme: str,
    calibration: CalibrationOptions | None,
    *,
    keep_float: frozenset[str] = frozenset(),
    budget: BudgetOptions | None = None,
    inputs: Sequence[InputSpec] = (),
    reading: ImportOptions = ImportOptions(),  # noqa: B008
    toolchains: Mapping[str, str] | None = None,
    passes: PassOptions = PassOptions(),  # noqa: B008
    verify: VerifyOptions = VerifyOptions(),  # noqa: B008
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    external_data: bool | None = None,
    pruning: PruneOptions | None = None,
    progress: Progress = silent,
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
        reading=reading,
        toolchains=dict(toolchains or {}),
        passes=passes,
        verify=verify,
        limits=limits,
        calibration=calibration,
        budget=budget,
        pruning=pruning,
    )
    with bundle.staging(output.parent) as stage:
        optimized = front.optimize(request, stage, progress, int8=True)
        quantizing.require_nodes(optimized.model, keep_float)
        calibrated = quantizing.calibrate(
            optimized.model,
            optimized.samples,
            calibration,
            {wanted.name: wanted},
            stage / "calibration",
            limits,
            lambda step: progress("", step),
            also=(CANONICAL,) if budget is not None else (),
        )
        held = front.budget(request, optimized, calibrated, stage, progress)
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
    return QuantizeResult(output, document, proof, notes, optimized.pruning)


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

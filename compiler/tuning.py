"""`--tune` and `infc tune`: a back end that can measures a model's kernels, and keeps the best.

What is found goes to a database in INFC_HOME, as it is found, and every later build uses it. A
tuning that is killed goes on where it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import building, front, precision, targets, workers
from infc.diagnostics import Diagnostic, Severity, fail
from infc.outcomes import Progress, TuneResult, silent
from infc.request import Precision, Request, WorkerLimits
from infc.signature import TensorSpec
from infc.targets import Artifact, BackEnd, Target, module_of
from infc.targets.abilities import is_tunable, remote_of
from infc.tuning_options import TuningOptions

if TYPE_CHECKING:
    import onnx_ir as ir

TRIAL_S = 30.0
"""A kernel takes no longer to measure: after so long for each the worker is stopped."""


def require_tunable(options: TuningOptions, chosen: Sequence[Target]) -> None:
    """Refuse to tune where no target can be.

    Raises:
        InfcError: E110.
    """
    if options.remote:
        _require_remote(options.remote, chosen)
    asked = options.measures or options.databases
    if asked and not any(is_tunable(targets.back_end(t.back_end)) for t in chosen):
        names = ", ".join(f"`{t.name}`" for t in chosen)
        raise fail(
            "E110",
            f"{names} has no kernels that could be tuned",
            help="`--tune` and `--tuning-database` are for the back end `tvm`",
        )


def _require_remote(remote: str, chosen: Sequence[Target]) -> None:
    """Refuse devices elsewhere where no target can use them, and what names none.

    Raises:
        InfcError: E110.
    """
    for target in chosen:
        check = remote_of(targets.back_end(target.back_end))
        if check is not None:
            check(remote)


def tune(
    model: ir.Model,
    source_name: str,
    end: BackEnd,
    target: Target,
    options: TuningOptions,
    signature: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
    scratch: Path,
    limits: WorkerLimits,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Measure the kernels of the legalised `model`; what the worker says of it.

    `limits` are for a build: a tuning has its own time on top.

    Raises:
        InfcError: E203, E204, E205, E209, E50x.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    file = scratch / "model.onnx"
    building.save_model(model, file)
    payload = building.payload_for(file, scratch, target, signature, options)
    job = workers.Call(
        module_of(end.NAME),
        "tune",
        payload,
        scratch / "tune",
        scratch.parent / "log",
        f"`{end.NAME}` while tuning",
        end.worker(target),
    )
    longer = options.minutes * 60 + options.trials * TRIAL_S
    limits = replace(limits, timeout_s=limits.timeout_s + longer)
    value = workers.call(job, limits, building.teller(tell, "tuning"))
    if value.get("unsupported"):
        raise building.unsupported(model, source_name, end, value["unsupported"])
    return value


def warnings(options: TuningOptions, artifact: Artifact) -> tuple[Diagnostic, ...]:
    """E210 where the user names databases that have nothing for the model."""
    used = artifact.notes.get("tuning", {})
    if not options.databases or used.get("records") or not used.get("kernels"):
        return ()
    files = ", ".join(f"`{path}`" for path in options.databases)
    return (
        Diagnostic(
            "E210",
            f"no record of {files} is for any of the model's {used['kernels']} kernels",
            help="`infc tune MODEL` with the same target and inputs measures them",
            severity=Severity.WARNING,
        ),
    )


def tune_model(request: Request, progress: Progress = silent) -> tuple[TuneResult, ...]:
    """Tune for every target of `request`; nothing is built, and nothing is proved.

    Raises:
        InfcError: E110 for a target that cannot be tuned, or at int8; what reading, the passes and
            measuring may raise.
    """
    chosen = targets.choose(request.targets, request.precision, request.options, request.toolchains)
    for target in chosen:
        require_tunable(request.tuning, [target])
        building.require_toolchain(target)
        if target.precision is Precision.INT8:
            raise fail(
                "E110",
                "a model is quantised when it is compiled, and tuned then",
                help="`infc compile --tune trials=N` with the same options",
            )
    with tempfile.TemporaryDirectory(prefix="infc-tune-") as folder:
        stage = Path(folder)
        optimized = front.optimize(request, stage, progress)
        return tuple(_tuned(request, optimized, t, stage / t.name, progress) for t in chosen)


def _tuned(
    request: Request, optimized: front.Optimized, target: Target, scratch: Path, progress: Progress
) -> TuneResult:
    end = targets.back_end(target.back_end)
    progress(target.name, "legalising")
    raised = building.raise_opset(optimized.model.clone(), end)
    model = precision.lower(raised, target, optimized.measured).model
    end.legalize(model, target)
    progress(target.name, "tuning")
    found = tune(
        model,
        request.model.name,
        end,
        target,
        request.tuning,
        optimized.signature,
        scratch / "tuning",
        request.limits,
        lambda line: progress(target.name, line),
    )
    return TuneResult(target.name, Path(found.pop("database")), found)

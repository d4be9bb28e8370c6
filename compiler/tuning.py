"""`infc tune`: the kernels of a model measured, as a build would have them, and nothing built."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from infc import building, front, kernel_tuning, quantizing, targets
from infc.assembly import lowering
from infc.assembly.job import job_for
from infc.diagnostics import fail
from infc.logbook import Stopwatch
from infc.outcomes import Progress, TuneResult, silent
from infc.request import Request
from infc.targets import Target
from infc.targets.abilities import is_tunable, remote_of
from infc.tuning_options import TuningOptions


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


def tune_model(request: Request, progress: Progress = silent) -> tuple[TuneResult, ...]:
    """Tune for every target of `request`; nothing is built, and nothing is proved.

    At INT8 the model is calibrated first, and quantised as a build with the same request does it.

    Raises:
        InfcError: E110 for a target that cannot be tuned; what reading, the passes, calibrating
            and measuring may raise.
    """
    chosen = targets.choose(request.targets, request.precision, request.options, request.toolchains)
    for target in chosen:
        require_tunable(request.tuning, [target])
        building.require_toolchain(target)
    with tempfile.TemporaryDirectory(prefix="infc-tune-") as folder:
        stage = Path(folder)
        optimized = front.optimize(request, stage, progress, int8=front.wants_int8(chosen))
        quantizing.require_nodes(optimized.model, request.keep_float)
        calibrated = front.calibrate(request, optimized, chosen, stage, progress)
        shared = front.Shared(optimized, calibrated, None)
        return tuple(_tuned(request, shared, t, stage / t.name, progress) for t in chosen)


def _tuned(
    request: Request, shared: front.Shared, target: Target, scratch: Path, progress: Progress
) -> TuneResult:
    watch = Stopwatch(lambda step: progress(target.name, step))
    job = job_for(request, shared, target, scratch, watch)
    legal = lowering.legalise(job)
    watch.start("tuning")
    found = kernel_tuning.tune(
        legal.model,
        request.model.name,
        job.end,
        target,
        request.tuning,
        legal.native.signature,
        scratch / "tuning",
        request.limits,
        watch.announce,
    )
    return TuneResult(target.name, Path(found.pop("database")), found)

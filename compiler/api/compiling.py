"""`infc.compile` and `infc.tune`: a model, made into bundles for targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from infc import driver, tuning
from infc.api.arguments import AnyPath, calibration_of, precision_of, specs, verify_options_of
from infc.budget import BudgetOptions
from infc.diagnostics import ExitCode, InfcError
from infc.driver import CompileResult, Progress
from infc.import_options import ImportOptions
from infc.outcomes import TuneResult, silent
from infc.prune_options import PruneOptions
from infc.request import (
    LOADERS,
    CalibrationOptions,
    PassOptions,
    Precision,
    Request,
    VerifyOptions,
    WorkerLimits,
    parse_io,
    parse_loaders,
)
from infc.tuning_options import TuningOptions, budget_for, parse_tuning


def compile(
    model: AnyPath,
    targets: str | Sequence[str] = ("cpu",),
    output: AnyPath = "build",
    *,
    name: str | None = None,
    inputs: Mapping[str, str] | None = None,
    precision: Precision | str | None = None,
    options: Mapping[str, str] | None = None,
    passes: PassOptions = PassOptions(),  # noqa: B008
    verify: VerifyOptions | bool = True,
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    loaders: Sequence[str] = LOADERS,
    calibration: CalibrationOptions | str | None = None,
    budget: BudgetOptions | None = None,
    toolchains: Mapping[str, str] | None = None,
    reading: ImportOptions = ImportOptions(),  # noqa: B008
    pruning: PruneOptions | None = None,
    keep_float: Iterable[str] = (),
    fallback: Precision | str = Precision.FP32,
    io: str = "float",
    deferred: bool = True,
    remote: str = "",
    stand_in: str = "",
    tuning: TuningOptions | str | None = None,
    check: bool = True,
    progress: Progress = silent,
) -> CompileResult:
    """Compile `model` into one verified bundle for each target, in the folder `output`.

    Args:
        model: a file, the folder of a SavedModel, or `package.module:factory`.
        targets: hardware profiles or back ends, as `infc targets` lists them.
        output: the folder that the bundles go to; it is made where it is missing.
        name: of the bundles and their loaders, instead of the file's.
        inputs: input names to shapes as `--input` writes them: `{"x": "1..8x3x224x224"}`.
        precision: `fp32`, `fp16`, `bf16` or `int8`, instead of the target's default.
        options: of the back end, as after `-X`.
        passes: which passes are left out or dumped.
        verify: how the proof is made; False leaves it out, and the bundles say so.
        limits: of time and memory for each worker process.
        loaders: the languages to generate loaders in, `cpp` and `java`; empty for none.
        calibration: what activations are measured on: as after `--calibration`, or with the other
            options of calibration.
        budget: what INT8 may cost in accuracy and time; as few layers as it takes stay in float.
        toolchains: back ends, and the source's framework, to the environments (`infc toolchain`)
            that their workers run in.
        reading: how a model that is not ONNX is read.
        pruning: how many channels are removed first; the pruned model is what is compiled.
        keep_float: nodes that stay in float32 at a reduced precision, by their names or those of
            what they give.
        fallback: the precision of what is not quantised at int8.
        io: `native` for inputs and outputs in the type of the precision, `float` for the source's.
        deferred: whether an engine that cannot be built here may be left to the device.
        remote: the machine that builds it meanwhile, `ssh://user@host`.
        stand_in: the Python module that builds it there in place of the target's library.
        tuning: as after `--tune`, or with the files of records that the build may use.
        check: whether a target that fails raises, once all targets are done. The bundles of the
            others are published either way; with False the result says which failed and why.
        progress: called with (target or "", step) as each step begins.

    Raises:
        InfcError: with the diagnostics of everything that failed.
    """
    request = Request(
        model=Path(model),
        targets=(targets,) if isinstance(targets, str) else tuple(targets),
        output=Path(output),
        name=name,
        inputs=specs(inputs),
        precision=precision_of(precision),
        options=dict(options or {}),
        passes=passes,
        verify=verify_options_of(verify),
        limits=limits,
        loaders=parse_loaders(tuple(loaders) or ("none",)),
        calibration=calibration_of(calibration),
        toolchains=dict(toolchains or {}),
        budget=budget,
        reading=reading,
        pruning=pruning,
        keep_float=frozenset(keep_float),
        fallback=precision_of(fallback) or Precision.FP32,
        native_io=parse_io(io),
        deferred=deferred,
        remote=remote,
        stand_in=stand_in,
        tuning=tuning if isinstance(tuning, TuningOptions) else parse_tuning(tuning),
    )
    result = driver.compile(request, progress)
    failures = [row for row in result.results if row.exit_code is not ExitCode.DONE]
    if check and failures:
        raise InfcError(*(d for row in failures for d in row.diagnostics))
    return result


def tune(
    model: AnyPath,
    targets: str | Sequence[str] = ("tvm",),
    *,
    trials: int | None = None,
    minutes: float | None = None,
    inputs: Mapping[str, str] | None = None,
    precision: Precision | str | None = None,
    options: Mapping[str, str] | None = None,
    passes: PassOptions = PassOptions(),  # noqa: B008
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    toolchains: Mapping[str, str] | None = None,
    reading: ImportOptions = ImportOptions(),  # noqa: B008
    remote: str = "",
    calibration: CalibrationOptions | str | None = None,
    keep_float: Iterable[str] = (),
    fallback: Precision | str = Precision.FP32,
    progress: Progress = silent,
) -> tuple[TuneResult, ...]:
    """Measure the kernels of `model` for each target; every later build uses what was found.

    Args:
        model: a file, the folder of a SavedModel, or `package.module:factory`.
        targets: hardware profiles or back ends that can be tuned.
        trials: end after so many kernels; 200 where neither this nor `minutes` is given.
        minutes: end after so long.
        inputs: input names to shapes as `--input` writes them: `{"x": "1x3x224x224"}`.
        precision: that of the build which is to use what is found.
        options: of the back end, as after `-X`.
        passes: which passes are left out or dumped.
        limits: of time and memory for each worker process; a tuning has its own time on top.
        toolchains: back ends, and the source's framework, to the environments that their workers
            run in.
        reading: how a model that is not ONNX is read.
        remote: the devices to measure on, as a tracker names them; "" for this machine.
        calibration: at int8, as for `compile`.
        keep_float: nodes that stay in float32 at int8, as for `compile`.
        fallback: the precision of what is not quantised at int8.
        progress: called with (target or "", step) as each step begins.

    Raises:
        InfcError: E110 for a target that is not tuned, E205 where this machine cannot run its
            kernels, E209 for a database that cannot be used, and what reading may raise.
    """
    request = Request(
        model=Path(model),
        targets=(targets,) if isinstance(targets, str) else tuple(targets),
        output=Path(),
        inputs=specs(inputs),
        precision=precision_of(precision),
        options=dict(options or {}),
        passes=passes,
        verify=VerifyOptions(enabled=False),
        limits=limits,
        toolchains=dict(toolchains or {}),
        reading=reading,
        calibration=calibration_of(calibration),
        keep_float=frozenset(keep_float),
        fallback=precision_of(fallback) or Precision.FP32,
        tuning=replace(budget_for(trials, minutes), remote=remote),
    )
    return tuning.tune_model(request, progress)

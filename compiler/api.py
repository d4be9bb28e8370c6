"""The Python API: the verbs of the command line as functions.

Every function raises `InfcError` where the command would print diagnostics and exit with another
code than 0; `error.diagnostics` holds them, `error.exit_code` the code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from infc import divergence, driver, finishing, inspection, packaging, tuning
from infc.budget import BudgetOptions
from infc.diagnostics import ExitCode, InfcError, fail
from infc.divergence import AccuracyResult
from infc.driver import (
    CompileResult,
    FinishResult,
    OptimizeResult,
    Progress,
    QuantizeResult,
    VerifyResult,
)
from infc.import_options import ImportOptions
from infc.input_spec import InputSpec
from infc.outcomes import TuneResult
from infc.packaging import Packaged
from infc.packaging.settings import Settings
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

AnyPath = str | PathLike[str]
Through = Literal["runtime", "cpp", "java"]


def _silent(target: str, step: str) -> None:
    """The progress of those who do not want any."""


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
    progress: Progress = _silent,
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
        inputs=_specs(inputs),
        precision=_precision(precision),
        options=dict(options or {}),
        passes=passes,
        verify=_verify_options(verify),
        limits=limits,
        loaders=parse_loaders(tuple(loaders) or ("none",)),
        calibration=CalibrationOptions(calibration)
        if isinstance(calibration, str)
        else calibration,
        toolchains=dict(toolchains or {}),
        budget=budget,
        reading=reading,
        pruning=pruning,
        keep_float=frozenset(keep_float),
        fallback=_precision(fallback) or Precision.FP32,
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
    progress: Progress = _silent,
) -> tuple[TuneResult, ...]:
    """Measure the kernels of `model` for each target; every later build uses what was found.

    Args:
        model: a file, the folder of a SavedModel, or `package.module:factory`.
        targets: hardware profiles or back ends that can be tuned.
        trials: end after so many kernels; 200 where neither this nor `minutes` is given.
        minutes: end after so long.
        inputs: input names to shapes as `--input` writes them: `{"x": "1x3x224x224"}`.
        precision: `fp32` or `fp16`; what is quantised is tuned by `compile`.
        options: of the back end, as after `-X`.
        passes: which passes are left out or dumped.
        limits: of time and memory for each worker process; a tuning has its own time on top.
        toolchains: back ends, and the source's framework, to the environments that their workers
            run in.
        reading: how a model that is not ONNX is read.
        remote: the devices to measure on, as a tracker names them; "" for this machine.
        progress: called with (target or "", step) as each step begins.

    Raises:
        InfcError: E110 for a target that is not tuned, E205 where this machine cannot run its
            kernels, E209 for a database that cannot be used, and what reading may raise.
    """
    request = Request(
        model=Path(model),
        targets=(targets,) if isinstance(targets, str) else tuple(targets),
        output=Path(),
        inputs=_specs(inputs),
        precision=_precision(precision),
        options=dict(options or {}),
        passes=passes,
        verify=VerifyOptions(enabled=False),
        limits=limits,
        toolchains=dict(toolchains or {}),
        reading=reading,
        tuning=replace(budget_for(trials, minutes), remote=remote),
    )
    return tuning.tune_model(request, progress)


def optimize(
    model: AnyPath,
    output: AnyPath,
    *,
    inputs: Mapping[str, str] | None = None,
    passes: PassOptions = PassOptions(),  # noqa: B008
    verify: VerifyOptions | bool = True,
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    external_data: bool | None = None,
    toolchains: Mapping[str, str] | None = None,
    reading: ImportOptions = ImportOptions(),  # noqa: B008
    pruning: PruneOptions | None = None,
    progress: Progress = _silent,
) -> OptimizeResult:
    """Run the graph passes over `model` and write the ONNX file `output`.

    `external_data` says whether the weights go to a file of their own; None leaves that to their
    size. The other arguments are those of `compile`.

    Raises:
        InfcError: E1xx for the model, E3xx for a pass, E601 where the optimised graph answers
            differently, E701 where `output` cannot be written; nothing is written then.
    """
    return driver.optimize(
        Path(model),
        Path(output),
        inputs=_specs(inputs),
        passes=passes,
        verify=_verify_options(verify),
        limits=limits,
        external_data=external_data,
        toolchains=toolchains,
        reading=reading,
        pruning=pruning,
        progress=progress,
    )


def quantize(
    model: AnyPath,
    output: AnyPath,
    scheme: str,
    calibration: CalibrationOptions | str | None = None,
    *,
    keep_float: Iterable[str] = (),
    budget: BudgetOptions | None = None,
    inputs: Mapping[str, str] | None = None,
    passes: PassOptions = PassOptions(),  # noqa: B008
    verify: VerifyOptions | bool = True,
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    external_data: bool | None = None,
    toolchains: Mapping[str, str] | None = None,
    reading: ImportOptions = ImportOptions(),  # noqa: B008
    pruning: PruneOptions | None = None,
    progress: Progress = _silent,
) -> QuantizeResult:
    """Write `model` as the INT8 ONNX file `output`, with Q/DQ as the back end `scheme` wants it.

    `calibration` is what activations are measured on, as for `compile`; only a model that came
    quantised needs none. `keep_float` names nodes that stay in float32; as few more do as `budget`
    asks for. The other arguments are
    those of `optimize`.

    Raises:
        InfcError: E110 for an unknown scheme or node, E1xx for the model, E3xx for a pass, E4xx
            for the calibration data, E601 and E602 where the optimised or the quantised graph
            answers differently, E701 where `output` cannot be written; nothing is written then.
    """
    return driver.quantize(
        Path(model),
        Path(output),
        scheme,
        CalibrationOptions(calibration) if isinstance(calibration, str) else calibration,
        keep_float=frozenset(keep_float),
        budget=budget,
        inputs=_specs(inputs),
        passes=passes,
        verify=_verify_options(verify),
        limits=limits,
        external_data=external_data,
        toolchains=toolchains,
        reading=reading,
        pruning=pruning,
        progress=progress,
    )


def verify(
    bundle: AnyPath,
    *,
    through: Through = "runtime",
    source: AnyPath | None = None,
    options: VerifyOptions = VerifyOptions(),  # noqa: B008
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    toolchains: Mapping[str, str] | None = None,
    allow_pickle: bool = False,
    progress: Progress = _silent,
    remote: str = "",
) -> VerifyResult:
    """Run the artifact of `bundle` and compare it with the source model.

    Args:
        bundle: the bundle's folder.
        through: the artifact's own `runtime`, or the generated loader in `cpp` or `java`, which
            is compiled first.
        source: the model to run for the reference, with `options`; without it the answers that
            the bundle keeps are the reference.
        options: how inputs for `source` are made.
        limits: of time and memory for each worker process.
        toolchains: the bundle's back end, and the source's framework, to the environments that
            their workers run in.
        allow_pickle: whether the source's file may run code when it is loaded.
        progress: called with ("", step) as each step begins.
        remote: the device that it is to run on, `tracker://host:port/key`; "" for this machine.

    Raises:
        InfcError: E602 or E603 where an output is outside its threshold, E702 for a damaged
            bundle, E516 and E517 for a device that cannot be had or is lost, E501 and E703 where
            the loader cannot be compiled.
    """
    _require_through(through)
    return driver.verify(
        Path(bundle),
        through=through,
        source=None if source is None else Path(source),
        options=options,
        limits=limits,
        toolchains=toolchains,
        allow_pickle=allow_pickle,
        progress=progress,
        remote=remote,
    )


def debug_accuracy(
    bundle: AnyPath,
    source: AnyPath,
    *,
    data: AnyPath | None = None,
    confirm: int = 0,
    min_sqnr_db: float | None = None,
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    toolchains: Mapping[str, str] | None = None,
    allow_pickle: bool = False,
    progress: Progress = _silent,
) -> AccuracyResult:
    """Compare every layer of `bundle` with its source model; the result's `first` diverges first.

    Args:
        bundle: the bundle's folder.
        source: the model that it was compiled from.
        data: an `.npz` with arrays named after the inputs; without it the inputs are those that
            the bundle keeps.
        confirm: so many layers around the divergence are measured again, each in an artifact of
            its own, in which all others may be fused.
        min_sqnr_db: what a layer diverges below, instead of the threshold of the precision.
        limits: of time and memory for each worker process.
        toolchains: the bundle's back end, and the source's framework, to the environments that
            their workers run in.
        allow_pickle: whether the source's file may run code when it is loaded.
        progress: called with ("", step) as each step begins.

    Raises:
        InfcError: E606 where `source` is another model, E601 where the passes are to blame, E702
            for a damaged bundle, and what building and running may raise.
    """
    if confirm < 0:
        raise fail("E110", f"{confirm} layers cannot be measured")
    return divergence.debug_accuracy(
        Path(bundle),
        Path(source),
        data=None if data is None else Path(data),
        confirm=confirm,
        min_sqnr_db=min_sqnr_db,
        limits=limits,
        toolchains=toolchains,
        allow_pickle=allow_pickle,
        progress=progress,
    )


def bench(
    bundle: AnyPath,
    *,
    runs: int = 20,
    warmup: int = 3,
    threads: int = 1,
    through: Through = "runtime",
    dims: Mapping[str, int] | None = None,
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    toolchains: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Time the artifact of `bundle`; the keys `min_ms`, `median_ms` and `max_ms` are per run.

    `threads` of 0 leaves the choice to the runtime; `dims` gives sizes to dynamic dimensions,
    which take their typical size otherwise. `toolchains` is as for `verify`.

    Raises:
        InfcError: E110 for figures that make no sense or an unknown dimension, E702 for a
            damaged bundle, and what running it may raise.
    """
    _require_through(through)
    if runs < 1 or warmup < 0 or threads < 0:
        raise fail("E110", f"{runs} runs, {warmup} for warming up, {threads} threads: no benchmark")
    return driver.bench(
        Path(bundle),
        runs=runs,
        warmup=warmup,
        threads=threads,
        through=through,
        dims=dims,
        limits=limits,
        toolchains=toolchains,
    )


def finish(
    bundle: AnyPath,
    *,
    remote: str = "",
    stand_in: str = "",
    skip_verify: bool = False,
    again: bool = False,
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    toolchains: Mapping[str, str] | None = None,
    progress: Progress = _silent,
) -> FinishResult:
    """Build the engine of `bundle`, which was left to the device, verify it, complete the bundle.

    Args:
        bundle: the bundle's folder.
        remote: the machine that builds and verifies it, `ssh://user@host`; "" for this one.
        stand_in: the Python module that builds it in place of the target's library; the bundle is
            then in the state `built`, never `ready`.
        skip_verify: leave the engine unproved; the state is `built` then, too.
        again: build the engine of a bundle once more that is ready.
        limits: of time and memory for the worker process, and of time for the other machine.
        toolchains: the bundle's back end to the environment that its worker runs in.
        progress: called with ("", line) as things are done.

    Raises:
        InfcError: E110 for a bundle that is complete from the start, E702 for a damaged one, E602
            where the engine answers wrongly, E512 to E515 for what the machine lacks, E50x.
    """
    return finishing.finish(
        Path(bundle),
        remote=remote,
        stand_in=stand_in,
        skip_verify=skip_verify,
        again=again,
        limits=limits,
        toolchains=toolchains,
        progress=progress,
    )


def package(
    bundle: AnyPath,
    repository: AnyPath,
    *,
    name: str | None = None,
    version: int | None = None,
    settings: Settings = Settings(),  # noqa: B008
    keep_config: bool = False,
) -> Packaged:
    """Add `bundle` to the Triton model repository `repository`, as one more version of its model.

    Args:
        bundle: the bundle's folder.
        repository: the repository's folder; it is made where it is missing.
        name: of the model there, instead of the bundle's.
        version: its number, instead of the next that is free.
        settings: batching, instances, what is served, as the options of `infc package`.
        keep_config: leave a configuration that is there as it is, whoever changed it.

    Raises:
        InfcError: E702 and E707 for a bundle that is damaged or not finished, E708 where Triton
            cannot serve it, E709 where it does not fit what is there, E701.
    """
    return packaging.package(
        Path(bundle),
        Path(repository),
        name=name,
        version=version,
        settings=settings,
        keep_config=keep_config,
    )


def inspect(path: AnyPath) -> dict[str, Any]:
    """Describe a model file, a bundle or a ranges file, running nothing; JSON values only.

    `kind` is `bundle`, whose `manifest` is given, `ranges`, whose `tensors` are, or the kind of
    the model, which is described.

    Raises:
        InfcError: E100, E101 or E102 for a model that cannot be read, E116 or E117 for another
            framework's file that is unsafe or damaged, E702 for a damaged bundle, E411 for a
            damaged ranges file.
    """
    return inspection.inspect(Path(path))


def _specs(inputs: Mapping[str, str] | None) -> tuple[InputSpec, ...]:
    return tuple(InputSpec.parse(f"{name}={shape}") for name, shape in (inputs or {}).items())


def _precision(value: Precision | str | None) -> Precision | None:
    try:
        return None if value is None else Precision(value)
    except ValueError as error:
        raise fail("E110", f"`{value}` is no precision", help=_one_of(Precision)) from error


def _require_through(through: str) -> None:
    known = ("runtime", *LOADERS)
    if through not in known:
        raise fail("E110", f"a bundle cannot be run through `{through}`", help=_one_of(known))


def _one_of(names: Iterable[str]) -> str:
    return "it is one of " + ", ".join(f"`{name}`" for name in names)


def _verify_options(verify: VerifyOptions | bool) -> VerifyOptions:
    return verify if isinstance(verify, VerifyOptions) else VerifyOptions(enabled=verify)

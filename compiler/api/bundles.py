"""What is done with a bundle: finished, verified, debugged, timed, packaged, shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infc import divergence, driver, finishing, inspection, packaging
from infc.api.arguments import AnyPath, Through, require_through
from infc.diagnostics import fail
from infc.divergence import AccuracyResult
from infc.driver import FinishResult, Progress, VerifyResult
from infc.outcomes import silent
from infc.packaging import Packaged
from infc.packaging.settings import Settings
from infc.request import VerifyOptions, WorkerLimits


def verify(
    bundle: AnyPath,
    *,
    through: Through = "runtime",
    source: AnyPath | None = None,
    options: VerifyOptions = VerifyOptions(),  # noqa: B008
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    toolchains: Mapping[str, str] | None = None,
    allow_pickle: bool = False,
    progress: Progress = silent,
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
    require_through(through)
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
    progress: Progress = silent,
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
    require_through(through)
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
    progress: Progress = silent,
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

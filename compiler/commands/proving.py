"""`infc finish`, `verify`, `debug-accuracy` and `bench`: what is done with a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infc import completion
from infc.config import config_option
from infc.options.declaring import path_argument, verb
from infc.options.model import pickle_option
from infc.options.proof import reference_options, through_option, verify_of
from infc.options.workers import (
    device_option,
    limit_options,
    limits_of,
    progress_of,
    remote_option,
    run_options,
    stand_in_option,
    toolchain_option,
    toolchains_of,
)
from infc.request import parse_dims, parse_layers

if TYPE_CHECKING:
    from infc.output import Output


@verb("infc finish build/model-jetson --remote ssh://user@host")
@path_argument("bundle", completion.bundles)
@remote_option
@stand_in_option
@click.option("--skip-verify", is_flag=True, help="Leave the engine unproved; the bundle says so.")
@click.option("--again", is_flag=True, help="Build the engine of a finished bundle once more.")
@run_options
@config_option
def finish(
    bundle: Path,
    skip_verify: bool,
    again: bool,
    **rest: Any,
) -> Output:
    """Build and verify the engine of BUNDLE, which was left to the device.

    Here, where this is the device, or on the machine that `--remote` names. Exits with 3 where
    the engine was built and could not be verified: the bundle is then in the state `built`.
    """
    limits, toolchains = limits_of(rest), toolchains_of(rest)
    with progress_of(rest) as progress:
        from infc import finishing
        from infc.results import bundles

        result = finishing.finish(
            bundle,
            remote=rest["remote"],
            stand_in=rest["stand_in"],
            skip_verify=skip_verify,
            again=again,
            limits=limits,
            toolchains=toolchains,
            progress=progress,
        )
    return bundles.finished(result, brief=rest["quiet"])


@verb("infc verify build/model-cpu --through cpp")
@path_argument("bundle", completion.bundles)
@through_option
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    shell_complete=completion.models,
    help="Run this model for the reference, instead of the answers kept in the bundle.",
)
@reference_options
@pickle_option
@device_option
@run_options
@config_option
def verify(bundle: Path, through: str, source: Path | None, **rest: Any) -> Output:
    """Compare BUNDLE with its source model once more.

    The artifact is run, in its runtime or through the generated loader, on the inputs that the
    bundle keeps, and its answers are compared with those of the source model. Exits with 3 where
    they differ.
    """
    options, limits, toolchains = verify_of(rest), limits_of(rest), toolchains_of(rest)
    with progress_of(rest) as progress:
        from infc import driver
        from infc.results import bundles

        result = driver.verify(
            bundle,
            through=through,
            source=source,
            options=options,
            limits=limits,
            toolchains=toolchains,
            allow_pickle=rest["allow_pickle"],
            progress=progress,
            remote=rest["remote"],
        )
    return bundles.verified(result)


@verb("infc debug-accuracy build/model-cpu --source model.onnx")
@path_argument("bundle", completion.bundles)
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    required=True,
    metavar="MODEL",
    shell_complete=completion.models,
    help="The model that BUNDLE was compiled from.",
)
@click.option(
    "--data",
    "--verify-data",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Inputs, arrays named after them.  [default: those that BUNDLE keeps]",
)
@click.option(
    "--layers",
    default="all",
    show_default=True,
    metavar="all|N",
    help="`all` in one artifact, which may keep the back end from fusing them; with N, as many "
    "around the divergence once more, each in an artifact of its own.",
)
@click.option(
    "--min-sqnr",
    type=float,
    metavar="DB",
    help="What a layer diverges below.  [default: the threshold of the precision]",
)
@pickle_option
@run_options
@config_option
def debug_accuracy(
    bundle: Path,
    source: Path,
    data: Path | None,
    layers: str,
    min_sqnr: float | None,
    **rest: Any,
) -> Output:
    """Name the first layer of BUNDLE that diverges from its source model.

    The artifact is built again with every layer as an output, and compared with the float graph.
    A layer whose inputs are wrong already follows; one that all readers are right about is
    harmless. Exits with 3 where something diverges.
    """
    limits, toolchains = limits_of(rest), toolchains_of(rest)
    with progress_of(rest) as progress:
        from infc import divergence
        from infc.results import layers as told

        result = divergence.debug_accuracy(
            bundle,
            source,
            data=data,
            confirm=parse_layers(layers),
            min_sqnr_db=min_sqnr,
            limits=limits,
            toolchains=toolchains,
            allow_pickle=rest["allow_pickle"],
            progress=progress,
        )
    return told.debugged(result, brief=rest["quiet"])


@verb("infc bench build/model-cpu --threads 4")
@path_argument("bundle", completion.bundles)
@through_option
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="Runs counted.",
)
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    metavar="N",
    help="Runs before that.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    metavar="N",
    help="Threads of a run; 0 leaves the choice to the runtime.",
)
@click.option(
    "--dim",
    "dims",
    multiple=True,
    metavar="NAME=N",
    help="Size of a dynamic dimension; repeat for several.  [default: the typical one]",
)
@toolchain_option
@limit_options
@config_option
def bench(
    bundle: Path,
    through: str,
    runs: int,
    warmup: int,
    threads: int,
    dims: tuple[str, ...],
    **rest: Any,
) -> Output:
    """Time the artifact of BUNDLE.

    Prints the least, median and greatest latency of one run.
    """
    from infc import driver
    from infc.progress import ProgressLine, Verbosity
    from infc.results import bundles

    sizes, limits, toolchains = parse_dims(dims), limits_of(rest), toolchains_of(rest)
    with ProgressLine(Verbosity.NORMAL) as progress:
        progress("", f"timing the artifact through {through}")
        figures = driver.bench(
            bundle,
            runs=runs,
            warmup=warmup,
            threads=threads,
            through=through,
            dims=sizes,
            limits=limits,
            toolchains=toolchains,
        )
    return bundles.benched(figures)

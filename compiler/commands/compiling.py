"""`infc compile`: a model in, a bundle for each target out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infc import completion
from infc.commands.packaging import package_options, require_servable, with_packages
from infc.config import config_option
from infc.options.declaring import path_argument, verb
from infc.options.model import inputs_of, model_options, passes_of, reading_of
from infc.options.precision import (
    budget_of,
    budget_options,
    calibration_of,
    calibration_options,
    fallback_option,
    io_option,
    keep_float_option,
    latency_option,
)
from infc.options.proof import verify_of, verify_options
from infc.options.pruning import prune_options, pruning_of
from infc.options.target import (
    back_end_options,
    precision_option,
    targets_option,
    tuning_of,
    tuning_options,
)
from infc.options.workers import (
    deferred_option,
    limits_of,
    progress_of,
    remote_option,
    run_options,
    stand_in_option,
    toolchains_of,
)
from infc.request import Precision, Request, parse_io, parse_loaders, parse_options

if TYPE_CHECKING:
    from infc.output import Output


@verb(
    "infc compile model.onnx",
    "infc compile model.onnx -t jetson -t intel-cpu -o build",
    "infc compile model.onnx --precision int8 --calibration photos --preprocess resize=224x224",
)
@path_argument("model", completion.models)
@targets_option("cpu")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default=Path("build"),
    show_default=True,
    metavar="FOLDER",
    help="Folder that the bundles go to.",
)
@click.option(
    "--name", metavar="NAME", help="Name of the bundle and its loaders.  [default: the file's]"
)
@precision_option
@back_end_options
@click.option(
    "--loader",
    "loaders",
    multiple=True,
    type=click.Choice(["cpp", "java", "none"]),
    help="Loaders to generate; repeat for several.  [default: cpp, java]",
)
@keep_float_option
@fallback_option
@io_option
@model_options
@prune_options
@calibration_options
@budget_options
@latency_option
@tuning_options
@verify_options
@deferred_option
@remote_option
@stand_in_option
@package_options
@run_options
@config_option
def compile(
    model: Path,
    targets: tuple[str, ...],
    output: Path,
    name: str | None,
    precision: str | None,
    pairs: tuple[str, ...],
    loaders: tuple[str, ...],
    **rest: Any,
) -> Output:
    """Compile MODEL into one verified bundle for each target.

    MODEL is a file of ONNX, PyTorch or TensorFlow, the folder of a SavedModel, or
    `package.module:factory`. A bundle holds the artifact, its loaders and the proof of it.
    """
    require_servable(rest, targets)
    request = Request(
        model=model,
        targets=targets,
        output=output,
        name=name,
        inputs=inputs_of(rest),
        precision=Precision(precision) if precision else None,
        options=parse_options(pairs),
        passes=passes_of(rest),
        verify=verify_of(rest),
        limits=limits_of(rest),
        loaders=parse_loaders(loaders),
        toolchains=toolchains_of(rest),
        calibration=calibration_of(rest),
        budget=budget_of(rest),
        reading=reading_of(rest),
        pruning=pruning_of(rest),
        keep_float=frozenset(rest["keep_float"]),
        fallback=Precision(rest["fallback"]),
        native_io=parse_io(rest["io"]),
        deferred=rest["deferred"],
        remote=rest["remote"],
        stand_in=rest["stand_in"],
        tuning=tuning_of(rest),
    )
    with progress_of(rest) as progress:
        from infc import bundle, driver
        from infc.results import compiling

        result = driver.compile(request, progress)
    paths = {row.target: row.bundle for row in result.results if row.bundle is not None}
    manifests = {
        target: bundle.open_bundle(path, check_hashes=False).manifest
        for target, path in paths.items()
    }
    told = compiling.compiled(result, manifests, brief=rest["quiet"])
    return with_packages(told, result, rest, output)

"""`infc optimize` and `infc quantize`: a model in, one ONNX file out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infc import completion
from infc.config import config_option
from infc.options.declaring import external_data_option, output_option, path_argument, verb
from infc.options.model import inputs_of, model_options, passes_of, reading_of
from infc.options.precision import (
    budget_of,
    budget_options,
    calibration_of,
    calibration_options,
    keep_float_option,
)
from infc.options.proof import verify_of, verify_options
from infc.options.pruning import labelled_options, prune_options, pruning_of
from infc.options.workers import limits_of, progress_of, run_options, toolchains_of

if TYPE_CHECKING:
    from infc.output import Output


@verb("infc optimize model.onnx -o smaller.onnx")
@path_argument("model", completion.models)
@output_option("OUT.onnx", help="File that the optimised graph goes to.")
@external_data_option
@model_options
@prune_options
@labelled_options
@verify_options
@run_options
@config_option
def optimize(
    model: Path,
    output: Path,
    external_data: bool | None,
    **rest: Any,
) -> Output:
    """Run only the graph passes and write an ONNX file.

    Any tool that reads ONNX can go on from there. The result is verified as a bundle is.
    """
    inputs, limits, pruning = inputs_of(rest), limits_of(rest), pruning_of(rest)
    with progress_of(rest) as progress:
        from infc import driver
        from infc.results import graphs

        result = driver.optimize(
            model,
            output,
            inputs=inputs,
            passes=passes_of(rest),
            verify=verify_of(rest),
            limits=limits,
            external_data=external_data,
            pruning=pruning,
            reading=reading_of(rest),
            toolchains=toolchains_of(rest),
            progress=progress,
        )
    return graphs.optimized(result, brief=rest["quiet"])


@verb("infc quantize model.onnx -o int8.onnx --scheme onnxruntime --calibration photos")
@path_argument("model", completion.models)
@output_option("OUT.onnx", help="File that the INT8 graph goes to.")
@click.option(
    "--scheme",
    required=True,
    metavar="BACKEND",
    shell_complete=completion.schemes,
    help="Whose way of writing Q/DQ: onnxruntime, openvino, tensorrt.",
)
@keep_float_option
@external_data_option
@model_options
@prune_options
@calibration_options
@budget_options
@verify_options
@run_options
@config_option
def quantize(
    model: Path,
    output: Path,
    scheme: str,
    keep_float: tuple[str, ...],
    external_data: bool | None,
    **rest: Any,
) -> Output:
    """Write MODEL as an INT8 ONNX file, with Q/DQ as one back end wants it.

    The passes are run, the activations measured on `--calibration`, and the result is compared
    with the source model on some of those samples.
    """
    inputs, limits, calibration = inputs_of(rest), limits_of(rest), calibration_of(rest)
    budget, pruning = budget_of(rest), pruning_of(rest)
    with progress_of(rest) as progress:
        from infc import driver
        from infc.results import graphs

        result = driver.quantize(
            model,
            output,
            scheme,
            calibration,
            keep_float=frozenset(keep_float),
            budget=budget,
            inputs=inputs,
            passes=passes_of(rest),
            verify=verify_of(rest),
            limits=limits,
            external_data=external_data,
            pruning=pruning,
            reading=reading_of(rest),
            toolchains=toolchains_of(rest),
            progress=progress,
        )
    return graphs.quantized(result, brief=rest["quiet"])

"""INT8: what it is calibrated on, what it may cost, what stays in float."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import click
from click.core import ParameterSource

from infc.budget import TOP1, BudgetOptions, parse_drop, parse_latency
from infc.diagnostics import fail
from infc.options.data import metric_options, preprocess_option
from infc.options.declaring import together
from infc.preprocessing import Preprocess
from infc.request import (
    CALIBRATION_METHODS,
    FLOATS,
    IO,
    CalibrationOptions,
)

_CALIBRATION = CalibrationOptions("data")
"""Its defaults are those of the command line."""

calibration_options = together(
    click.option(
        "--calibration",
        metavar="DATA",
        help="Samples to measure activations on: .npz, .npy, .csv, a folder of .npy, .npz or "
        "photos, `module:function`, `file.py:function`, or the word `random`.",
    ),
    preprocess_option,
    click.option(
        "--calibration-samples",
        default=str(_CALIBRATION.samples),
        show_default=True,
        metavar="N|all",
        help="At most so many, spread evenly.",
    ),
    click.option(
        "--calibration-batch",
        type=click.IntRange(min=1),
        default=_CALIBRATION.batch,
        show_default=True,
        metavar="N",
        help="Samples in a run, where the model leaves that open.",
    ),
    click.option(
        "--method",
        type=click.Choice(CALIBRATION_METHODS),
        default=_CALIBRATION.method,
        show_default=True,
        help="How ranges are made of what was measured.",
    ),
    click.option(
        "--percentile",
        type=click.FloatRange(min=50, min_open=True, max=100),
        default=_CALIBRATION.percentile,
        show_default=True,
        metavar="P",
        help="Of `--method percentile`.",
    ),
)

budget_options = together(
    click.option(
        "--min-sqnr",
        type=float,
        metavar="DB",
        help="Keep as few layers in float as this SQNR of the worst output takes.",
    ),
    click.option(
        "--max-drop",
        metavar="PERCENT",
        help="The same for a drop of the metric on `--labelled`: 0.5%, 0.005.",
    ),
    metric_options,
)
keep_float_option = click.option(
    "--keep-float",
    multiple=True,
    metavar="NODE",
    help="Leave a node in float32, by its name or that of what it gives; repeat for several.",
)

fallback_option = click.option(
    "--fallback",
    type=click.Choice([p.value for p in FLOATS]),
    default=FLOATS[0].value,
    show_default=True,
    help="What computes at int8 that is not quantised.",
)

io_option = click.option(
    "--io",
    type=click.Choice(IO),
    default=IO[0],
    show_default=True,
    help="Type of inputs and outputs: the source model's, or the precision's (16 bits, integers).",
)

latency_option = click.option(
    "--max-latency",
    metavar="RATIOx|TIME",
    help="Refuse an int8 artifact that is slower: `1.0x` the float one's time, `5ms`.",
)


def calibration_of(rest: Mapping[str, Any]) -> CalibrationOptions | None:
    """The values of `calibration_options`; None where there is no data.

    Raises:
        InfcError: E110.
    """
    data, spec, samples = rest["calibration"], rest["preprocess"], rest["calibration_samples"]
    if data is None:
        source = click.get_current_context().get_parameter_source("preprocess")
        if source is ParameterSource.COMMANDLINE and not (rest["prune"] and rest["labelled"]):
            raise fail("E110", "`--preprocess` says nothing without `--calibration`")
        return None
    if samples != "all" and not re.fullmatch("[1-9][0-9]{0,8}", samples):
        raise fail("E110", f"`--calibration-samples {samples}` is neither a number nor `all`")
    return CalibrationOptions(
        data=data,
        samples=None if samples == "all" else int(samples),
        preprocess=None if spec is None else Preprocess.parse(spec),
        method=rest["method"],
        percentile=rest["percentile"],
        batch=rest["calibration_batch"],
    )


def budget_of(rest: Mapping[str, Any]) -> BudgetOptions | None:
    """The values of `budget_options` and `latency_option`; None where none is given.

    Raises:
        InfcError: E110.
    """
    drop, latency = rest["max_drop"], rest.get("max_latency")
    ratio, time_ms = (None, None) if latency is None else parse_latency(latency)
    # Without a limit, labelled data only tells what pruning costs.
    told = drop is None and rest["prune"] is not None
    budget = BudgetOptions(
        rest["min_sqnr"],
        None if drop is None else parse_drop(drop),
        TOP1 if told else rest["metric"],
        None if told else rest["labelled"],
        ratio,
        time_ms,
    )
    return None if budget == BudgetOptions() else budget

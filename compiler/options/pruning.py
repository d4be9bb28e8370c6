"""Channels that are removed, and the data that tells what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from click.core import ParameterSource

from infc.diagnostics import fail
from infc.options.data import metric_options, preprocess_option
from infc.options.declaring import together
from infc.preprocessing import Preprocess
from infc.prune_options import NORMS, SCOPES, PruneOptions, parse_part

prune_options = together(
    click.option(
        "--prune",
        metavar="PART",
        help="Remove so many channels of every layer, those of the least weight: 30%.",
    ),
    click.option(
        "--prune-scope",
        type=click.Choice(SCOPES),
        default="layer",
        show_default=True,
        help="Rank the channels of each layer, or of the whole model.",
    ),
    click.option(
        "--prune-norm",
        type=click.Choice(NORMS),
        default="l1",
        show_default=True,
        help="What a channel's weight is: the sum of absolute values, or of squares.",
    ),
    click.option(
        "--prune-multiple",
        type=click.IntRange(min=1),
        default=8,
        show_default=True,
        metavar="N",
        help="Keep a multiple of N channels, where that still removes any.",
    ),
    click.option(
        "--prune-normalized",
        is_flag=True,
        help="Also channels that a layer normalisation averages over.",
    ),
)

labelled_options = together(metric_options, preprocess_option)


def pruning_of(rest: Mapping[str, Any]) -> PruneOptions | None:
    """The values of `prune_options`, with the data that tells what they cost.

    Raises:
        InfcError: E110.
    """
    text, spec = rest["prune"], rest["preprocess"]
    context = click.get_current_context()
    if text is None:
        names = ("prune_scope", "prune_norm", "prune_multiple", "prune_normalized")
        for name in names if "max_drop" in rest else (*names, "labelled", "metric", "preprocess"):
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                option = name.replace("_", "-")
                raise fail("E110", f"`--{option}` says nothing without `--prune`")
        return None
    return PruneOptions(
        part=parse_part(text),
        scope=rest["prune_scope"],
        norm=rest["prune_norm"],
        multiple=rest["prune_multiple"],
        normalized=rest["prune_normalized"],
        labelled=rest["labelled"],
        metric=rest["metric"],
        preprocess=None if spec is None else Preprocess.parse(spec),
        batch=rest.get("calibration_batch", 1),
    )

"""What is built for, and what is measured first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from infc import completion
from infc.options.declaring import Decorator, together
from infc.request import Precision
from infc.tuning_options import TuningOptions, parse_tuning

precision_option = click.option(
    "--precision",
    type=click.Choice([str(p) for p in Precision]),
    help="Arithmetic of the artifact.  [default: the target's]",
)
back_end_options = click.option(
    "-X",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the back end, repeat for several; `infc targets NAME` lists them.",
)
tuning_options = together(
    click.option(
        "--tune",
        metavar="trials=N|minutes=M|off",
        help="Measure kernels for so long first; `off` uses no record of earlier measurements.",
    ),
    click.option(
        "--tuning-database",
        "databases",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Use these records too, before those of INFC_HOME; repeat for several.",
    ),
)


def targets_option(default: str) -> Decorator:
    """What is built for, or tuned."""
    return click.option(
        "--target",
        "-t",
        "targets",
        multiple=True,
        default=[default],
        show_default=True,
        metavar="NAME",
        shell_complete=completion.targets,
        help="Hardware profile or back end (`infc targets`); repeat for several.",
    )


def tuning_of(rest: Mapping[str, Any]) -> TuningOptions:
    """The values of `tuning_options`.

    Raises:
        InfcError: E110.
    """
    return parse_tuning(rest["tune"], tuple(rest["databases"]))

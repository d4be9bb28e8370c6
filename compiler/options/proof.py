"""What the proof is made on, and through what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from infc.options.declaring import together
from infc.request import VerifyOptions

reference_options = together(
    click.option(
        "--verify-data",
        type=click.Path(path_type=Path),
        metavar="FILE.npz",
        help="Inputs to verify on, arrays named after the inputs; else they are random.",
    ),
    click.option(
        "--samples",
        type=click.IntRange(min=1),
        default=VerifyOptions().samples,
        show_default=True,
        metavar="N",
        help="Random input sets for each size of the dynamic dimensions.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=VerifyOptions().seed,
        show_default=True,
        metavar="N",
        help="Of the random inputs.",
    ),
)

verify_options = together(
    click.option("--no-verify", is_flag=True, help="Prove nothing; the bundle says so."),
    reference_options,
)

through_option = click.option(
    "--through",
    type=click.Choice(["runtime", "cpp", "java"]),
    default="runtime",
    show_default=True,
    help="The artifact's runtime, or the generated loader, compiled first.",
)


def verify_of(rest: Mapping[str, Any]) -> VerifyOptions:
    """The values of `verify_options` or of `reference_options`."""
    return VerifyOptions(
        enabled=not rest.get("no_verify"),
        samples=rest["samples"],
        seed=rest["seed"],
        data=rest["verify_data"],
    )

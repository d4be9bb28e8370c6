"""How the model is read, and which passes it goes through."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from infc import completion
from infc.import_options import ImportOptions
from infc.input_spec import InputSpec
from infc.options.declaring import together
from infc.request import PassOptions

pass_options = together(
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME=SHAPE",
        help="Fix, name or bound dimensions: x=1x3x224x224, x=1..8@4x3x224x224.",
    ),
    click.option(
        "--disable-pass",
        "disabled",
        multiple=True,
        metavar="PASS",
        shell_complete=completion.passes,
        help="Leave a pass out; repeat for several.",
    ),
    click.option(
        "--dump-after",
        multiple=True,
        metavar="PASS",
        shell_complete=completion.passes,
        help="Write the graph after each run of a pass that changed it.",
    ),
    click.option(
        "--dump-dir",
        type=click.Path(path_type=Path),
        help="Where `--dump-after` writes.  [default: .]",
    ),
    click.option("--check-passes", is_flag=True, help="Check the graph after every pass."),
)

import_options = together(
    click.option(
        "--model",
        "model_class",
        default="",
        metavar="PACKAGE.MODULE:CLASS",
        help="What a checkpoint's weights belong to; also FILE.py:CLASS.",
    ),
    click.option("--signature", default="", metavar="NAME", help="Which of a SavedModel's."),
    click.option(
        "--graph-output",
        "graph_outputs",
        multiple=True,
        metavar="NAME",
        help="Of a frozen TensorFlow graph; repeat for several.  [default: found]",
    ),
    click.option(
        "--layout",
        type=click.Choice(["nchw"]),
        help="Take images channels first.  [default: as the model does]",
    ),
)

pickle_option = click.option(
    "--allow-pickle",
    is_flag=True,
    help="Let the model file run code when it is loaded.",
)
model_options = together(pass_options, import_options, pickle_option)
"""Of every verb that starts with a model."""


def inputs_of(rest: Mapping[str, Any]) -> tuple[InputSpec, ...]:
    """The value of `--input`.

    Raises:
        InfcError: E110.
    """
    return tuple(InputSpec.parse(text) for text in rest["inputs"])


def reading_of(rest: Mapping[str, Any]) -> ImportOptions:
    """The values of `import_options` and `pickle_option`.

    Raises:
        InfcError: E110.
    """
    return ImportOptions(
        rest["model_class"],
        rest["allow_pickle"],
        rest["signature"],
        tuple(rest["graph_outputs"]),
        rest["layout"] or "",
    )


def passes_of(rest: Mapping[str, Any]) -> PassOptions:
    """The values of `pass_options`, but for the inputs."""
    return PassOptions(
        disabled=frozenset(rest["disabled"]),
        dump_after=frozenset(rest["dump_after"]),
        dump_dir=rest["dump_dir"],
        check_between=rest["check_passes"],
    )

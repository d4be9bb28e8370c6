"""The command line: parse, print, exit code. No logic, and no import that is slow."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from infc import __version__
from infc.diagnostics import Diagnostic, ExitCode, InfcError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="infc")
def cli() -> None:
    """Compile neural networks for real hardware, with proof that they still answer the same."""


def print_diagnostics(diagnostics: tuple[Diagnostic, ...]) -> None:
    """Diagnostics go to stderr, a blank line between them."""
    for diagnostic in diagnostics:
        click.echo(diagnostic.render(), err=True)


def print_json(document: Any) -> None:
    """Results for machines go to stdout."""
    click.echo(json.dumps(document, indent=2))


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--target",
    "-t",
    "targets",
    multiple=True,
    default=["cpu"],
    show_default=True,
    help="Hardware profile or back end; repeat for several.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default=Path("build"),
    show_default=True,
    help="Folder that the bundles go to.",
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=SHAPE",
    help="Fix, name or bound dimensions: x=1x3x224x224, x=1..8@4x3x224x224.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def compile(
    model: Path,
    targets: tuple[str, ...],
    output: Path,
    inputs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compile MODEL into one bundle for each target."""
    from infc.driver import compile as run
    from infc.request import InputSpec, Request

    request = Request(model, targets, output, inputs=tuple(map(InputSpec.parse, inputs)))
    result = run(request)
    for row in result.results:
        print_diagnostics(row.diagnostics)
        if row.bundle is not None:
            click.echo(f"{row.bundle}  {row.verification['verdict']}")
    sys.exit(result.exit_code)


def main() -> NoReturn:
    """Run the command line; every error becomes a diagnostic and an exit code."""
    try:
        cli.main(standalone_mode=False)
    except InfcError as error:
        print_diagnostics(error.diagnostics)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.USAGE)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    sys.exit(ExitCode.DONE)

"""`infc tune ...`: parse, print. What happens is in `infc.tuning` and `infc.databases`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infc import completion
from infc.diagnostics import fail
from infc.options import (
    common_options,
    device_option,
    import_options,
    inputs_of,
    limit_options,
    limits_of,
    pass_options,
    passes_of,
    path_argument,
    pickle_option,
    progress_of,
    progress_options,
    reading_of,
    toolchain_option,
    toolchains_of,
    verb_of,
)
from infc.request import Precision, Request, VerifyOptions, parse_options
from infc.tuning_options import TRIALS, budget_for

if TYPE_CHECKING:
    from infc.output import Output

DEFAULT = "model"
"""What `infc tune MODEL` means: `infc tune model MODEL`."""


class _Tune(click.Group):
    """A group whose first word may be a model, as well as one of its verbs."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default verb where none is named."""
        own = {o for p in self.params for o in p.opts} | set(self.get_help_option_names(ctx))
        first = next((word for word in args if word not in own), None)
        if first is not None and first not in self.commands:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Tune, subcommand_metavar="MODEL|COMMAND [ARGS]...")
def tune() -> None:
    """Measure the kernels of MODEL, and keep what is fastest.

    `infc tune MODEL -t TARGET` measures for a while, and every later build for that target uses
    what was found; `infc tune MODEL --help` shows its options. The other commands are about the
    databases that the records are kept in.
    """


common_options(tune)
verb = verb_of(tune)


def database_argument(name: str = "database", **more: Any) -> Callable[[Any], Any]:
    """The file of a database, or a target, whose own is meant."""
    return click.argument(name, type=click.Path(path_type=Path), metavar="FILE|TARGET", **more)


output_option = click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="File that the records go to; it is replaced.",
)
x_option = click.option(
    "-X",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the back end, where a target is named: `-X cpu=x86-64-v3`.",
)


@verb
@path_argument("model", completion.models)
@click.option(
    "--target",
    "-t",
    "targets",
    multiple=True,
    default=["tvm"],
    show_default=True,
    metavar="NAME",
    shell_complete=completion.targets,
    help="Hardware profile or back end; repeat for several.",
)
@click.option(
    "--trials",
    type=int,
    metavar="N",
    help=f"End after so many kernels.  [default: {TRIALS}]",
)
@click.option("--minutes", type=float, metavar="M", help="End after so long.")
@click.option(
    "--precision",
    type=click.Choice([str(p) for p in Precision]),
    help="Arithmetic of the artifact.  [default: the target's]",
)
@click.option(
    "-X",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the back end; `infc targets NAME` lists them.",
)
@pass_options
@import_options
@pickle_option
@toolchain_option
@device_option
@limit_options
@progress_options
def model(
    model: Path,
    targets: tuple[str, ...],
    trials: int | None,
    minutes: float | None,
    precision: str | None,
    pairs: tuple[str, ...],
    **rest: Any,
) -> Output:
    """Measure the kernels of MODEL.

    Ends after `--trials` or `--minutes`, whichever comes first; what is found is kept at once, and
    the next call goes on from there.
    """
    request = Request(
        model=model,
        targets=targets,
        output=Path(),
        inputs=inputs_of(rest),
        precision=Precision(precision) if precision else None,
        options=parse_options(pairs),
        passes=passes_of(rest),
        verify=VerifyOptions(enabled=False),
        limits=limits_of(rest),
        toolchains=toolchains_of(rest),
        reading=reading_of(rest),
        tuning=replace(budget_for(trials, minutes), remote=rest["remote"]),
    )
    with progress_of(rest) as progress:
        from infc import tune_results, tuning

        found = tuning.tune_model(request, progress)
    return tune_results.tuned(found, brief=rest["quiet"])


@verb
@database_argument(default="tvm")
@x_option
def show(database: Path, pairs: tuple[str, ...]) -> Output:
    """Show what is in a database: each kernel, its time by rule and as chosen.

    Without an argument it is this machine's.
    """
    from infc import databases, tune_results

    path = databases.path_of(database, parse_options(pairs))
    return tune_results.shown(path, databases.read(path))


@verb
@database_argument("files", nargs=-1, required=True)
@output_option
def merge(files: tuple[Path, ...], output: Path) -> Output:
    """Put the records of several databases together, the better ones where they have the same."""
    from infc import databases, tune_results

    paths = [databases.path_of(file, {}) for file in files]
    return tune_results.written("merged", output, databases.merge(paths, output))


@verb
@database_argument()
@output_option
@x_option
def export(database: Path, output: Path, pairs: tuple[str, ...]) -> Output:
    """Write what a build needs of a database, for `infc compile --tuning-database`."""
    from infc import databases, tune_results

    path = databases.path_of(database, parse_options(pairs))
    return tune_results.written("exported", output, databases.export(path, output))


@verb
@database_argument()
@x_option
@click.option(
    "--gain",
    type=click.FloatRange(min=0, max=100),
    default=0.0,
    show_default=True,
    metavar="PERCENT",
    help="Forget kernels that are no faster than by rule by so much.",
)
def prune(database: Path, pairs: tuple[str, ...], gain: float) -> Output:
    """Forget which choices were tried, and with `--gain` what was not worth it.

    A tuning that goes on afterwards tries everything once more.
    """
    from infc import databases, tune_results

    path = databases.path_of(database, parse_options(pairs))
    if not path.exists():
        raise fail("E209", f"there is no tuning database `{path}`")
    return tune_results.written("pruned", path, databases.prune(path, gain / 100))

"""`infc tune ...`. What happens is in `infc.tuning` and `infc.databases`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from infc import completion
from infc.diagnostics import fail
from infc.options.declaring import Group, common_options, output_option, path_argument, verb_of
from infc.options.model import inputs_of, model_options, passes_of, reading_of
from infc.options.precision import (
    calibration_of,
    calibration_options,
    fallback_option,
    keep_float_option,
)
from infc.options.target import back_end_options, precision_option, targets_option
from infc.options.workers import device_option, limits_of, progress_of, run_options, toolchains_of
from infc.request import Precision, Request, VerifyOptions, parse_options
from infc.tuning_options import TRIALS, budget_for

if TYPE_CHECKING:
    from infc.output import Output

OWN = ("--target", "--remote", "--quiet", "--verbose")
"""Options that a build is given otherwise than the tuning before it."""
DEFAULT = "model"
"""What `infc tune MODEL` means: `infc tune model MODEL`."""


class _Tune(Group):
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


database_output = output_option("FILE", help="File that the records go to; it is replaced.")


@verb(
    "infc tune model.onnx -t tvm --minutes 5",
    "infc tune model.onnx -t tvm --precision int8 --calibration photos",
)
@path_argument("model", completion.models)
@targets_option("tvm")
@click.option(
    "--trials",
    type=int,
    metavar="N",
    help=f"End after so many kernels.  [default: {TRIALS}]",
)
@click.option("--minutes", type=float, metavar="M", help="End after so long.")
@precision_option
@back_end_options
@keep_float_option
@fallback_option
@model_options
@calibration_options
@device_option
@run_options
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
    the next call goes on from there. A kernel is found again by a build with the same model,
    inputs, precision and calibration.
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
        calibration=calibration_of({**rest, "prune": None, "labelled": None}),
        keep_float=frozenset(rest["keep_float"]),
        fallback=Precision(rest["fallback"]),
        tuning=replace(budget_for(trials, minutes), remote=rest["remote"]),
    )
    with progress_of(rest) as progress:
        from infc import tuning
        from infc.results.tuning import tuned

        found = tuning.tune_model(request, progress)
    from infc.commands.compiling import compile

    return tuned(found, given_to(compile), brief=rest["quiet"])


def given_to(other: click.Command) -> list[str]:
    """What the user gave this verb that `other` takes, too: its words, without the targets."""
    context = click.get_current_context()
    taken = {name for parameter in other.params for name in (*parameter.opts, parameter.name)}
    words = []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        name = parameter.opts[-1] if isinstance(parameter, click.Argument) else parameter.opts[0]
        given = source is ParameterSource.COMMANDLINE and parameter.expose_value
        if not given or name not in taken or name in OWN:
            continue
        value = context.params[parameter.name or ""]
        words += _words(parameter, name, value)
    return words


def _words(parameter: click.Parameter, name: str, value: Any) -> list[str]:
    if isinstance(parameter, click.Argument):
        return [str(value)]
    if isinstance(value, bool):
        return [name if value else (*parameter.secondary_opts, name)[0]]
    values = value if parameter.multiple else (value,)
    return [word for v in values for word in (name, str(v))]


@verb()
@database_argument(default="tvm")
@back_end_options
def show(database: Path, pairs: tuple[str, ...]) -> Output:
    """Show what is in a database: each kernel, its time by rule and as chosen.

    Without an argument it is this machine's.
    """
    from infc import databases
    from infc.results import tuning

    path = databases.path_of(database, parse_options(pairs))
    return tuning.shown(path, databases.read(path))


@verb()
@database_argument("files", nargs=-1, required=True)
@database_output
def merge(files: tuple[Path, ...], output: Path) -> Output:
    """Put the records of several databases together, the better ones where they have the same."""
    from infc import databases
    from infc.results import tuning

    paths = [databases.path_of(file, {}) for file in files]
    return tuning.written("merged", output, databases.merge(paths, output))


@verb()
@database_argument()
@database_output
@back_end_options
def export(database: Path, output: Path, pairs: tuple[str, ...]) -> Output:
    """Write what a build needs of a database, for `infc compile --tuning-database`."""
    from infc import databases
    from infc.results import tuning

    path = databases.path_of(database, parse_options(pairs))
    return tuning.written("exported", output, databases.export(path, output))


@verb()
@database_argument()
@back_end_options
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
    from infc import databases
    from infc.results import tuning

    path = databases.path_of(database, parse_options(pairs))
    if not path.exists():
        raise fail("E209", f"there is no tuning database `{path}`")
    return tuning.written("pruned", path, databases.prune(path, gain / 100))

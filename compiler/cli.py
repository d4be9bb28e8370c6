"""The command line: parse, print, exit code. No logic, and no import that is slow.

Every verb returns an `Output`; `main` prints it, as text or as JSON, and turns every error into
diagnostics and an exit code.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from infc import __version__, completion
from infc.diagnostics import (
    CODES,
    Diagnostic,
    ExitCode,
    InfcError,
    look_up,
    merged,
)
from infc.request import (
    InputSpec,
    PassOptions,
    Precision,
    Request,
    VerifyOptions,
    WorkerLimits,
    parse_bytes,
    parse_dims,
    parse_loaders,
    parse_options,
)

if TYPE_CHECKING:
    from infc.progress import ProgressLine
    from infc.results import Output

INTERRUPTED = 130
BROKEN_PIPE = 141
"""What a shell reports for a process that SIGINT or SIGPIPE ended."""

_EPILOG = """\b
Exit codes: 0 done, 1 build failed, 2 usage, 3 verification failed, 4 toolchain missing.
Results go to standard output, progress and diagnostics to standard error."""

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]


class _Verbs(click.Group):
    """Lists its commands in the order of a build, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are defined."""
        return list(self.commands)


@click.group(cls=_Verbs, context_settings=_CONTEXT, epilog=_EPILOG)
@click.version_option(__version__, prog_name="infc", message="%(prog)s %(version)s")
@click.option("--traceback", is_flag=True, expose_value=False, help="Show where an error arose.")
def cli() -> None:
    """Compile neural networks for real hardware, with proof that they still answer the same."""


def verb(function: Callable[..., Output]) -> click.Command:
    """Make `function` a verb, with the options that every verb has; `main` looks for them."""
    command = click.command(function.__name__.rstrip("_"))(function)
    command.params += [
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            help="Print the result as one JSON document.",
        ),
        click.Option(
            ["--traceback"], is_flag=True, expose_value=False, help="Show where an error arose."
        ),
    ]
    cli.add_command(command)
    return command


def _options(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one decorator, shown by `--help` in this order."""

    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def _path(name: str, completer: completion.Completer) -> Callable[[Any], Any]:
    return click.argument(name, type=click.Path(path_type=Path), shell_complete=completer)


_pass_options = _options(
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
_reference_options = _options(
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
        help="Random input sets for each size of the dynamic dimensions.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=VerifyOptions().seed,
        show_default=True,
        help="Of the random inputs.",
    ),
)
_verify_options = _options(
    click.option("--no-verify", is_flag=True, help="Prove nothing; the bundle says so."),
    _reference_options,
)
_limit_options = _options(
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=WorkerLimits().timeout_s,
        show_default=True,
        metavar="SECONDS",
        help="For each worker process.",
    ),
    click.option(
        "--memory-limit", metavar="SIZE", help="Address space of each worker process: 8G, 500M."
    ),
)
_progress_options = _options(
    click.option("--quiet", "-q", is_flag=True, help="No progress, and only paths as the result."),
    click.option("--verbose", "-v", is_flag=True, help="A line for every step, with its time."),
)
_through_option = click.option(
    "--through",
    type=click.Choice(["runtime", "cpp", "java"]),
    default="runtime",
    show_default=True,
    help="The artifact's runtime, or the generated loader, compiled first.",
)


def _passes(
    disabled: Sequence[str], dump_after: Sequence[str], rest: dict[str, Any]
) -> PassOptions:
    return PassOptions(
        frozenset(disabled), frozenset(dump_after), rest["dump_dir"], rest["check_passes"]
    )


def _verify(rest: dict[str, Any]) -> VerifyOptions:
    return VerifyOptions(
        not rest.get("no_verify"), rest["samples"], rest["seed"], rest["verify_data"]
    )


def _limits(rest: dict[str, Any]) -> WorkerLimits:
    memory = rest["memory_limit"]
    return WorkerLimits(rest["timeout"], None if memory is None else parse_bytes(memory))


def _progress(rest: dict[str, Any]) -> ProgressLine:
    from infc.progress import ProgressLine, Verbosity

    if rest["quiet"]:
        return ProgressLine(Verbosity.QUIET)
    return ProgressLine(Verbosity.VERBOSE if rest["verbose"] else Verbosity.NORMAL)


@verb
@_path("model", completion.models)
@click.option(
    "--target",
    "-t",
    "targets",
    multiple=True,
    default=["cpu"],
    show_default=True,
    metavar="NAME",
    shell_complete=completion.targets,
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
@click.option("--name", help="Of the bundle and its loaders.  [default: the file's]")
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
@click.option(
    "--loader",
    "loaders",
    multiple=True,
    type=click.Choice(["cpp", "java", "none"]),
    help="Loaders to generate; repeat for several.  [default: cpp, java]",
)
@_pass_options
@_verify_options
@_limit_options
@_progress_options
def compile(
    model: Path,
    targets: tuple[str, ...],
    output: Path,
    name: str | None,
    precision: str | None,
    pairs: tuple[str, ...],
    loaders: tuple[str, ...],
    inputs: tuple[str, ...],
    disabled: tuple[str, ...],
    dump_after: tuple[str, ...],
    **rest: Any,
) -> Output:
    """Compile MODEL into one verified bundle for each target."""
    request = Request(
        model=model,
        targets=targets,
        output=output,
        name=name,
        inputs=tuple(map(InputSpec.parse, inputs)),
        precision=Precision(precision) if precision else None,
        options=parse_options(pairs),
        passes=_passes(disabled, dump_after, rest),
        verify=_verify(rest),
        limits=_limits(rest),
        loaders=parse_loaders(loaders),
    )
    with _progress(rest) as progress:
        from infc import bundle, driver, results

        result = driver.compile(request, progress)
    paths = {row.target: row.bundle for row in result.results if row.bundle is not None}
    manifests = {
        target: bundle.open_bundle(path, check_hashes=False).manifest
        for target, path in paths.items()
    }
    return results.compiled(result, manifests, brief=rest["quiet"])


@verb
@_path("model", completion.models)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    required=True,
    metavar="OUT.onnx",
    help="File that the optimised graph goes to.",
)
@click.option(
    "--external-data/--no-external-data",
    default=None,
    help="Keep the weights in a file of their own.  [default: above 1 GiB]",
)
@_pass_options
@_verify_options
@_limit_options
@_progress_options
def optimize(
    model: Path,
    output: Path,
    external_data: bool | None,
    inputs: tuple[str, ...],
    disabled: tuple[str, ...],
    dump_after: tuple[str, ...],
    **rest: Any,
) -> Output:
    """Run only the graph passes and write an ONNX file.

    Any tool that reads ONNX can go on from there. The result is verified as a bundle is.
    """
    specs = tuple(map(InputSpec.parse, inputs))
    passes, verify, limits = _passes(disabled, dump_after, rest), _verify(rest), _limits(rest)
    with _progress(rest) as progress:
        from infc import driver, results

        result = driver.optimize(
            model,
            output,
            inputs=specs,
            passes=passes,
            verify=verify,
            limits=limits,
            external_data=external_data,
            progress=progress,
        )
    return results.optimized(result, brief=rest["quiet"])


@verb
@_path("path", completion.models_and_bundles)
def inspect(path: Path) -> Output:
    """Show what is in a model file or a bundle."""
    from infc import inspection, results

    return results.inspected(inspection.inspect(path))


@verb
@_path("bundle", completion.bundles)
@_through_option
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    shell_complete=completion.models,
    help="Run this model for the reference, instead of the answers kept in the bundle.",
)
@_reference_options
@_limit_options
@_progress_options
def verify(bundle: Path, through: str, source: Path | None, **rest: Any) -> Output:
    """Compare BUNDLE with its source model once more.

    The artifact is run, in its runtime or through the generated loader, on the inputs that the
    bundle keeps, and its answers are compared with those of the source model.
    """
    options, limits = _verify(rest), _limits(rest)
    with _progress(rest) as progress:
        from infc import driver, results

        result = driver.verify(
            bundle,
            through=through,
            source=source,
            options=options,
            limits=limits,
            progress=progress,
        )
    return results.verified(result)


@verb
@_path("bundle", completion.bundles)
@_through_option
@click.option("--runs", type=click.IntRange(min=1), default=20, show_default=True)
@click.option(
    "--warmup", type=click.IntRange(min=0), default=3, show_default=True, help="Runs not counted."
)
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="0 leaves the choice to the runtime.",
)
@click.option(
    "--dim",
    "dims",
    multiple=True,
    metavar="NAME=N",
    help="Size of a dynamic dimension.  [default: the typical one]",
)
@_limit_options
def bench(
    bundle: Path,
    through: str,
    runs: int,
    warmup: int,
    threads: int,
    dims: tuple[str, ...],
    **rest: Any,
) -> Output:
    """Time the artifact of BUNDLE.

    Prints the least, median and greatest latency of one run.
    """
    sizes, limits = parse_dims(dims), _limits(rest)
    from infc import driver, results

    figures = driver.bench(
        bundle,
        runs=runs,
        warmup=warmup,
        threads=threads,
        through=through,
        dims=sizes,
        limits=limits,
    )
    return results.benched(figures)


@verb
@click.argument("name", required=False, shell_complete=completion.targets)
def targets(name: str | None) -> Output:
    """List the targets, or show one in detail."""
    from infc import doctor, results
    from infc import targets as table

    if name is None:
        rows = [
            (t, doctor.installed(table.back_end(t.back_end))) for t in table.profiles().values()
        ]
        return results.targets_table(rows)
    target = table.look_up(name)
    end = table.back_end(target.back_end)
    return results.target_details(target, end, doctor.installed(end))


@verb
def passes() -> Output:
    """List the graph passes, in order."""
    from infc import passes as table
    from infc import results

    return results.passes_table(table.PIPELINE, table.ORDER)


@verb
@click.argument("names", nargs=-1, shell_complete=completion.targets)
def doctor(names: tuple[str, ...]) -> Output:
    """Show what is missing here, and how to get it.

    Exits with 4 where something is missing that infc itself needs, or one of NAMES: `cpp`,
    `java`, a back end or a target.
    """
    from infc import doctor as examination
    from infc import results

    return results.examined(examination.examine(names))


@verb
@click.argument("code", required=False, shell_complete=completion.codes)
def explain(code: str | None) -> Output:
    """Explain the diagnostic CODE, or list all codes."""
    from infc import results

    return results.codes_table(CODES.values()) if code is None else results.explained(look_up(code))


@verb
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_(shell: str) -> Output:
    r"""Print the script that makes SHELL complete infc.

    \b
    bash   eval "$(infc completion bash)" in ~/.bashrc
    zsh    eval "$(infc completion zsh)" in ~/.zshrc
    fish   infc completion fish > ~/.config/fish/completions/infc.fish
    """
    from infc.results import Output

    text = completion.script(cli, shell)
    return Output({"shell": shell, "script": text}, text)


def main() -> NoReturn:
    """Run the command line; every error becomes diagnostics and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    try:
        status = _run("--json" in words, "--traceback" in words)
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads any more; without this the interpreter would complain while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = BROKEN_PIPE
    sys.exit(status)


def _run(as_json: bool, with_traceback: bool) -> int:
    """Parse, do, print; return the exit status."""
    from infc.results import Output

    try:
        answer = cli.main(prog_name="infc", complete_var="_INFC_COMPLETE", standalone_mode=False)
        if not isinstance(answer, Output):  # `--help` and `--version` have printed their text
            return int(answer or 0)
    except BrokenPipeError:
        raise
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except Exception as error:
        if with_traceback:
            traceback.print_exc()
        answer = _failure(error)
    _print_diagnostics(answer.diagnostics)
    _print_result(answer, as_json)
    return answer.exit_code


def _failure(error: Exception) -> Output:
    """The output of a verb that did not come to an end."""
    from infc.results import Output

    if isinstance(error, InfcError):
        return Output({}, "", error.exit_code, error.diagnostics)
    diagnostic = _usage(error) if isinstance(error, click.ClickException) else _internal(error)
    return Output({}, "", diagnostic.exit_code, (diagnostic,))


def _usage(error: click.ClickException) -> Diagnostic:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "infc"
    message = error.format_message().rstrip(".")
    return Diagnostic(
        "E110", message[:1].lower() + message[1:], help=f"`{command} --help` shows the usage"
    )


def _internal(error: Exception) -> Diagnostic:
    """E300, with the last place in infc's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    package = Path(__file__).parent.parent
    own = [f for f in frames if Path(f.filename).is_relative_to(package)] or frames
    where = f"{Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}" if own else ""
    text = f"{type(error).__name__}: {error}"
    return Diagnostic(
        "E300",
        f"internal error: {text}",
        where=where,
        help="this is a bug in infc: please report it; `--traceback` shows where it arose",
    )


def _print_diagnostics(diagnostics: Sequence[Diagnostic]) -> None:
    """To stderr, in colour where that is a terminal and `NO_COLOR` is not set."""
    color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    for diagnostic in merged(diagnostics):
        click.echo(diagnostic.render(color=color), err=True, color=color)


def _print_result(answer: Output, as_json: bool) -> None:
    """To stdout: one JSON document, also for a failure, or the text where there is any."""
    if as_json:
        document = {
            "ok": answer.exit_code == ExitCode.DONE,
            "exit_code": int(answer.exit_code),
            "diagnostics": [d.to_json() for d in answer.diagnostics],
            **answer.document,
        }
        click.echo(json.dumps(document, indent=2))
    elif answer.text:
        plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR")
        click.echo(answer.text, color=not plain)

"""The command line: parse, print, exit code. No logic, and no import that is slow.

Every verb returns an `Output`; `main` prints it, as text or as JSON, and turns every error into
diagnostics and an exit code.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from infc import __version__, completion
from infc.config import config_option
from infc.device_verbs import device
from infc.diagnostics import (
    CODES,
    Diagnostic,
    ExitCode,
    InfcError,
    internal_error,
    look_up,
    merged,
)
from infc.options import (
    budget_of,
    budget_options,
    calibration_of,
    calibration_options,
    deferred_option,
    device_option,
    fallback_option,
    import_options,
    inputs_of,
    io_option,
    keep_float_option,
    labelled_options,
    latency_option,
    limit_options,
    limits_of,
    pass_options,
    passes_of,
    path_argument,
    pickle_option,
    progress_of,
    progress_options,
    prune_options,
    pruning_of,
    reading_of,
    reference_options,
    remote_option,
    stand_in_option,
    through_option,
    toolchain_option,
    toolchains_of,
    tuning_of,
    tuning_options,
    verb_of,
    verify_of,
    verify_options,
)
from infc.package_verb import compile_options, package, require_servable, with_packages
from infc.request import (
    Precision,
    Request,
    parse_dims,
    parse_io,
    parse_layers,
    parse_loaders,
    parse_options,
)
from infc.toolchain_verbs import toolchain
from infc.tune_verbs import tune

if TYPE_CHECKING:
    from infc.output import Output

INTERRUPTED = 130
BROKEN_PIPE = 141
"""What a shell reports for a process that SIGINT or SIGPIPE ended."""
STOPPING = (signal.SIGTERM, signal.SIGHUP)
"""Signals after which infc cleans up, as it does after SIGINT."""

_EPILOG = """\b
Exit codes: 0 done, 1 build failed, 2 usage, 3 verification failed, 4 toolchain missing.
Results go to standard output, progress and diagnostics to standard error."""

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


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


verb = verb_of(cli)


@verb
@path_argument("model", completion.models)
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
@keep_float_option
@fallback_option
@io_option
@pass_options
@import_options
@pickle_option
@prune_options
@calibration_options
@budget_options
@latency_option
@tuning_options
@verify_options
@deferred_option
@remote_option
@stand_in_option
@compile_options
@toolchain_option
@limit_options
@progress_options
@config_option
def compile(
    model: Path,
    targets: tuple[str, ...],
    output: Path,
    name: str | None,
    precision: str | None,
    pairs: tuple[str, ...],
    loaders: tuple[str, ...],
    **rest: Any,
) -> Output:
    """Compile MODEL into one verified bundle for each target."""
    require_servable(rest, targets)
    request = Request(
        model=model,
        targets=targets,
        output=output,
        name=name,
        inputs=inputs_of(rest),
        precision=Precision(precision) if precision else None,
        options=parse_options(pairs),
        passes=passes_of(rest),
        verify=verify_of(rest),
        limits=limits_of(rest),
        loaders=parse_loaders(loaders),
        toolchains=toolchains_of(rest),
        calibration=calibration_of(rest),
        budget=budget_of(rest),
        reading=reading_of(rest),
        pruning=pruning_of(rest),
        keep_float=frozenset(rest["keep_float"]),
        fallback=Precision(rest["fallback"]),
        native_io=parse_io(rest["io"]),
        deferred=rest["deferred"],
        remote=rest["remote"],
        stand_in=rest["stand_in"],
        tuning=tuning_of(rest),
    )
    with progress_of(rest) as progress:
        from infc import bundle, driver, results

        result = driver.compile(request, progress)
    paths = {row.target: row.bundle for row in result.results if row.bundle is not None}
    manifests = {
        target: bundle.open_bundle(path, check_hashes=False).manifest
        for target, path in paths.items()
    }
    told = results.compiled(result, manifests, brief=rest["quiet"])
    return with_packages(told, result, rest, output)


@verb
@path_argument("model", completion.models)
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
@pass_options
@import_options
@pickle_option
@prune_options
@labelled_options
@verify_options
@toolchain_option
@limit_options
@progress_options
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
        from infc import driver, results

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
    return results.optimized(result, brief=rest["quiet"])


@verb
@path_argument("model", completion.models)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    required=True,
    metavar="OUT.onnx",
    help="File that the INT8 graph goes to.",
)
@click.option(
    "--scheme",
    required=True,
    metavar="BACKEND",
    shell_complete=completion.schemes,
    help="Whose way of writing Q/DQ: onnxruntime, openvino, tensorrt.",
)
@keep_float_option
@click.option(
    "--external-data/--no-external-data",
    default=None,
    help="Keep the weights in a file of their own.  [default: above 1 GiB]",
)
@pass_options
@import_options
@pickle_option
@prune_options
@calibration_options
@budget_options
@verify_options
@toolchain_option
@limit_options
@progress_options
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
        from infc import driver, results

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
    return results.quantized(result, brief=rest["quiet"])


@verb
@path_argument("bundle", completion.bundles)
@remote_option
@stand_in_option
@click.option("--skip-verify", is_flag=True, help="Leave the engine unproved; the bundle says so.")
@click.option("--again", is_flag=True, help="Build the engine of a finished bundle once more.")
@toolchain_option
@limit_options
@progress_options
@config_option
def finish(
    bundle: Path,
    skip_verify: bool,
    again: bool,
    **rest: Any,
) -> Output:
    """Build and verify the engine of BUNDLE, which was left to the device.

    Here, where this is the device, or on the machine that `--remote` names. Exits with 3 where
    the engine was built and could not be verified: the bundle is then in the state `built`.
    """
    limits, toolchains = limits_of(rest), toolchains_of(rest)
    with progress_of(rest) as progress:
        from infc import finishing, results

        result = finishing.finish(
            bundle,
            remote=rest["remote"],
            stand_in=rest["stand_in"],
            skip_verify=skip_verify,
            again=again,
            limits=limits,
            toolchains=toolchains,
            progress=progress,
        )
    return results.finished(result, brief=rest["quiet"])


@verb
@path_argument("path", completion.models_and_bundles)
def inspect(path: Path) -> Output:
    """Show what is in a model file, a bundle or a ranges file."""
    from infc import inspection, inspection_results

    return inspection_results.inspected(inspection.inspect(path))


@verb
@path_argument("bundle", completion.bundles)
@through_option
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    shell_complete=completion.models,
    help="Run this model for the reference, instead of the answers kept in the bundle.",
)
@reference_options
@pickle_option
@toolchain_option
@device_option
@limit_options
@progress_options
@config_option
def verify(bundle: Path, through: str, source: Path | None, **rest: Any) -> Output:
    """Compare BUNDLE with its source model once more.

    The artifact is run, in its runtime or through the generated loader, on the inputs that the
    bundle keeps, and its answers are compared with those of the source model.
    """
    options, limits, toolchains = verify_of(rest), limits_of(rest), toolchains_of(rest)
    with progress_of(rest) as progress:
        from infc import driver, results

        result = driver.verify(
            bundle,
            through=through,
            source=source,
            options=options,
            limits=limits,
            toolchains=toolchains,
            allow_pickle=rest["allow_pickle"],
            progress=progress,
            remote=rest["remote"],
        )
    return results.verified(result)


@verb
@path_argument("bundle", completion.bundles)
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    required=True,
    metavar="MODEL",
    shell_complete=completion.models,
    help="The model that BUNDLE was compiled from.",
)
@click.option(
    "--data",
    "--verify-data",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Inputs, arrays named after them.  [default: those that BUNDLE keeps]",
)
@click.option(
    "--layers",
    default="all",
    show_default=True,
    metavar="all|N",
    help="`all` in one artifact, which may keep the back end from fusing them; with N, as many "
    "around the divergence once more, each in an artifact of its own.",
)
@click.option(
    "--min-sqnr",
    type=float,
    metavar="DB",
    help="What a layer diverges below.  [default: the threshold of the precision]",
)
@pickle_option
@toolchain_option
@limit_options
@progress_options
@config_option
def debug_accuracy(
    bundle: Path,
    source: Path,
    data: Path | None,
    layers: str,
    min_sqnr: float | None,
    **rest: Any,
) -> Output:
    """Name the first layer of BUNDLE that diverges from its source model.

    The artifact is built again with every layer as an output, and compared with the float graph.
    A layer whose inputs are wrong already follows; one that all readers are right about is
    harmless. Exits with 3 where something diverges.
    """
    limits, toolchains = limits_of(rest), toolchains_of(rest)
    with progress_of(rest) as progress:
        from infc import divergence, results

        result = divergence.debug_accuracy(
            bundle,
            source,
            data=data,
            confirm=parse_layers(layers),
            min_sqnr_db=min_sqnr,
            limits=limits,
            toolchains=toolchains,
            allow_pickle=rest["allow_pickle"],
            progress=progress,
        )
    return results.debugged(result, brief=rest["quiet"])


@verb
@path_argument("bundle", completion.bundles)
@through_option
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
@toolchain_option
@limit_options
@config_option
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
    from infc import driver, results
    from infc.progress import ProgressLine, Verbosity

    sizes, limits, toolchains = parse_dims(dims), limits_of(rest), toolchains_of(rest)
    with ProgressLine(Verbosity.NORMAL) as progress:
        progress("", f"timing the artifact through {through}")
        figures = driver.bench(
            bundle,
            runs=runs,
            warmup=warmup,
            threads=threads,
            through=through,
            dims=sizes,
            limits=limits,
            toolchains=toolchains,
        )
    return results.benched(figures)


@verb
@click.argument("name", required=False, shell_complete=completion.targets)
def targets(name: str | None) -> Output:
    """List the targets, or show one in detail."""
    from infc import doctor, listings
    from infc import targets as table

    if name is None:
        rows = [(t, doctor.available(t)) for t in table.profiles().values()]
        return listings.targets_table(rows)
    target = table.look_up(name)
    end = table.back_end(target.back_end)
    return listings.target_details(target, end, doctor.available(target))


@verb
def passes() -> Output:
    """List the graph passes, in order."""
    from infc import listings
    from infc import passes as table

    return listings.passes_table(table.PIPELINE, table.ORDER)


@verb
@click.argument("names", nargs=-1, shell_complete=completion.targets)
def doctor(names: tuple[str, ...]) -> Output:
    """Show what is missing here, and how to get it.

    Exits with 4 where something is missing that infc itself needs, or one of NAMES: `cpp`,
    `java`, a back end or a target.
    """
    from infc import doctor as examination
    from infc import listings

    return listings.examined(examination.examine(names))


cli.add_command(tune)
cli.add_command(package)
cli.add_command(toolchain)
cli.add_command(device)


@verb
@click.argument("code", required=False, shell_complete=completion.codes)
def explain(code: str | None) -> Output:
    """Explain the diagnostic CODE, or list all codes."""
    from infc import listings

    return (
        listings.codes_table(CODES.values()) if code is None else listings.explained(look_up(code))
    )


@verb
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_(shell: str) -> Output:
    r"""Print the script that makes SHELL complete infc.

    \b
    bash   eval "$(infc completion bash)" in ~/.bashrc
    zsh    eval "$(infc completion zsh)" in ~/.zshrc
    fish   infc completion fish > ~/.config/fish/completions/infc.fish
    """
    from infc.output import Output

    text = completion.script(cli, shell)
    return Output({"shell": shell, "script": text}, text)


def main() -> NoReturn:
    """Run the command line; every error becomes diagnostics and an exit code."""
    _open_streams()
    words = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    try:
        with cleaning_up():
            status = _run("--json" in words, "--traceback" in words)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        status = BROKEN_PIPE
    except _UnwritableOutputError as error:
        _discard_output()
        _print_diagnostics([Diagnostic("E701", f"standard output cannot be written: {error}")])
        status = ExitCode.BUILD_FAILED
    sys.exit(status)


def _open_streams() -> None:
    """Put the null device where the caller closed a stream: the next file would take its place."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Without this the interpreter would try to write what is left, and complain, at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _UnwritableOutputError(Exception):
    """Standard output took no more; the message is the system's."""


class _Stopped(KeyboardInterrupt):
    """One of `STOPPING` came; `status` is what a shell reports for it."""

    status = INTERRUPTED


@contextlib.contextmanager
def cleaning_up() -> Iterator[None]:
    """Make the signals of `STOPPING` exceptions, so that what is half-made is removed."""

    def stop(number: int, frame: object) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the cleaning up
        stopped = _Stopped()
        stopped.status = 128 + number
        raise stopped

    before = {n: signal.getsignal(n) for n in STOPPING}
    for number, handler in before.items():
        if handler == signal.SIG_DFL:  # `nohup` ignores SIGHUP, and that is meant
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(as_json: bool, with_traceback: bool) -> int:
    """Parse, do, print; return the exit status."""
    from infc.output import Output

    try:
        answer = cli.main(prog_name="infc", complete_var="_INFC_COMPLETE", standalone_mode=False)
        if not isinstance(answer, Output):  # `--help` and `--version` have printed their text
            return int(answer or 0)
    except BrokenPipeError:
        raise
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt) as error:
        click.echo("interrupted", err=True)
        cause = error.__cause__ if isinstance(error, click.Abort) else error
        status = cause.status if isinstance(cause, _Stopped) else INTERRUPTED
        _print_result(Output({}, ""), status, as_json)
        return status
    except Exception as error:
        if with_traceback:
            traceback.print_exc()
        answer = _failure(error)
    _print_diagnostics(answer.diagnostics)
    _print_result(answer, answer.exit_code, as_json)
    return answer.exit_code


def _failure(error: Exception) -> Output:
    """The output of a verb that did not come to an end."""
    from infc.output import Output

    if isinstance(error, InfcError):
        return Output({}, "", error.exit_code, error.diagnostics)
    diagnostic = _usage(error) if isinstance(error, click.ClickException) else internal_error(error)
    return Output({}, "", diagnostic.exit_code, (diagnostic,))


def _usage(error: click.ClickException) -> Diagnostic:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "infc"
    message = error.format_message().rstrip(".")
    return Diagnostic(
        "E110", message[:1].lower() + message[1:], help=f"`{command} --help` shows the usage"
    )


def _print_diagnostics(diagnostics: Sequence[Diagnostic]) -> None:
    """To stderr, a blank line between them, in colour where that is a terminal.

    `NO_COLOR` in the environment, with any value, keeps it plain.
    """
    color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    texts = [diagnostic.render(color=color) for diagnostic in merged(diagnostics)]
    if texts:
        click.echo("\n\n".join(texts), err=True, color=color)


def _print_result(answer: Output, status: int, as_json: bool) -> None:
    """To stdout: one JSON document, also for a failure, or the text where there is any."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR")
    if as_json:
        document = {
            "ok": status == ExitCode.DONE,
            "exit_code": int(status),
            "diagnostics": [d.to_json() for d in answer.diagnostics],
            **answer.document,
        }
        text = json.dumps(document, indent=2)
    else:
        text = answer.text
    if not text:
        return
    try:
        click.echo(text, color=not plain)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _UnwritableOutputError(error.strerror) from error

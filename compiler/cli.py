"""The command line: parse, print, exit code. No logic, and no import that is slow.

Every verb returns an `Output`; `main` prints it, as text or as JSON, and turns every error into
diagnostics and an exit code.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import click

from infc.diagnostics import Diagnostic, ExitCode, InfcError, internal_error, merged

if TYPE_CHECKING:
    from infc.output import Output
from infc.commands import cli
from infc.stopping import INTERRUPTED, Stopped, cleaning_up

BROKEN_PIPE = 141
"""What a shell reports for a process that SIGPIPE ended."""


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
        status = cause.status if isinstance(cause, Stopped) else INTERRUPTED
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

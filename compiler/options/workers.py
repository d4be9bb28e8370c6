"""Worker processes: their limits and environments, other machines; progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from infc.request import WorkerLimits, parse_bytes, parse_toolchains

if TYPE_CHECKING:
    from infc.progress import ProgressLine
from infc.options.declaring import together

limit_options = together(
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

toolchain_option = click.option(
    "--toolchain",
    "toolchains",
    multiple=True,
    metavar="BACKEND=NAME",
    help="Run the workers of this back end or framework in an environment of `infc toolchain`.",
)

remote_option = click.option(
    "--remote",
    metavar="ssh://[USER@]HOST[:PORT]",
    default="",
    help="Build and verify the engine on that machine; it needs Python 3 and TensorRT.",
)

device_option = click.option(
    "--remote",
    metavar="tracker://HOST[:PORT]/KEY",
    default="",
    help="Run or measure on the devices of that name that a tracker has (`infc device`).",
)

stand_in_option = click.option(
    "--stand-in",
    metavar="MODULE",
    default="",
    help="Build with this library instead, to try things out: `tensorrt_rtx` needs no GPU.",
)

deferred_option = click.option(
    "--deferred/--no-deferred",
    default=True,
    help="Leave an engine that cannot be built here to the device.  [default: deferred]",
)

progress_options = together(
    click.option("--quiet", "-q", is_flag=True, help="No progress, and only paths as the result."),
    click.option("--verbose", "-v", is_flag=True, help="A line for every step, with its time."),
)
run_options = together(toolchain_option, limit_options, progress_options)
"""Of every verb that runs workers and tells how far they are."""


def limits_of(rest: Mapping[str, Any]) -> WorkerLimits:
    """The values of `limit_options`.

    Raises:
        InfcError: E110.
    """
    memory = rest["memory_limit"]
    return WorkerLimits(rest["timeout"], None if memory is None else parse_bytes(memory))


def toolchains_of(rest: Mapping[str, Any]) -> dict[str, str]:
    """The value of `--toolchain`.

    Raises:
        InfcError: E110.
    """
    return parse_toolchains(rest["toolchains"])


def progress_of(rest: Mapping[str, Any]) -> ProgressLine:
    """What `progress_options` ask for."""
    from infc.progress import ProgressLine, Verbosity

    if rest["quiet"]:
        return ProgressLine(Verbosity.QUIET)
    return ProgressLine(Verbosity.VERBOSE if rest["verbose"] else Verbosity.NORMAL)

"""How verbs, and the options that they share, are declared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from infc import completion

Decorator = Callable[[Any], Any]
"""What declares an option or an argument of a verb."""


class Group(click.Group):
    """Lists its verbs in the order of their use, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are added."""
        return list(self.commands)


def together(*decorators: Decorator) -> Decorator:
    """Several options as one decorator, shown by `--help` in this order."""

    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def common_options(command: click.Command) -> click.Command:
    """Give `command` the options that every verb has; `main` looks for them in the words."""
    as_json = "Print the result as one JSON document."
    where = "Show where an error arose."
    command.params += [
        click.Option(["--json"], is_flag=True, expose_value=False, help=as_json),
        click.Option(["--traceback"], is_flag=True, expose_value=False, help=where),
    ]
    return command


def verb(*examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a verb, with the options that every verb has; `--help` ends with `examples`.

    The verb has the function's name; `_` at its end keeps it apart from Python's own.
    """

    def declare(function: Callable[..., Any]) -> click.Command:
        name = function.__name__.rstrip("_").replace("_", "-")
        heading = "Example:" if len(examples) == 1 else "Examples:"
        # \b keeps click from making one paragraph of them.
        epilog = "\n".join(["\b", heading, *(f"  {line}" for line in examples)])
        return common_options(click.command(name, epilog=epilog if examples else None)(function))

    return declare


def verb_of(group: click.Group) -> Callable[..., Callable[[Callable[..., Any]], click.Command]]:
    """`verb` for the verbs of `group`, which are added to it."""

    def verb_with(*examples: str) -> Callable[[Callable[..., Any]], click.Command]:
        def declare(function: Callable[..., Any]) -> click.Command:
            command = verb(*examples)(function)
            group.add_command(command)
            return command

        return declare

    return verb_with


def path_argument(name: str, completer: completion.Completer) -> Decorator:
    """A model or a bundle; whether it exists is for the driver to say, with its own diagnostic."""
    return click.argument(name, type=click.Path(path_type=Path), shell_complete=completer)


def output_option(metavar: str, help: str) -> Decorator:
    """The one file or folder that a verb writes."""
    return click.option(
        "--output",
        "-o",
        type=click.Path(path_type=Path),
        required=True,
        metavar=metavar,
        help=help,
    )


external_data_option = click.option(
    "--external-data/--no-external-data",
    default=None,
    help="Keep the weights in a file of their own.  [default: above 1 GiB]",
)

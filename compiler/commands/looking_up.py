"""The verbs that only look something up, and the script for completion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from infc import completion
from infc.diagnostics import CODES, look_up
from infc.options.declaring import path_argument, verb

if TYPE_CHECKING:
    from infc.output import Output


@verb()
@path_argument("path", completion.models_and_bundles)
def inspect(path: Path) -> Output:
    """Show what is in a model file, a bundle or a ranges file."""
    from infc import inspection
    from infc.results import inspections

    return inspections.inspected(inspection.inspect(path))


@verb("infc targets", "infc targets jetson")
@click.argument("name", required=False, shell_complete=completion.targets)
def targets(name: str | None) -> Output:
    """List the targets, or show one in detail."""
    from infc import doctor
    from infc import targets as table
    from infc.results import listings

    if name is None:
        rows = [(t, doctor.available(t)) for t in table.profiles().values()]
        return listings.targets_table(rows)
    target = table.look_up(name)
    end = table.back_end(target.back_end)
    return listings.target_details(target, end, doctor.available(target))


@verb()
def passes() -> Output:
    """List the graph passes, in order."""
    from infc import passes as table
    from infc.results import listings

    return listings.passes_table(table.PIPELINE, table.ORDER)


@verb("infc doctor", "infc doctor java openvino")
@click.argument("names", nargs=-1, shell_complete=completion.targets)
def doctor(names: tuple[str, ...]) -> Output:
    """Show what is missing here, and how to get it.

    Exits with 4 where something is missing that infc itself needs, or one of NAMES: `cpp`,
    `java`, a back end or a target.
    """
    from infc import doctor as examination
    from infc.results import listings

    return listings.examined(examination.examine(names))


@verb("infc explain E203")
@click.argument("code", required=False, shell_complete=completion.codes)
def explain(code: str | None) -> Output:
    """Explain the diagnostic CODE, or list all codes."""
    from infc.results import listings

    return (
        listings.codes_table(CODES.values()) if code is None else listings.explained(look_up(code))
    )


@verb(
    'bash   eval "$(infc completion bash)" in ~/.bashrc',
    'zsh    eval "$(infc completion zsh)" in ~/.zshrc',
    "fish   infc completion fish > ~/.config/fish/completions/infc.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_(shell: str) -> Output:
    """Print the script that makes SHELL complete infc.

    It completes verbs, options, the names of targets and passes, model files and bundles.
    """
    from infc.output import Output

    text = completion.script(click.get_current_context().find_root().command, shell)
    return Output({"shell": shell, "script": text}, text)

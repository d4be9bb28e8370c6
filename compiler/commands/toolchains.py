"""`infc toolchain ...`: parse, print. What happens is in `infc.workers`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infc import completion
from infc.options.declaring import Group, common_options, verb_of
from infc.options.workers import progress_of, progress_options

if TYPE_CHECKING:
    from infc.output import Output


@click.group(cls=Group)
def toolchain() -> None:
    """Install the environments, other than infc's own, that back ends run in.

    MindSpore Lite, for one, has a package for Python 3.7 only. Nothing is ever installed but by
    `infc toolchain install`, and then from a lock that gives the SHA-256 of every package.
    """


common_options(toolchain)
verb = verb_of(toolchain)


@verb()
def list_() -> Output:
    """List the toolchains: those infc knows, and your own."""
    from infc.results import listings
    from infc.workers import toolchains

    return listings.toolchains_table(toolchains.entries())


@verb()
@click.argument("name", shell_complete=completion.toolchains)
@click.option(
    "--lock",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Install this lock.  [default: infc's own for NAME, or the one installed]",
)
@click.option("--force", is_flag=True, help="Make it anew even where it is up to date.")
@progress_options
def install(name: str, lock: Path | None, force: bool, **rest: Any) -> Output:
    """Install the toolchain NAME, or bring it up to date."""
    from infc.results import listings
    from infc.workers import installing, toolchains

    with progress_of(rest) as progress:
        done = installing.install(name, lock, force=force, say=progress)
    return listings.toolchain_installed(toolchains.entry(name), done.changed, brief=rest["quiet"])


@verb()
@click.argument("name", shell_complete=completion.toolchains)
def remove(name: str) -> Output:
    """Remove the installed toolchain NAME."""
    from infc.output import Output
    from infc.workers import installing

    gone = installing.remove(name)
    later = "" if gone else "; its files are in use, and go with the next `infc toolchain remove`"
    return Output({"name": name, "files_gone": gone}, f"removed {name}{later}")


@verb()
@click.argument("name", shell_complete=completion.toolchains)
@click.argument("requirements", nargs=-1, metavar="[REQUIREMENT]...")
@click.option(
    "--python", metavar="3.N", help="Python that it is for.  [default: NAME's, or the running one]"
)
@click.option(
    "--platform",
    metavar="SYSTEM-MACHINE",
    help="Machine that it is for: linux-aarch64.  [default: this one]",
)
@click.option(
    "--import",
    "imports",
    multiple=True,
    metavar="MODULE",
    help="What an installation has to be able to import; repeat for several.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File that the lock goes to.  [default: standard output]",
)
@progress_options
def lock(
    name: str,
    requirements: tuple[str, ...],
    python: str | None,
    platform: str | None,
    imports: tuple[str, ...],
    output: Path | None,
    **rest: Any,
) -> Output:
    """Pin all that REQUIREMENTs need.

    Writes a lock for the toolchain NAME: every package, its version and its SHA-256, for one
    platform and one Python. Without a REQUIREMENT it is made from those of the toolchain
    that infc knows by that name.
    """
    from infc.results import listings
    from infc.workers import resolving

    with progress_of(rest) as progress:
        made = resolving.lock(name, python, requirements, imports, output, platform, say=progress)
    step = f"infc toolchain install {name} --lock {shlex.quote(str(output))}"
    return listings.toolchain_locked(made, output, step, brief=rest["quiet"])

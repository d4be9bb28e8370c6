"""`infc device ...`: what happens is in `infc.device_server` and TVM's tracker."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infc import completion
from infc.diagnostics import fail
from infc.options.declaring import Group, common_options, verb_of
from infc.options.target import back_end_options
from infc.options.workers import limit_options, limits_of
from infc.request import parse_options
from infc.targets.tvm_compiler.devices.address import PORT

if TYPE_CHECKING:
    from infc.output import Output


@click.group(cls=Group)
def device() -> None:
    """Devices elsewhere that artifacts are run and tuned on, over TVM RPC.

    A tracker knows the devices; each runs a server that needs no Python. Whoever reaches a server
    can run anything there: both listen on this machine's own address only, unless told otherwise.
    """


common_options(device)
verb = verb_of(device)


@verb()
@click.option(
    "--target",
    "-t",
    "name",
    required=True,
    metavar="NAME",
    shell_complete=completion.targets,
    help="What the device is: a target whose back end is `tvm`.",
)
@back_end_options
@click.option(
    "--wheels",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="FOLDER",
    help="Take TVM's libraries out of the wheels in this folder.  [default: those installed]",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FOLDER",
    help="Where the server goes.  [default: device-server-NAME]",
)
@limit_options
def server(
    name: str, pairs: tuple[str, ...], wheels: Path | None, output: Path | None, **rest: Any
) -> Output:
    """Build the server for a device: a folder to copy there.

    Started there with `./serve --tracker HOST:PORT --key KEY` it offers the device to the tracker.
    """
    from infc import device_server, targets
    from infc import output as outputs

    target = targets.configure(targets.look_up(name), None, parse_options(pairs))
    place = output or Path(f"device-server-{name}")
    made = device_server.build(target, place, wheels, limits_of(rest))
    document: Mapping[str, Any] = {
        "path": str(made.path),
        "triple": made.triple,
        "files": list(made.files),
    }
    text = "\n".join(
        [
            f"{made.path}  for {made.triple}: {', '.join(made.files)}",
            f"  next  on the device: ./serve --tracker HOST:{PORT} --key {name}",
        ]
    )
    return outputs.Output(document, text)


@verb()
@click.option(
    "--bind",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="The address to listen on; devices elsewhere need one that they can reach.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    metavar="PORT",
    help="The port to listen on; 0 takes one that is free.",
)
def tracker(bind: str, port: int) -> Output:
    """Run TVM's tracker, which hands out devices, until it is interrupted."""
    from importlib.util import find_spec

    for module in ("tvm", "tornado"):
        if find_spec(module) is None:
            raise fail("E501", f"TVM's tracker needs `{module}`", help="pip install 'infc[tvm]'")
    module = "infc.targets.tvm_compiler.devices.tracker"
    os.execv(sys.executable, [sys.executable, "-m", module, "--bind", bind, "--port", str(port)])

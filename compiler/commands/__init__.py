"""The verbs of the command line, in the order in which `--help` lists them."""

from __future__ import annotations

import click

from infc import __version__
from infc.commands.compiling import compile
from infc.commands.devices import device
from infc.commands.graphs import optimize, quantize
from infc.commands.looking_up import completion_, doctor, explain, inspect, passes, targets
from infc.commands.packaging import package
from infc.commands.proving import bench, debug_accuracy, finish, verify
from infc.commands.toolchains import toolchain
from infc.commands.tuning import tune
from infc.options.declaring import Group

VERBS: tuple[click.Command, ...] = (
    compile,
    optimize,
    quantize,
    finish,
    inspect,
    verify,
    debug_accuracy,
    bench,
    targets,
    passes,
    doctor,
    tune,
    package,
    toolchain,
    device,
    explain,
    completion_,
)

_EPILOG = """\b
Examples:
  infc compile model.onnx --target cpu
  infc verify build/model-cpu --through cpp
  infc compile --help

\b
Exit codes: 0 done, 1 build failed, 2 usage, 3 verification failed, 4 toolchain missing.
Results go to standard output, progress and diagnostics to standard error.
`infc completion SHELL` prints what makes bash, zsh or fish complete all of this."""

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Group, context_settings=_CONTEXT, epilog=_EPILOG)
@click.version_option(__version__, prog_name="infc", message="%(prog)s %(version)s")
@click.option("--traceback", is_flag=True, expose_value=False, help="Show where an error arose.")
def cli() -> None:
    """Compile neural networks for real hardware, with proof that they still answer the same."""


for verb in VERBS:
    cli.add_command(verb)

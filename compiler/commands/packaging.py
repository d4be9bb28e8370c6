"""`infc package`, and the options that `infc compile` has of it: parse, print.

What happens is in `infc.packaging`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infc import completion
from infc.diagnostics import Diagnostic, InfcError, Severity, combined_exit_code, fail
from infc.options.declaring import together, verb

if TYPE_CHECKING:
    from infc.outcomes import CompileResult
    from infc.output import Output

FORMATS = ["triton"]


package_options = together(
    click.option(
        "--package",
        type=click.Choice(FORMATS),
        help="Add each bundle to a model repository too, as `infc package` does.",
    ),
    click.option(
        "--repository",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Model repository that `--package` adds to.  [default: triton in the output folder]",
    ),
)
"""What `infc compile` has of it."""


def require_servable(rest: Mapping[str, Any], targets: Sequence[str]) -> None:
    """Refuse what `--package` cannot do, before anything is built.

    Raises:
        InfcError: E708, E110, E201.
    """
    if rest["package"] is None:
        if rest["repository"] is not None:
            raise fail("E110", "`--repository` is for `--package`", help="add `--package triton`")
        return
    from infc import packaging
    from infc.targets import look_up

    packaging.require_servable([look_up(name) for name in targets])


def with_packages(
    told: Output, result: CompileResult, rest: Mapping[str, Any], output: Path
) -> Output:
    """Do what `--package` asks for with the bundles of `result`, and tell it with the rest.

    A model goes by its bundle's name; by that and the target's where there are several.
    """
    if rest["package"] is None:
        return told
    from infc import packaging
    from infc.bundle import open_bundle
    from infc.output import Output
    from infc.results.packages import packaged

    repository = rest["repository"] or output / "triton"
    rows, found = [], list[Diagnostic]()
    for row in result.results:
        if row.bundle is None:
            continue
        name = open_bundle(row.bundle, check_hashes=False).name
        name = name if len(result.results) == 1 else f"{name}-{row.target}"
        try:
            rows.append(packaging.package(row.bundle, repository, name=name))
        except InfcError as error:
            found += error.diagnostics
    # What is still to be built on the device is no failure: it is packaged afterwards.
    later = "then `infc package`"
    shown = [
        replace(d, severity=Severity.WARNING, help=f"{d.help}, {later}") if d.code == "E707" else d
        for d in found
    ]
    failed = [d.exit_code for d in shown if d.severity is Severity.ERROR]
    out = packaged(rows, brief=rest["quiet"])
    return Output(
        {**told.document, **out.document},
        ("\n" if rest["quiet"] else "\n\n").join(text for text in (told.text, out.text) if text),
        combined_exit_code([told.exit_code, *failed]),
        (*told.diagnostics, *shown),
    )


@verb(
    "infc package build/model-cpu -o models",
    "infc package build/model-cpu -o models --max-batch-size 16 --queue-delay 500",
)
@click.argument(
    "bundles",
    nargs=-1,
    required=True,
    metavar="BUNDLE...",
    type=click.Path(path_type=Path),
    shell_complete=completion.bundles,
)
@click.option(
    "--as",
    "format_",
    type=click.Choice(FORMATS),
    default="triton",
    show_default=True,
    help="Whose model repository it is.",
)
@click.option(
    "--output",
    "-o",
    "repository",
    type=click.Path(path_type=Path),
    required=True,
    metavar="REPOSITORY",
    help="Folder of the model repository; it is made where it is missing.",
)
@click.option("--name", metavar="NAME", help="Name of the model there.  [default: the bundle's]")
@click.option(
    "--version",
    type=int,
    metavar="N",
    help="Number of the version.  [default: the next that is free]",
)
@click.option(
    "--max-batch-size",
    "max_batch",
    type=int,
    metavar="N",
    help="0 puts no requests together.  [default: what the bundle was compiled for, or 8]",
)
@click.option(
    "--preferred-batch-size",
    "preferred_batch",
    multiple=True,
    type=int,
    metavar="N",
    help="Run a batch of this size at once; repeat for several.",
)
@click.option(
    "--queue-delay",
    "queue_delay_us",
    type=int,
    metavar="MICROSECONDS",
    help="How long a request may wait for others.  [default: 0]",
)
@click.option(
    "--instances",
    type=int,
    metavar="N",
    help="Instances of the model that run at once.  [default: 1]",
)
@click.option("--kind", type=click.Choice(["cpu", "gpu"]), help="What instances run on.")
@click.option(
    "--gpu",
    "gpus",
    multiple=True,
    type=int,
    metavar="N",
    help="Use only this GPU; repeat for several.",
)
@click.option(
    "--serve",
    metavar="all|latest[:N]|N,...",
    help="Versions that clients can ask for.  [default: all]",
)
@click.option("--threads", type=int, metavar="N", help="Threads of an instance on a CPU.")
@click.option(
    "--cuda-graphs/--no-cuda-graphs", default=None, help="Capture CUDA graphs, in TensorRT."
)
@click.option(
    "--warmup/--no-warmup",
    default=None,
    help="Run the bundle's reference inputs before the first request.  [default: warmup]",
)
@click.option(
    "--keep-config",
    is_flag=True,
    help="Leave a config.pbtxt that is there as it is, changed or not.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print only the paths of the versions.")
def package(
    bundles: tuple[Path, ...],
    format_: str,
    repository: Path,
    name: str | None,
    version: int | None,
    keep_config: bool,
    quiet: bool,
    **settings: Any,
) -> Output:
    """Add each BUNDLE to a model repository of Triton Inference Server.

    What is there stays: a bundle becomes one more version of its model, beside the older ones.
    What is decided once, such as `--queue-delay`, holds for the versions that follow.
    """
    from infc import packaging
    from infc.packaging.settings import Settings
    from infc.results.packages import packaged

    # An option that may be repeated is an empty tuple where it is not given.
    given: dict[str, Any] = {k: None if v == () else v for k, v in settings.items()}
    rows = packaging.package_all(
        bundles,
        repository,
        name=name,
        version=version,
        settings=Settings(**given),
        keep_config=keep_config,
    )
    return packaged(rows, brief=quiet)

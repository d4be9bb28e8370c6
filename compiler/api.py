"""The Python API: the verbs of the command line as functions.

Every function raises `InfcError` where the command would print diagnostics and exit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from infc import driver
from infc.request import (
    InputSpec,
    PassOptions,
    Precision,
    Request,
    VerifyOptions,
    WorkerLimits,
)


def compile(
    model: str | PathLike[str],
    targets: Sequence[str] = ("cpu",),
    output: str | PathLike[str] = "build",
    *,
    name: str | None = None,
    inputs: Mapping[str, str] | None = None,
    precision: str | None = None,
    options: Mapping[str, str] | None = None,
    passes: PassOptions = PassOptions(),  # noqa: B008
    verify: VerifyOptions = VerifyOptions(),  # noqa: B008
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    loaders: Sequence[str] = ("cpp", "java"),
    progress: driver.Progress = lambda target, step: None,
) -> driver.CompileResult:
    """Compile `model` for every target and return what became of each.

    `inputs` maps input names to shapes as `--input` writes them: `{"x": "1..8x3x224x224"}`.
    """
    request = Request(
        model=Path(model),
        targets=tuple(targets),
        output=Path(output),
        name=name,
        inputs=tuple(InputSpec.parse(f"{k}={v}") for k, v in (inputs or {}).items()),
        precision=Precision(precision) if precision else None,
        options=dict(options or {}),
        passes=passes,
        verify=verify,
        limits=limits,
        loaders=tuple(loaders),
    )
    return driver.compile(request, progress)

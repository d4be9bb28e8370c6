"""INT8 by a back end's own converter: infc's calibration samples, handed to it as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infc.calibration.remarks import no_data
from infc.diagnostics import Diagnostic, fail
from infc.request import Precision, WorkerLimits
from infc.signature import DTYPES, TensorSpec
from infc.targets import Target, back_end
from infc.targets.abilities import samples_of

if TYPE_CHECKING:
    from infc.quantizing import Opener

MAX_BYTES = 256 << 20
"""Of samples on the disk: 277 photos of 320 x 240, 72 of 640 x 480."""


def is_own(target: Target) -> bool:
    """Whether the back end quantises `target` by itself: the graph that it gets is a float one."""
    return target.precision is Precision.INT8 and samples_of(back_end(target.back_end)) is not None


def samples_for(
    target: Target,
    samples: Opener | None,
    inputs: Sequence[TensorSpec],
    scratch: Path,
    limits: WorkerLimits,
) -> tuple[tuple[Path, ...], tuple[Diagnostic, ...]]:
    """The tensor folders of the samples that the target's converter wants, and warnings about them.

    Both are empty for a target that wants none. At most as many as the back end and `MAX_BYTES`
    allow are written to the folder `scratch`, spread evenly over all that there are.

    Raises:
        InfcError: E414 without data, E205 where an input has no fixed shape, E401 to E407 for the
            data.
    """
    end = back_end(target.back_end)
    wanted = samples_of(end)
    most = wanted(target) if wanted and target.precision is Precision.INT8 else 0
    if not most:
        return (), ()
    if samples is None:
        raise no_data([target.name])
    for spec in inputs:
        if not spec.is_static:
            raise fail(
                "E205",
                f"`{end.NAME}` quantises fixed shapes only, and input `{spec.name}` has none",
                help=f"give it: `--input {spec.name}=...`",
            )
    from infc.calibration.exporting import export

    count = max(1, min(most, MAX_BYTES // max(1, sum(map(_bytes_of, inputs)))))
    opened = samples()
    folders = export(opened, count, scratch / "samples", scratch / "worker", limits)
    return folders, opened.warnings


def _bytes_of(spec: TensorSpec) -> int:
    size: int = math.prod(d for d in spec.shape or () if isinstance(d, int))
    return size * DTYPES[spec.dtype]

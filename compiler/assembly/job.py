"""What one target of a command is built of, where, and what stands in the way of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from infc import building, bundle, deferral, native_io, precision, targets
from infc.diagnostics import fail
from infc.front import Shared
from infc.logbook import Stopwatch
from infc.request import Precision, Request
from infc.targets import BackEnd, Target
from infc.targets.abilities import absence_of


@dataclass(frozen=True, slots=True)
class Job:
    """One target of `request`, built in the folder `scratch` of what all targets share.

    `deferred` says why the artifact is left to the device, None where it is built here; `absent`
    why it cannot be run here, "" where it can.
    """

    request: Request
    shared: Shared
    target: Target
    end: BackEnd
    deferred: str | None
    absent: str
    scratch: Path
    watch: Stopwatch

    @property
    def name(self) -> str:
        """The model's, an identifier."""
        return bundle.identifier(self.request.name or self.request.stem)

    @property
    def finished(self) -> Path:
        """The folder of the bundle."""
        return self.scratch / "bundle"

    @property
    def artifact_folder(self) -> Path:
        """What the artifact goes to."""
        return self.finished / "model"

    @property
    def int8(self) -> bool:
        """Whether the artifact is at INT8, by infc's calibration or by its converter's."""
        return self.target.precision is Precision.INT8


def job_for(
    request: Request, shared: Shared, target: Target, scratch: Path, watch: Stopwatch
) -> Job:
    """The job of `target`, and the new folder of its bundle.

    Raises:
        InfcError: E110, E205 for what the target cannot do of what the user asks for, E501 where
            its back end is not installed, E511 where it can only be deferred and may not be.
    """
    end = targets.back_end(target.back_end)
    precision.require_keeping(target, request.keep_float)
    precision.require_fallback(target, request.fallback)
    reason = deferral.reason_of(target, elsewhere=bool(request.remote))
    if reason is None:
        building.require_toolchain(target)
    elif not request.deferred and not request.remote:
        raise deferral.unwanted(target, reason)
    absent = reason or absence_of(end, target)
    _require_timed(request, target, absent)
    if request.native_io:
        native_io.require_native(target, absent)
    job = Job(request, shared, target, end, reason, absent, scratch, watch)
    job.finished.mkdir(parents=True)
    return job


def _require_timed(request: Request, target: Target, absent: str) -> None:
    """Refuse to hold to a latency what cannot run here.

    Raises:
        InfcError: E205.
    """
    timed = request.budget is not None and request.budget.of_latency
    if absent and timed and target.precision is Precision.INT8:
        raise fail(
            "E205",
            f"`--max-latency` times the artifact of `{target.name}`, which cannot run: {absent}",
            help="leave it out here, and `infc bench` the bundle where it can",
        )

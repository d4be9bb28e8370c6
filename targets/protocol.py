"""What a target is, what a back end offers, and what is passed between it and the driver.

The module-level names of a back end are those of `BackEnd`. `require_options` and `legalize` run
in the driver and see onnx_ir at most; `check`, `build`, `open` and `device` run in a worker
process, where the vendor's SDK is imported, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from infc.request import Precision
from infc.signature import TensorSpec
from infc.tuning_options import TuningOptions

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    Tensors = Mapping[str, np.ndarray[Any, Any]]
    Runner = Callable[[Tensors], dict[str, np.ndarray[Any, Any]]]


@dataclass(frozen=True, slots=True)
class Target:
    """A hardware profile: what to build for, and the defaults for doing so.

    `triple` is the LLVM target triple the loader is built for; "" means the host. `device` is
    the back end's own device name. `options` are the back end's options (`-X KEY=VALUE`).
    """

    name: str
    back_end: str
    summary: str
    device: str = "CPU"
    triple: str = ""
    precision: Precision = Precision.FP32
    options: Mapping[str, str] = field(default_factory=dict)
    toolchain: str = ""
    """The environment that the workers run in; "" leaves it to the back end."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Options that are written nowhere: not into a manifest, a worker's job or a loader."""

    def to_json(self) -> dict[str, Any]:
        """A plain dict, as in the manifest and a worker's job."""
        out = {
            "name": self.name,
            "back_end": self.back_end,
            "summary": self.summary,
            "device": self.device,
            "triple": self.triple,
            "precision": str(self.precision),
            "options": dict(sorted(self.options.items())),
        }
        return {**out, "toolchain": self.toolchain} if self.toolchain else out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Target:
        """The inverse of `to_json`."""
        return cls(**{**data, "precision": Precision(data["precision"])})


@dataclass(frozen=True, slots=True)
class Worker:
    """Where a back end's workers run.

    `toolchain` names an environment (`infc toolchain`), "" infc's own. `script` is a file that
    defines `ACTIONS` (`infc.workers.protocol`) for an interpreter that cannot run infc's own
    source; `build`, `run` and `bench` are then its, while `check` stays with the module.

    `runner` is where artifacts are run, where that is not where they are built. `native` says that
    there is no Python for it: they are run through their C++ loader, compiled.
    """

    toolchain: str = ""
    script: Path | None = None
    runner: Worker | None = None
    native: bool = False
    fixed_addresses: bool = False
    """Its memory lies where it lay last time, as far as the system allows: what is built there
    depends on that."""
    without: tuple[str, ...] = ()
    """Modules that cannot be imported there, though they may be installed: an SDK looks for them,
    has no need of them, and takes seconds to import them."""


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A node the back end cannot take, and why, as the back end says it."""

    node: str
    op_type: str
    domain: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BuildJob:
    """What a worker needs to build an artifact: the legalised ONNX `model`, an empty folder.

    `calibration` is for a back end that quantises by itself: a tensor folder for each sample.
    """

    model: Path
    output: Path
    target: Target
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    calibration: tuple[Path, ...] = ()
    report: Callable[..., None] | None = None
    """Called with what the driver is to be told: `report(phase="tuning", done=3, total=128)`, or
    `report(phase="linking")` for what has no steps."""
    name: str = "model"
    """The model's, an identifier: what the symbols of an artifact begin with."""
    tuning: TuningOptions = field(default_factory=TuningOptions)
    """Which records of measured kernels a back end that has such may use."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a build left in its folder.

    `entry` is the file that a loader opens, `files` all of them, relative to the folder.
    `notes` are facts worth keeping in the manifest (JSON values).
    """

    entry: str
    files: tuple[str, ...]
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunJob:
    """What a worker needs to open an artifact. `threads` of 0 leaves the choice to the runtime."""

    entry: Path
    target: Target
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    threads: int = 1
    remote: str = ""
    """The device elsewhere that it is to run on, as the user names it; "" for this machine."""


@dataclass(frozen=True, slots=True)
class LoaderSpec:
    """How a loader for this back end is compiled.

    `adaptor` names `templates/cpp/adaptors/<adaptor>.cpp` and
    `templates/cmake/adaptors/<adaptor>.cmake`. `sdk` returns the CMake cache entries that point
    at an SDK found on this machine, and raises E501 with the remedy where there is none.
    `library_path` returns the folders that the runtime's shared libraries lie in.
    """

    adaptor: str
    sdk: Callable[[], dict[str, str]]
    library_path: Callable[[], list[Path]]
    headers: str = ""
    """The folder in `templates/cpp/adaptors` that its headers are in; "" is the adaptor's name."""
    templates: Path | None = None
    """The folder in place of `templates/`, for a back end of another distribution; None is ours."""


class BackEnd(Protocol):
    """What the module of a back end offers; `infc.targets.abilities` has what it may offer too."""

    NAME: str
    SUMMARY: str
    EXTRA: str
    """The extra that installs it: `pip install 'infc[EXTRA]'`."""
    DISTRIBUTIONS: tuple[str, ...]
    """PyPI names whose versions go into the manifest; the first decides whether it is there."""
    MODULES: tuple[str, ...]
    """Modules that must be importable in the worker's environment."""
    OPTIONS: Mapping[str, str]
    """Option name to one line of help; anything else after `-X` is refused."""
    PRECISIONS: tuple[Precision, ...]
    MIN_OPSET: int
    """The graph is converted up to this opset of the default domain where it is below."""
    THREADS: tuple[int, ...]
    """The numbers of threads that every artifact is verified with."""
    LOADER: LoaderSpec

    def worker(self, target: Target) -> Worker:
        """Where the workers for `target` run: `Worker(target.toolchain)` for most.

        Raises `InfcError` where something is missing that no toolchain brings.
        """
        ...

    def require_options(self, target: Target) -> None:
        """Raise E205 for a value in `target.options` that makes no sense (`choice` does).

        Runs in the driver before anything is read; the names are checked already.
        """
        ...

    def legalize(self, model: ir.Model, target: Target) -> None:
        """Rewrite `model`, a clone of the neutral graph, into what the back end takes."""
        ...

    def check(self, model: Path, target: Target) -> Sequence[Unsupported]:
        """Return every node the back end cannot take. Runs in a worker."""
        ...

    def build(self, job: BuildJob) -> Artifact:
        """Build the artifact. Runs in a worker; raises `BackEndError` for the SDK's refusals."""
        ...

    def open(self, job: RunJob) -> Runner:
        """Load an artifact and return the function that runs it. Runs in a worker."""
        ...

    def device(self, target: Target) -> str:
        """The device that `open` runs on here: the target's, or what stands in where it is absent.

        Runs in a worker.
        """
        ...


class BackEndError(Exception):
    """The back end's own compiler or runtime refused; the message is the vendor's."""

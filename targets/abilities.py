"""What a back end may be able to do besides; where it says nothing, it cannot.

samples    it quantises by itself: how many calibration samples its converter wants, at most
SEAL       its artifacts can be encrypted, and how
release    its artifacts say which release of its SDK wrote them
absence    its artifacts may not run on this machine at all, and why
cross      its artifacts may be for another kind of machine: which, and what compiles and runs there
OWN_OPERATORS  its legalised graphs have operators that are nobody else's
tools      its artifacts are compiled by programs that may not be here
tune       it can measure kernels to find faster ones, and uses what it found when it builds
PEER       the back end whose time for the same model is told beside its artifact's
deferral   its artifacts may have to be built on the device: why; with `spec_of`, `release_of` and
           `BUILDER`, what they are built with (`Deferring`)
remote     its artifacts can be run on a device elsewhere: checks how the user names that
loader     its artifacts are not all opened by one adaptor: which one opens which entry
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infc.signature import TensorSpec
from infc.targets import BackEnd, LoaderSpec, Target


@dataclass(frozen=True, slots=True)
class Seal:
    """How the artifact of a back end is encrypted where the user asks for it.

    `wanted` says whether a target asks for it. `close` encrypts the bytes of the file that a
    loader opens, and `open` undoes it; both run in the driver, and raise E706 for a key that is
    missing or wrong. `secrets` are the options that say where the key is (`Target.secrets`).
    """

    wanted: Callable[[Target], bool]
    close: Callable[[bytes, Target], bytes]
    open: Callable[[bytes, Target], bytes]
    secrets: frozenset[str] = frozenset()


def seal_of(end: BackEnd) -> Seal | None:
    """How artifacts of `end` are encrypted, None where they cannot be."""
    seal: Seal | None = getattr(end, "SEAL", None)
    return seal


def samples_of(end: BackEnd) -> Callable[[Target], int] | None:
    """For a back end that makes INT8 of the float graph: how many samples a target wants at most.

    None where Q/DQ are written into the graph instead. 0 is for INT8 without any samples.
    """
    wanted: Callable[[Target], int] | None = getattr(end, "samples", None)
    return wanted


def absence_of(end: BackEnd, target: Target) -> str:
    """Why no artifact for `target` can be run on this machine; "" where one can, as a rule."""
    absence: Callable[[Target], str] | None = getattr(end, "absence", None)
    return absence(target) if absence else ""


@dataclass(frozen=True, slots=True)
class Cross:
    """The kind of machine that artifacts are for, and how a loader is compiled and run for it.

    `triple` is Debian's, `machine` what Linux calls the architecture. `compiler` is the command of
    a C++ compiler, or raises E501; `emulator` what starts a program here, nothing where it starts
    by itself.
    """

    triple: str
    machine: str
    foreign: bool
    compiler: Callable[[], Sequence[str]]
    emulator: Callable[[], Sequence[str]]
    hosted: bool = True
    """Whether it has an operating system: a loader needs files and memory."""


def cross_of(end: BackEnd, target: Target) -> Cross | None:
    """Where the artifacts of `target` run, None where that is a machine like this one."""
    cross: Callable[[Target], Cross | None] | None = getattr(end, "cross", None)
    return cross(target) if cross else None


def own_operators_of(end: BackEnd) -> bool:
    """Whether no one but the back end can run what its `legalize` leaves."""
    return bool(getattr(end, "OWN_OPERATORS", False))


def require_tools(end: BackEnd, target: Target) -> None:
    """Refuse a target that a program for is missing, before anything is built.

    Raises:
        InfcError: E501, with what to install.
    """
    tools: Callable[[Target], None] | None = getattr(end, "tools", None)
    if tools is not None:
        tools(target)


def loader_of(end: BackEnd, entry: str) -> LoaderSpec:
    """How the loader of an artifact is compiled whose file to open is called `entry`."""
    loader: Callable[[str], LoaderSpec] | None = getattr(end, "loader", None)
    return loader(entry) if loader else end.LOADER


def is_tunable(end: BackEnd) -> bool:
    """Whether `end` measures kernels: it has `tune(job: BuildJob)`, which runs in a worker."""
    return hasattr(end, "tune")


def peer_of(end: BackEnd) -> str:
    """The back end whose time is told beside that of an artifact of `end`; "" for none."""
    return str(getattr(end, "PEER", ""))


def remote_of(end: BackEnd) -> Callable[[str], object] | None:
    """What checks the name of a device elsewhere, None where `end` runs artifacts only here.

    It raises E110.
    """
    remote: Callable[[str], object] | None = getattr(end, "remote", None)
    return remote


def release_of(end: BackEnd, entry: Path) -> str | None:
    """The version of the SDK that wrote the artifact `entry`, None where it does not say."""
    release: Callable[[Path], str] | None = getattr(end, "release", None)
    return release(entry) if release else None


@dataclass(frozen=True, slots=True)
class Deferring:
    """How a back end leaves the building to the device.

    `reason` says why an artifact cannot be built here, None where it can. `spec_of` is what the
    program `builder`, which drives the Python module `module`, is told; `release_of` the release of
    the library that the graph is for.
    """

    reason: Callable[[Target], str | None]
    spec_of: Callable[[Target, Sequence[TensorSpec], Sequence[TensorSpec]], Mapping[str, Any]]
    builder: Path
    module: str
    release_of: Callable[[Target], str]


def deferral_of(end: BackEnd) -> Deferring | None:
    """How artifacts of `end` are built on the device, None where they never are."""
    reason: Callable[[Target], str | None] | None = getattr(end, "deferral", None)
    if reason is None:
        return None
    module: Any = end
    return Deferring(
        reason,
        module.spec_of,
        module.BUILDER,
        end.MODULES[0],
        module.release_of,
    )

"""Toolchains: the environments, other than infc's own, that back ends run in.

A toolchain that infc knows is data, in `targets/toolchains`: `<name>.toml` says what it is and
which interpreter it needs, `<name>.<platform>.lock` (see `infc.workers.locks`) every package of
it. A user's own is a lock. Installed, by `infc toolchain install` and nothing else, it is

    $INFC_HOME/toolchains/NAME -> .NAME.<lock>.<random>
    $INFC_HOME/toolchains/.NAME.<lock>.<random>/   a venv, `toolchain.json`, `toolchain.lock`

A venv's scripts hold its path, so the folder is made where it stays, and published by the link.
Looking one up reads that one JSON file and starts nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from infc import targets
from infc.diagnostics import InfcError, did_you_mean, fail
from infc.places import toolchain_folder
from infc.workers.locks import NAME, digest, this_platform

SCHEMA = 1
RECORD, LOCK = "toolchain.json", "toolchain.lock"
OWN_SOURCE = (3, 11)
"""The Python that infc itself needs."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """One that infc knows: `python` is a version, `modules` must be importable in it."""

    name: str
    summary: str
    python: str
    requirements: tuple[str, ...]
    modules: tuple[str, ...]

    @property
    def lock(self) -> Path | None:
        """The lock for the running machine, None where there is none."""
        path = _shipped() / f"{self.name}.{this_platform()}.lock"
        return path if path.is_file() else None


@dataclass(frozen=True, slots=True)
class Environment:
    """An installed toolchain.

    `folder` is the venv itself, not the link to it; `python` the interpreter to start;
    `python_version` its full version. `packages` maps names in PEP 503's normal form to versions,
    `bytes` counts what the files take. `own_lock` is set where the user gave the lock.
    """

    name: str
    folder: Path
    python: Path
    python_version: str
    lock_sha256: str
    packages: Mapping[str, str]
    bytes: int
    own_lock: bool

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep the folder where it is: whoever removes or replaces the toolchain leaves it there.

        What is left there is removed by the next `infc toolchain` command about that name.

        Raises:
            InfcError: E501 where it has just been removed.
        """
        try:
            descriptor = os.open(self.folder / RECORD, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _not_installed(self.name) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if not (self.folder / RECORD).exists():
                raise _not_installed(self.name)
            yield
        finally:
            os.close(descriptor)


class State(StrEnum):
    """What a toolchain is like here."""

    READY = "ready"
    MISSING = "not installed"
    OUTDATED = "outdated"
    """Installed from another lock than the one that this infc has."""
    DAMAGED = "damaged"
    """Its record or its interpreter is gone."""
    UNAVAILABLE = "no lock for this platform"


def folder() -> Path:
    """Where toolchains are installed."""
    return toolchain_folder("any").parent


def known() -> Mapping[str, Toolchain]:
    """The toolchains that infc has locks of, by name."""
    return _known(_shipped())


def _shipped() -> Path:
    return Path(targets.__file__).with_name("toolchains")


@cache
def _known(place: Path) -> Mapping[str, Toolchain]:
    out = {}
    for path in sorted(place.glob("*.toml")):
        row = tomllib.loads(path.read_text(encoding="utf-8"))
        lists = tuple(row["requirements"]), tuple(row["modules"])
        out[path.stem] = Toolchain(path.stem, row["summary"], row["python"], *lists)
    return out


def find(name: str) -> Environment | None:
    """The installed toolchain called `name`, of whatever lock, or None where it cannot be used."""
    if not NAME.fullmatch(name):
        return None
    try:
        place = (folder() / name).resolve(strict=True)
        record = json.loads((place / RECORD).read_text(encoding="utf-8"))
        environment = _environment(name, place, record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return environment if os.access(environment.python, os.X_OK) else None


def _environment(name: str, place: Path, record: Mapping[str, Any]) -> Environment:
    if record["schema"] != SCHEMA or record["name"] != name:
        raise ValueError("a record of something else")
    return Environment(
        name,
        place,
        place / "bin" / "python",
        str(record["python_version"]),
        str(record["lock_sha256"]),
        dict(sorted(record["packages"].items())),
        int(record["bytes"]),
        bool(record["own_lock"]),
    )


def require(name: str, *, own_source: bool = False) -> Environment:
    """The installed toolchain called `name`; where `own_source`, one that can run infc's source.

    Raises:
        InfcError: E501 where it is not installed, or its Python is too old, E507 where it is out
            of date or damaged, each with the command that helps.
    """
    found, environment = state(name), find(name)
    if found is State.READY and environment is not None:
        if own_source and not runs_own_source(environment.python_version):
            least = ".".join(map(str, OWN_SOURCE))
            raise fail(
                "E501",
                f"toolchain `{name}` has Python {environment.python_version}, and the workers of "
                f"this back end need {least} or later",
                help=f"infc toolchain lock {name} --python {least} REQUIREMENT... -o FILE",
            )
        return environment
    if found in (State.OUTDATED, State.DAMAGED):
        what = "is of an older lock than this infc has" if found is State.OUTDATED else found
        raise fail("E507", f"toolchain `{name}` {what}", help=f"infc toolchain install {name}")
    raise _not_installed(name)


def _not_installed(name: str) -> InfcError:
    row = known().get(name)
    if row is not None and row.lock is None:
        return no_lock(row)
    hint = did_you_mean(name, {*known(), *installed()}) if row is None else ""
    words = f"infc toolchain install {name}" + (" --lock FILE" if row is None else "")
    return fail("E501", f"toolchain `{name}` is not installed", help=hint + words)


def runs_own_source(python: str) -> bool:
    """Whether infc's own source runs in that version: a worker then needs no script of its own."""
    return tuple(map(int, python.split(".")[:2])) >= OWN_SOURCE


def no_lock(toolchain: Toolchain) -> InfcError:
    """E501 for a platform that no lock is shipped for."""
    name = toolchain.name
    return fail(
        "E501",
        f"toolchain `{name}` has no lock for {this_platform()}",
        help=f"where its packages exist: infc toolchain lock {name} -o my.lock\n"
        f"infc toolchain install {name} --lock my.lock",
    )


def unknown(name: str) -> InfcError:
    """E110 for a name that is neither known nor installed."""
    hint = did_you_mean(name, {*known(), *installed()})
    help = f"{hint}`infc toolchain list` shows all; `infc toolchain lock` begins one of your own"
    return fail("E110", f"there is no toolchain `{name}`", help=help)


def installed() -> tuple[str, ...]:
    """The names of what is installed, in whatever state, sorted."""
    try:
        entries = list(folder().iterdir())
    except OSError:
        return ()
    return tuple(sorted(p.name for p in entries if p.is_symlink() and not p.name.startswith(".")))


def state(name: str) -> State:
    """What the toolchain called `name` is like here; `MISSING` also where nobody knows it."""
    row, environment = known().get(name), find(name)
    if environment is None:
        if (folder() / name).is_symlink():
            return State.DAMAGED
        return State.UNAVAILABLE if row is not None and row.lock is None else State.MISSING
    if row is None or environment.own_lock or row.lock is None:
        return State.READY
    current = digest(row.lock.read_text(encoding="utf-8")) == environment.lock_sha256
    return State.READY if current else State.OUTDATED


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of `infc toolchain list`: one that is known, installed or both."""

    name: str
    summary: str
    state: State
    python: str
    environment: Environment | None

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        there = self.environment
        return {
            "name": self.name,
            "summary": self.summary,
            "state": str(self.state),
            "python": self.python,
            "path": str(folder() / self.name) if there else None,
            "bytes": there.bytes if there else None,
            "lock_sha256": there.lock_sha256 if there else None,
            "own_lock": there.own_lock if there else None,
            "packages": dict(there.packages) if there else {},
        }


def entry(name: str) -> Entry:
    """What is known about `name`, and what of it is here."""
    row, environment = known().get(name), find(name)
    summary = row.summary if row else "a lock of your own"
    python = environment.python_version if environment else row.python if row else ""
    return Entry(name, summary, state(name), python, environment)


def entries() -> tuple[Entry, ...]:
    """All that infc has locks of, then the user's own."""
    return tuple(entry(name) for name in dict.fromkeys((*known(), *installed())))

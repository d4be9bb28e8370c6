"""Installing and removing toolchains, so that no moment of it can be seen half-made.

The environment is built in a folder that nobody knows, checked, given its record, and published
by replacing one symbolic link. One process at a time works on a name (`flock` on `.NAME.lock`,
which the children inherit: a lock is free only when the last of them is gone). What an interrupted
process left is a folder that no link names; whoever comes next removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from infc.diagnostics import fail
from infc.places import data_folder
from infc.workers import environments, interpreters, toolchains
from infc.workers.locks import Lock, digest, load, require_name, this_platform
from infc.workers.toolchains import LOCK, RECORD, SCHEMA, Environment

Say = Callable[[str, str], None]
"""Called with the name of a toolchain and what is being done to it; a `ProgressLine` is one."""
LEFT = re.compile(r"\.(?P<name>.+)\.(?:[0-9a-f]{12}|link)\.[0-9a-f]{8}")
"""Folders of environments, and links to them that were not put in place."""


@dataclass(frozen=True, slots=True)
class Installed:
    """The environment there is now, and whether this call made it."""

    environment: Environment
    changed: bool


def install(
    name: str,
    lock: Path | None = None,
    *,
    force: bool = False,
    say: Say = lambda name, step: None,
) -> Installed:
    """Install the toolchain `name` from `lock`, else from infc's own, else from its last one.

    Does nothing where that lock is installed already, unless `force` is set.

    Raises:
        InfcError: E110 for an impossible or unknown name, E501 where no lock is for this platform,
            E508 without the interpreter, E509 where pip fails, E510 for what is no lock.
    """
    require_name(name)
    given, text = _lock_for(name, lock)
    own = lock is not None or name not in toolchains.known()
    place = toolchains.folder()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with _only_one(name, say) as held:
            _remove_left(name)
            now = toolchains.find(name)
            if now is not None and now.lock_sha256 == digest(text) and not force:
                return Installed(now, False)
            with _workshop(place, name, text) as workshop:
                _make(workshop, given, text, own, held, say)
                _publish(workshop, place / name)
            _remove_left(name)
    except OSError as error:
        raise fail(
            "E509",
            f"toolchain `{name}` cannot be installed in {place}: {error.strerror or error}",
            help="make room there, or set INFC_HOME to another folder",
        ) from error
    return Installed(toolchains.require(name), True)


def remove(name: str) -> bool:
    """Remove the toolchain `name`; return whether its files are gone, and not in use.

    A worker that runs in it goes on; the files are then left to the next call of this or `install`.

    Raises:
        InfcError: E110 where nobody knows it, E501 where it is not installed, E509 where it
            may not be removed.
    """
    link = toolchains.folder() / name
    if name not in toolchains.installed():
        if name not in toolchains.known():
            raise toolchains.unknown(name)
        help = "`infc toolchain list` shows what is"
        raise fail("E501", f"toolchain `{name}` is not installed", help=help)
    try:
        with _only_one(name):
            link.unlink(missing_ok=True)
            return _remove_left(name)
    except OSError as error:
        what = f"toolchain `{name}` cannot be removed: {error.strerror or error}"
        raise fail("E509", what, help=f"its folder is {link}") from error


def _lock_for(name: str, given: Path | None) -> tuple[Lock, str]:
    """The lock to install, with its text.

    Raises:
        InfcError: see `install`.
    """
    row = toolchains.known().get(name)
    path = given
    if path is None and row is not None:
        path = row.lock
        if path is None:
            raise toolchains.no_lock(row)
    if path is None:
        if name not in toolchains.installed():
            raise toolchains.unknown(name)
        path = toolchains.folder() / name / LOCK
        if not path.is_file():
            help = f"infc toolchain install {name} --lock FILE"
            raise fail("E507", f"toolchain `{name}` is damaged, and its lock with it", help=help)
    lock, text = load(path)
    for what, here, there in (
        ("toolchain", name, lock.name),
        ("platform", this_platform(), lock.platform),
    ):
        if here != there:
            raise fail(
                "E510",
                f"`{path.name}` is a lock for {what} `{there}`, not `{here}`",
                help=f"infc toolchain lock {name} REQUIREMENT... -o FILE makes one for this",
            )
    return lock, text


@contextlib.contextmanager
def _only_one(name: str, say: Say | None = None) -> Iterator[int]:
    """Be the only process that works on `name`; yields the descriptor that holds the lock."""
    path = toolchains.folder() / f".{name}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if say is not None:
                say(name, "waiting for another process that installs it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _workshop(place: Path, name: str, text: str) -> Iterator[Path]:
    """A folder to build in; gone afterwards unless the link of `name` leads to it."""
    workshop = place / f".{name}.{digest(text)[:12]}.{secrets.token_hex(4)}"
    workshop.mkdir()
    try:
        yield workshop
    finally:
        if _target(place / name) != workshop.name:
            shutil.rmtree(workshop, ignore_errors=True)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def _make(workshop: Path, lock: Lock, text: str, own: bool, held: int, say: Say) -> None:
    """Build the environment, and write its record last."""
    interpreter = interpreters.find(lock.python)
    logs = data_folder() / "log"
    logs.mkdir(exist_ok=True)
    (workshop / LOCK).write_text(text, encoding="utf-8")
    log = logs / f"toolchain-{lock.name}.log"
    builder = environments.Builder(lock.name, workshop, log, say, inherited=(held,))
    builder.create(interpreter.path)
    builder.install(workshop / LOCK)
    builder.require(lock.packages, lock.imports)
    record = {
        "schema": SCHEMA,
        "name": lock.name,
        "python_version": interpreter.version,
        "lock_sha256": digest(text),
        "own_lock": own,
        "packages": dict(sorted(lock.packages.items())),
        "bytes": sum(p.lstat().st_size for p in workshop.rglob("*") if not p.is_dir()),
    }
    (workshop / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _publish(workshop: Path, link: Path) -> None:
    """Point `link` at the finished `workshop`, beside it, in one step."""
    new = link.with_name(f".{link.name}.link.{secrets.token_hex(4)}")
    new.symlink_to(workshop.name)
    try:
        new.replace(link)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def _remove_left(name: str) -> bool:
    """Remove what no link names: of `name`, whose lock is held, and where nobody is at work.

    Returns whether nothing of `name` is left.
    """
    place, clean = toolchains.folder(), True
    for path in sorted(place.iterdir()):
        match = LEFT.fullmatch(path.name)
        if match is None or _target(place / match["name"]) == path.name:
            continue
        if match["name"] == name:
            clean = _discard(path) and clean
        else:
            _discard_of_another(path, match["name"])
    return clean


def _discard_of_another(path: Path, name: str) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path.with_name(f".{name}.lock"), os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _target(path.with_name(name)) != path.name:
                _discard(path)
        finally:
            os.close(descriptor)


def _discard(path: Path) -> bool:
    """Delete an environment that nobody holds (`Environment.held`), its record first."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
        return True
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path / RECORD, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (path / RECORD).unlink()
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
    shutil.rmtree(path, ignore_errors=True)
    return not path.exists()

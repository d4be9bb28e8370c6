"""The bundle on disk: its hashes, and a completion that happens or does not.

    .finish/lock          held by the process that works on the bundle
    .finish/...           the workshop: engine, timing cache, what an interrupted run has left
    .finish/new/          the files of the finished bundle, being written
    .finish/commit/       the same, whole: they are moved to their places, the manifest last

The one rename from `new` to `commit` decides. Whoever finds `commit` moves the rest to its place,
so that a bundle is never left in between for good. Beside the engine lies its hash, which the
loader holds it to: that was generated before there was an engine.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .device_error import DeviceError
from .producing import BUILT, PLAN, TIMING_CACHE, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Pages = Callable[[Mapping[str, Any]], Mapping[str, str]]
    """Of a manifest: the files for people that are made from it, path to text."""

MANIFEST = "manifest.json"
WORKSHOP = ".finish"
_IN_PLACE = "a bundle is finished in its own folder: copy it to where that may be written"
_WORTH_KEEPING = (PLAN, TIMING_CACHE, "commit")
RESULTS = "finished.json"
"""What was measured: it differs from build to build, and no hash in the manifest is of it."""


@contextlib.contextmanager
def held(bundle: Path) -> Iterator[Path]:
    """The workshop of `bundle`, locked; a completion that was interrupted is done first.

    It is gone afterwards, unless there is something in it that serves the next run.

    Raises:
        DeviceError: busy, unwritable.
    """
    workshop = bundle / WORKSHOP
    with _locked(workshop):
        roll_forward(bundle)
        shutil.rmtree(str(workshop / "new"), ignore_errors=True)
        try:
            yield workshop
        finally:
            if not any((workshop / name).exists() for name in _WORTH_KEEPING):
                shutil.rmtree(str(workshop), ignore_errors=True)


@contextlib.contextmanager
def _locked(workshop: Path) -> Iterator[None]:
    """Make the workshop and hold its lock.

    Raises:
        DeviceError: busy, unwritable.
    """
    while True:
        try:
            workshop.mkdir(exist_ok=True)
            lock = (workshop / "lock").open("w")
        except FileNotFoundError:
            continue  # the one before has just removed it
        except OSError as error:
            message = f"{workshop.parent} cannot be written: {error.strerror}"
            raise DeviceError("unwritable", message, _IN_PLACE) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                current = os.path.samestat(os.fstat(lock.fileno()), (workshop / "lock").stat())
            except FileNotFoundError:
                continue
            except OSError as error:
                message = f"another process is finishing {workshop.parent}"
                raise DeviceError("busy", message) from error
            if current:
                yield
                return


def read_manifest(bundle: Path) -> dict[str, Any]:
    """The manifest of a bundle that is, or was, deferred.

    Raises:
        DeviceError: damaged.
    """
    try:
        manifest: dict[str, Any] = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
        there = isinstance(manifest["on_device"], dict) and isinstance(manifest["files"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        there = False
    if not there:
        raise DeviceError(
            "damaged", f"{bundle} is not a bundle whose engine is built on the device"
        )
    return manifest


def check_hashes(bundle: Path, manifest: Mapping[str, Any]) -> None:
    """Hold every file to the hash that the manifest records.

    Raises:
        DeviceError: damaged.
    """
    for name, row in manifest["files"].items():
        if os.path.isabs(name) or ".." in Path(name).parts:  # noqa: PTH117
            raise DeviceError("damaged", f"the manifest names a file outside the bundle: {name}")
        file = bundle / name
        if not file.is_file() or sha256_of(file) != row["sha256"]:
            raise DeviceError("damaged", f"{file} is missing or damaged", "copy the bundle again")


def complete(
    bundle: Path,
    manifest: Mapping[str, Any],
    result: Mapping[str, Any],
    pages: Pages = lambda manifest: {},
) -> str:
    """Make the engine in the workshop the bundle's, and return the new state.

    `result` is that of `produce`. The state is `ready` where the engine was verified, or where
    the bundle was compiled without proof and the target's own library built it.

    Raises:
        DeviceError: disk.
    """
    workshop = bundle / WORKSHOP
    new, entry = workshop / "new", manifest["artifact"]["entry"]
    shutil.rmtree(str(new), ignore_errors=True)
    document = finished_manifest(manifest, result)
    try:
        _put(new / entry, workshop / PLAN)
        files = {name: row for name, row in manifest["files"].items() if name != RESULTS}
        files[entry] = _row(new / entry)
        digest = entry + ".sha256"
        line = f"{files[entry]['sha256']}  {Path(entry).name}\n"
        (new / digest).write_text(line, encoding="utf-8")
        files[digest] = _row(new / digest)
        if (workshop / TIMING_CACHE).is_file():
            _put(new / TIMING_CACHE, workshop / TIMING_CACHE)
            files.pop(TIMING_CACHE, None)
        for name, text in pages(dict(document, files=files)).items():
            (new / name).write_text(text, encoding="utf-8")
            files[name] = _row(new / name)
        _write_json(new / RESULTS, measured(result))
        _write_json(new / MANIFEST, dict(document, files=dict(sorted(files.items()))))
        for path in new.rglob("*"):
            _sync(path)
        new.rename(workshop / "commit")
    except OSError as error:
        shutil.rmtree(str(new), ignore_errors=True)
        message = f"the engine cannot be put into {bundle}: {error.strerror}"
        raise DeviceError("disk", message, "make room and run this again") from error
    roll_forward(bundle)
    for name in (PLAN, BUILT, TIMING_CACHE):
        with contextlib.suppress(FileNotFoundError):
            (workshop / name).unlink()
    state: str = document["state"]
    return state


def roll_forward(bundle: Path) -> None:
    """Move what a completion has decided on to its place; nothing where there is none."""
    commit = bundle / WORKSHOP / "commit"
    if not commit.is_dir():
        return
    files = [path for path in sorted(commit.rglob("*")) if path.is_file()]
    for path in sorted(files, key=lambda p: p.name == MANIFEST):
        place = bundle / path.relative_to(commit)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    _sync(bundle)
    shutil.rmtree(str(commit))


def finished_manifest(manifest: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with the engine in it, but for the hashes."""
    proof, library, facts = manifest["verification"], result["library"], result["facts"]
    own = library["module"] == manifest["on_device"]["module"]
    verdict = result["verdict"] if own or result["verdict"] == "skipped" else "not verified"
    proof = {k: v for k, v in proof.items() if k not in ("verdict", "reason", "artifact")}
    proof["verdict"] = verdict
    if verdict == "passed":
        proof["artifact"] = result["comparison"]
    elif verdict == "not verified":
        proof["reason"] = result["reason"]
    entry = manifest["artifact"]["entry"]
    kept = ("profiles", "layers", "module", "version")
    notes = dict(manifest["artifact"]["notes"], built={k: facts[k] for k in kept if k in facts})
    notes["versions"] = {library["module"]: library["version"]}
    if result["gpu"] is not None:
        notes["gpu"] = result["gpu"]
    return dict(
        manifest,
        state="ready" if own and verdict in ("passed", "skipped") else "built",
        artifact={"entry": entry, "files": [entry], "notes": notes},
        toolchain=dict(manifest["toolchain"], **notes["versions"]),
        verification=dict(sorted(proof.items(), key=lambda row: row[0] != "verdict")),
    )


def measured(result: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from build to build."""
    return {key: result[key] for key in ("key", "facts", "latency", "gpu")}


def seed(bundle: Path, manifest: Mapping[str, Any]) -> None:
    """Give the workshop what the bundle has: its timing cache, and an engine to be verified."""
    workshop = bundle / WORKSHOP
    cache = bundle / TIMING_CACHE
    if cache.is_file() and not (workshop / TIMING_CACHE).exists():
        shutil.copyfile(str(cache), str(workshop / TIMING_CACHE))
    engine = bundle / manifest["artifact"]["entry"]
    if manifest["state"] != "built" or (workshop / BUILT).exists() or not engine.is_file():
        return
    with contextlib.suppress(OSError, ValueError, KeyError):
        known = json.loads((bundle / RESULTS).read_text(encoding="utf-8"))
        _put(workshop / PLAN, engine)
        _write_json(workshop / BUILT, {"key": known["key"], "facts": known["facts"]})


def _put(place: Path, file: Path) -> None:
    """Copy, by a second name for the same bytes where that is possible."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(str(file), str(place))
    except OSError:
        shutil.copyfile(str(file), str(place))


def _row(file: Path) -> dict[str, Any]:
    return {"sha256": sha256_of(file), "bytes": file.stat().st_size}


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _sync(path: Path) -> None:
    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

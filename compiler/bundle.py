"""Bundles: the manifest, the hashes, and a publish that either happens or does not.

Everything a command writes goes first into one *stage*, a hidden folder in the output directory;
a finished bundle is renamed from there into place, exchanging places with an older one in one
system call. A stage that a killed process left behind is recognised by its lock, which died with
the process, and removed by the next command.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infc.diagnostics import InfcError, fail
from infc.signature import TensorSpec

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
STAGE_PREFIX = ".infc-stage-"
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG)
_TAKEN_WORDS = (
    # headers of C and POSIX, which `name.h` would hide
    "assert complex ctype errno fenv float inttypes iso646 limits locale math pthread setjmp "
    "signal stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string "
    "strings tgmath threads time uchar unistd wchar wctype dlfcn fcntl malloc memory poll sched "
    # CMake's own targets, the loader's own files and libraries
    "all clean edit_cache help install package rebuild_cache test adaptor bundle_info main "
    "c dl infc infc_adaptor infc_flags infc_harness infc_sdk m rt std stdc mindspore onnxruntime "
    "openvino torch"
)
_TAKEN_NAMES = frozenset(_TAKEN_WORDS.split())
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@dataclass(frozen=True, slots=True)
class Bundle:
    """A published bundle: its folder and its manifest, parsed."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The C identifier that the loader's functions begin with."""
        return str(self.manifest["name"])

    @property
    def entry(self) -> Path:
        """The file a loader opens."""
        return self.path / str(self.manifest["artifact"]["entry"])

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs, in the order of the loader's arguments."""
        return tuple(TensorSpec.from_json(row) for row in self.manifest["inputs"])

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs, in the order of the loader's arguments."""
        return tuple(TensorSpec.from_json(row) for row in self.manifest["outputs"])


def open_bundle(path: Path, *, check_hashes: bool = True) -> Bundle:
    """Read the bundle in the folder `path`.

    Raises:
        InfcError: E702 where there is no manifest, it is of another version or does not fit the
            schema, or a file is missing or does not have the hash that the manifest records.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        version = manifest["schema_version"]
        rows = dict(manifest["files"])
    except OSError as error:
        raise fail(
            "E702",
            f"`{path}` is not a bundle: {MANIFEST} cannot be read",
            notes=[error.strerror or str(error)],
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise fail("E702", f"`{path / MANIFEST}` is not a manifest") from error
    if version != SCHEMA_VERSION:
        raise fail(
            "E702",
            f"`{path}` has manifest version {version}; this infc reads {SCHEMA_VERSION}",
            help="compile the model again",
        )
    check_schema(path / MANIFEST, manifest)
    for file, row in rows.items() if check_hashes else ():
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise fail("E702", f"`{path / MANIFEST}` names a file outside the bundle: {file}")
        if not (path / file).is_file() or sha256_of(path / file) != row["sha256"]:
            raise fail(
                "E702", f"`{path / file}` is missing or damaged", help="compile the model again"
            )
    return Bundle(path, manifest)


def check_schema(path: Path, manifest: Any) -> None:
    """What reads a manifest further on may rely on its shape, whoever wrote it.

    Raises:
        InfcError: E702.
    """
    from importlib.resources import files

    from jsonschema import Draft202012Validator

    schema = json.loads((files("infc") / "manifest.schema.json").read_text(encoding="utf-8"))
    error = next(Draft202012Validator(schema).iter_errors(manifest), None)
    if error is not None:
        raise fail("E702", f"`{path}` is damaged at {error.json_path}: {error.message[:200]}")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def identifier(text: str) -> str:
    """`text` as a lower-case C identifier: `version-RFB-320` becomes `version_rfb_320`.

    The loader has files and a CMake target of that name: those of C and CMake are avoided.
    """
    name = re.sub(r"\W+", "_", text.lower(), flags=re.ASCII).strip("_") or "model"
    return f"m_{name}" if name[0].isdigit() or name in _TAKEN_NAMES else name


FileTable = Mapping[str, Mapping[str, Any]]
"""Path in the bundle to its row: `{"sha256": ..., "bytes": ...}`."""


def file_table(folder: Path, known: FileTable | None = None) -> FileTable:
    """The row of every file below `folder`, sorted by path; those in `known` are not read again."""
    known = known or {}
    paths = (p for p in sorted(folder.rglob("*")) if p.is_file())
    named = ((path.relative_to(folder).as_posix(), path) for path in paths)
    return {
        name: known.get(name) or {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        for name, path in named
    }


def write_manifest(
    folder: Path, fields: Mapping[str, Any], known: FileTable | None = None
) -> dict[str, Any]:
    """Write the manifest of `folder` and return it; files with a row in `known` stay unread."""
    files = file_table(folder, known)
    document = {"schema_version": SCHEMA_VERSION, **fields, "files": files}
    (folder / MANIFEST).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return document


@contextlib.contextmanager
def staging(output: Path) -> Iterator[Path]:
    """Yield an empty folder in `output` that is gone afterwards, whatever happens.

    So is `output` itself where this made it and nothing was published there.

    Raises:
        InfcError: E701 where `output` cannot be made or written, or the disk fills up.
    """
    made = [p for p in (output, *output.parents) if not p.exists()]
    try:
        output.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(output)
        stage = Path(tempfile.mkdtemp(prefix=STAGE_PREFIX, dir=output))
    except OSError as error:
        raise unwritable(output, error) from error
    try:
        with (stage / "lock.new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Nobody may find it before it is held, and take the stage for an abandoned one.
            (stage / "lock.new").rename(stage / "lock")
            with full_disk(output):
                yield stage
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise unwritable(output, error) from error
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: something was published
            for folder in made:
                folder.rmdir()


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Take a full disk for the cause of what fails: a worker reports whatever it stumbled over.

    Raises:
        OSError: ENOSPC, in place of an InfcError.
    """
    try:
        yield
    except InfcError as error:
        if shutil.disk_usage(folder).free < 1 << 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise


def unwritable(
    output: Path, error: OSError, help: str = "choose another folder with `-o`, or make room"
) -> InfcError:
    """E701 for `error`."""
    return fail(
        "E701",
        f"`{output}` cannot be written: {error.strerror or error}",
        help=help,
    )


def _remove_abandoned(output: Path) -> None:
    """Remove the stages whose process is gone."""
    for stage in output.glob(f"{STAGE_PREFIX}*"):
        try:
            with (stage / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(stage, ignore_errors=True)
        except FileNotFoundError:
            # Killed between making the folder and its lock: its age tells it from a new one.
            with contextlib.suppress(OSError):
                if _age_s(stage) > 60:
                    shutil.rmtree(stage, ignore_errors=True)
        except OSError:
            continue


def _age_s(path: Path) -> float:
    import time

    return time.time() - path.stat().st_mtime


def require_replaceable(destination: Path, file: str = MANIFEST) -> None:
    """Refuse to publish where something is that no infc published: it may be somebody's work.

    An empty folder, and one with `file` in it, may be replaced.

    Raises:
        InfcError: E701 where something else is there, or the name is impossible.
    """
    try:
        destination.lstat()
        strange = not destination.is_dir() or any(destination.iterdir())
        strange = strange and not (destination / file).is_file()
    except FileNotFoundError:
        return
    except OSError as error:
        raise unwritable(destination, error) from error
    if strange:
        raise fail(
            "E701",
            f"`{destination}` is there and is not a bundle: infc does not replace it",
            help="move it away, or choose another folder with `-o` or another name with `--name`",
        )


def publish(finished: Path, destination: Path) -> None:
    """Move the folder `finished` to `destination`, replacing what is there, atomically.

    Raises:
        OSError: the destination cannot be written.
    """
    try:
        finished.rename(destination)  # also on to an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    else:
        return
    if _exchange(finished, destination):
        shutil.rmtree(finished, ignore_errors=True)
        return
    aside = finished.with_name(finished.name + ".old")
    destination.rename(aside)
    finished.rename(destination)
    shutil.rmtree(aside, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths in one step (Linux renameat2); False where the system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    status: int = libc.renameat2(
        _AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE
    )
    return status == 0

"""A model repository on disk: what is in it, whose it is, and a version that appears whole.

    REPOSITORY/<name>/
      config.pbtxt   shared by all versions
      infc.json      what infc put here, and with which settings
      warmup/        raw data of warm-up requests
      1/ 2/ ...      an artifact each

A new model is renamed into place in one step, and so is a version, after the record and the
configuration that go with it: Triton, which may be watching, finds a version whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infc.bundle import unwritable
from infc.diagnostics import fail
from infc.packaging.settings import Settings
from infc.packaging.warmup import Warmup

CONFIG, RECORD = "config.pbtxt", "infc.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Record:
    """What infc put into a model's folder.

    `interface` is what all versions share, `settings` what the user decided, `warmups` the
    requests whose data is in the folder `warmup`; `versions` maps numbers to what they were made
    of, with the hashes of their files.
    """

    config_sha256: str
    interface: Mapping[str, Any]
    max_batch: int
    settings: Mapping[str, Any]
    warmups: Sequence[Mapping[str, Any]]
    versions: Mapping[str, Mapping[str, Any]]

    def dump(self) -> str:
        """The text of infc.json."""
        rows = sorted(self.versions.items(), key=lambda row: int(row[0]))
        document = {
            "schema_version": SCHEMA,
            "config_sha256": self.config_sha256,
            "interface": self.interface,
            "max_batch": self.max_batch,
            "settings": self.settings,
            "warmups": list(self.warmups),
            "versions": dict(rows),
        }
        return json.dumps(document, indent=2) + "\n"


@contextlib.contextmanager
def locked(repository: Path) -> Iterator[None]:
    """Hold the repository: of several processes one adds at a time. It is made where missing.

    Raises:
        InfcError: E701.
    """
    made = [p for p in (repository, *repository.parents) if not p.exists()]
    try:
        repository.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(repository, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise unwritable(repository, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):  # not empty: something was put there
            for folder in made:
                folder.rmdir()


def stage_folder(repository: Path) -> Path:
    """Where a version is made: beside the repository, in which Triton takes folders for models.

    In the repository itself, hidden, where nothing can be renamed from outside.
    """
    outside = repository.resolve().parent
    same = outside.stat().st_dev == repository.stat().st_dev
    return outside if same and os.access(outside, os.W_OK) else repository


def read_record(model: Path) -> Record | None:
    """The record of the model in the folder `model`; None where there is nothing.

    Raises:
        InfcError: E709 where something is there that infc did not make.
    """
    try:
        if not any(model.iterdir()):
            return None
        document = json.loads((model / RECORD).read_text(encoding="utf-8"))
        if document["schema_version"] != SCHEMA:
            raise ValueError("another version")
        Settings.from_json(document["settings"])
        for row in document["warmups"]:
            Warmup.from_json(row)
        for row in document["versions"].values():
            dict(row["files"])
        return Record(
            str(document["config_sha256"]),
            dict(document["interface"]),
            int(document["max_batch"]),
            dict(document["settings"]),
            [dict(row) for row in document["warmups"]],
            {str(int(number)): dict(row) for number, row in document["versions"].items()},
        )
    except FileNotFoundError:
        if not model.exists():
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise fail(
        "E709",
        f"`{model}` is there, and infc did not make it: there is no {RECORD} of its own in it",
        help="choose another name (`--name`) or another repository (`-o`)",
    )


def present(model: Path) -> list[int]:
    """The numbers of the versions in the folder, whoever made them."""
    if not model.is_dir():
        return []
    return sorted(int(p.name) for p in model.iterdir() if p.is_dir() and p.name.isdecimal())


def is_edited(model: Path, record: Record) -> bool:
    """Whether somebody changed config.pbtxt after infc wrote it."""
    try:
        text = (model / CONFIG).read_bytes()
    except OSError:
        return True
    return hashlib.sha256(text).hexdigest() != record.config_sha256


def replace_file(folder: Path, name: str, text: str, stage: Path) -> None:
    """Write `folder/name` in one rename from the folder `stage`."""
    partial = stage / name
    partial.write_text(text, encoding="utf-8")
    partial.replace(folder / name)

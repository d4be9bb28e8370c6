"""A version is made beside the repository, and moved into it whole."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from infc.bundle import Bundle
from infc.diagnostics import fail
from infc.packaging import repository, warmup
from infc.packaging.config import ModelConfig, render
from infc.packaging.repository import CONFIG, RECORD, Record
from infc.packaging.warmup import Warmup


def publish(
    subject: Bundle,
    made: ModelConfig,
    model: Path,
    record: Record | None,
    number: int,
    stage: Path,
    *,
    keep_config: bool,
) -> bool:
    """Make the version in `stage`, and move it into place after what belongs to it.

    A version that is there already is left alone; its model's configuration is brought up to date.
    Returns whether anything changed.

    Raises:
        InfcError: E709 where somebody else changed the configuration.
    """
    version = stage / str(number)
    if record is None:
        fresh = stage / "model"
        fresh.mkdir()
        _copy_artifact(subject, made, fresh / str(number))
        warmup.write(fresh / warmup.FOLDER, made.warmups)
        text = render(made)
        news = _record(made, text, [w.to_json() for w in made.warmups], {}, number, subject)
        (fresh / CONFIG).write_text(text, encoding="utf-8")
        (fresh / RECORD).write_text(news.dump(), encoding="utf-8")
        fresh.rename(model)
        return True
    is_new = not (model / str(number)).exists()
    if keep_config:
        row = {str(number): _row(subject, made)}
        news = replace(record, versions={**record.versions, **row})
        text = ""
    else:
        # The requests that warm a version up are those of the first one, whose files are there.
        text = render(replace(made, warmups=_kept_warmups(record, made)))
        news = _record(made, text, record.warmups, record.versions, number, subject)
        if not is_new and news == record:
            return False
        _require_own(model, record)
    if is_new:
        _copy_artifact(subject, made, version)
    if text:
        repository.replace_file(model, CONFIG, text, stage)
    repository.replace_file(model, RECORD, news.dump(), stage)
    if is_new:
        version.rename(model / str(number))
    return True


def _record(
    made: ModelConfig,
    text: str,
    warmups: Sequence[Mapping[str, Any]],
    versions: Mapping[str, Mapping[str, Any]],
    number: int,
    subject: Bundle,
) -> Record:
    """The record with this version in it, and `text` as the configuration."""
    return Record(
        hashlib.sha256(text.encode()).hexdigest(),
        shared(made),
        made.interface.max_batch,
        made.settings.to_json(),
        list(warmups),
        {**versions, str(number): _row(subject, made)},
    )


def _require_own(model: Path, record: Record) -> None:
    """Refuse to replace a configuration that somebody changed.

    Raises:
        InfcError: E709.
    """
    if repository.is_edited(model, record):
        raise fail(
            "E709",
            f"`{model / CONFIG}` was changed since infc wrote it: infc does not replace it",
            help="`--keep-config` adds the version and leaves the configuration as it is",
        )


def _kept_warmups(record: Record, made: ModelConfig) -> tuple[Warmup, ...]:
    """Those that the record holds, as far as they fit."""
    if made.settings.warmup is False:
        return ()
    found = tuple(Warmup.from_json(row) for row in record.warmups)
    return tuple(w for w in found if w.batch <= max(1, made.interface.max_batch))


def _row(subject: Bundle, made: ModelConfig) -> Mapping[str, Any]:
    """What is written down of a version."""
    manifest = subject.manifest
    return {
        "bundle": manifest["name"],
        "target": manifest["target"]["name"],
        "precision": manifest["target"]["precision"],
        "source_sha256": manifest["source"]["sha256"],
        "verdict": manifest["verification"]["verdict"],
        "infc": manifest["infc"],
        "batch_limit": made.interface.limit,
        "files": digests(subject),
    }


def _copy_artifact(subject: Bundle, made: ModelConfig, folder: Path) -> None:
    """Copy the artifact's files, the one to open under the name that Triton looks for."""
    folder.mkdir()
    home = subject.path / "model"
    for file in subject.manifest["artifact"]["files"]:
        source = subject.path / file
        name = source.relative_to(home).as_posix()
        if source == subject.entry and not made.file:
            name = made.serving.file
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)


def shared(made: ModelConfig) -> dict[str, Any]:
    """What the versions of a model have in common, but for what is the user's to decide; JSON."""
    interface = made.interface
    return {
        "backend": made.serving.backend,
        "file": made.file,
        "inputs": [t.to_json() for t in interface.inputs],
        "outputs": [t.to_json() for t in interface.outputs],
        "parameters": {k: v for k, v in made.parameters.items() if k != made.serving.threads},
        "level": made.level,
        "profiles": made.profiles,
    }


def digests(subject: Bundle) -> dict[str, str]:
    """The hashes of the artifact's files, by their names in the bundle."""
    rows = subject.manifest["files"]
    return {name: rows[name]["sha256"] for name in subject.manifest["artifact"]["files"]}

"""Whether a bundle can be one more version of a model: what the versions share must be the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infc.diagnostics import fail
from infc.packaging.adding import shared
from infc.packaging.config import ModelConfig
from infc.packaging.repository import Record


def require_same(model: Path, record: Record, made: ModelConfig) -> None:
    """Refuse a version that the configuration of the others does not fit.

    Raises:
        InfcError: E709.
    """
    now = shared(made)
    differing = [key for key, value in now.items() if record.interface.get(key) != value]
    if not differing:
        return
    rows = [f"{k}: {_told(record.interface.get(k))}, and now {_told(now[k])}" for k in differing]
    raise fail(
        "E709",
        f"`{model}` differs from what is to be its next version, and versions share everything "
        "but the artifact",
        notes=rows,
        help="give the model another name with `--name`",
    )


def require_batches(record: Record, made: ModelConfig) -> None:
    """Refuse a greatest batch that is not that of the others, or more than one of them takes.

    Raises:
        InfcError: E709.
    """
    batch = made.interface.max_batch
    if made.settings.max_batch is None and batch != record.max_batch:
        raise fail(
            "E709",
            f"this version takes batches up to {batch}, and the model's up to {record.max_batch}",
            help=f"`--max-batch-size {batch}` for all of them, or another name with `--name`",
        )
    for number, row in record.versions.items():
        limit = row.get("batch_limit")
        if limit is not None and batch > limit:
            raise fail(
                "E709",
                f"version {number} takes batches up to {limit}, not {batch}",
                help=f"`--max-batch-size {limit}`, or another name with `--name`",
            )


def _told(value: Any) -> str:
    """A part of the record in words."""
    if isinstance(value, list):
        return ", ".join(f"{t['name']} {t['data_type']}{list(t['dims'])}" for t in value) or "none"
    return str(value) if value not in ("", {}, None) else "none"

"""What `infc tune` and its verbs print."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infc.formatting import columns, count, format_seconds
from infc.outcomes import TuneResult
from infc.output import Output
from infc.results.figures import tuned_text
from infc.results.text import labelled

if TYPE_CHECKING:
    from infc.databases import Database


def tuned(rows: Sequence[TuneResult], words: Sequence[str], *, brief: bool = False) -> Output:
    """Of `tune MODEL`; a `brief` text is the path of each database.

    `words` are what `infc compile` is given for the same model, but its targets.
    """
    document = {
        "results": [{"target": r.target, "database": str(r.database), **r.found} for r in rows]
    }
    if brief:
        return Output(document, "\n".join(str(r.database) for r in rows))
    return Output(document, "\n\n".join(_block(row, words) for row in rows))


def _block(row: TuneResult, words: Sequence[str]) -> str:
    found = row.found
    measured = f"{found['measured']} of {count(found['kernels'], 'kernel')}"
    lines = [
        ("measured", measured),
        ("found", tuned_text(found)),
        ("database", f"{row.database}, {count(found['records'], 'record')}"),
        ("next", shlex.join(["infc", "compile", *words, "-t", row.target])),
    ]
    return f"{click.style(row.target, bold=True, fg='green')}\n{labelled(lines)}"


def described(path: Path, database: Database) -> dict[str, Any]:
    """A database without its records, for machines."""
    return {
        "file": str(path),
        "compiler": database.compiler,
        "cpu": dict(database.cpu),
        "digest": database.digest,
        "records": len(database.records),
    }


def shown(path: Path, database: Database) -> Output:
    """Of `tune show`: the kernels, those that gained most first."""
    pairs = sorted(database.records.items(), key=lambda row: (row[1].ratio, row[0]))
    document = {
        **described(path, database),
        "kernels": [{"key": key, **record.to_json()} for key, record in pairs],
    }
    head = labelled(
        [
            ("processor", database.processor),
            ("compiler", database.compiler),
            ("records", f"{len(pairs)}, digest {database.digest}"),
        ]
    )
    table = [("rule", "record", "", "tried", "chosen", "kernel")] if pairs else []
    table += [
        (
            format_seconds(record.rule_seconds),
            format_seconds(record.seconds),
            f"{record.ratio:.2f}x",
            str(len(record.tried)),
            str(record.choice),
            record.kernel,
        )
        for _, record in pairs
    ]
    listed = columns(table, indent="  ", right=(0, 1, 2, 3))
    return Output(document, f"{path}\n{head}" + (f"\n\n{listed}" if listed else ""))


def written(what: str, path: Path, database: Database) -> Output:
    """Of `tune merge`, `export` and `prune`."""
    text = f"{what}: {path}, {count(len(database.records), 'record')} for {database.processor}"
    return Output(described(path, database), text)

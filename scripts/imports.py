"""What imports from other frameworks, and with which error: compiler/frontends/IMPORTS.md.

    scripts/imports pytorch                 import, check, optimise and verify every subject
    scripts/imports pytorch --filter bert   those whose name holds "bert"
    scripts/imports pytorch --write         and write them into IMPORTS.md

A subject takes the first half of `infc compile`: export in a worker, the exported graph against the
model in its own framework, the passes, the optimised graph against it once more; on six sets of
random inputs, two at each of the least, typical and greatest size. A framework's subjects are what
`subjects(scratch)` of `scripts/imports_<framework>.py` yields.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import front
from infc.diagnostics import Diagnostic, InfcError, Severity
from infc.import_options import ImportOptions
from infc.input_spec import InputSpec
from infc.request import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "compiler" / "frontends" / "IMPORTS.md"
FRAMEWORKS = {"pytorch": "PyTorch", "tensorflow": "TensorFlow"}
INTRODUCTION = """# What imports from other frameworks

Written by `scripts/imports FRAMEWORK --write`: each row is exported in a worker, checked, compared
with the model in its own framework, optimised, and compared again, on six sets of random inputs:
two at each of the least, typical and greatest size. The error is the largest of all outputs, of
the optimised graph against the framework, relative to the output's peak; `nodes` is before and
after the passes.
"""


@dataclass(frozen=True)
class Subject:
    """A model: `source` as `infc compile` takes it, with what is given besides."""

    name: str
    source: str
    inputs: tuple[str, ...] = ()
    options: ImportOptions = field(default_factory=ImportOptions)


@dataclass(frozen=True)
class Row:
    """What became of a subject: the cells of an import, or the refusal."""

    subject: Subject
    seconds: float
    cells: tuple[str, ...] = ()
    refusal: Diagnostic | None = None


def main() -> int:
    parser = argparse.ArgumentParser(description="What imports, and with which error.")
    parser.add_argument("framework", choices=sorted(FRAMEWORKS))
    parser.add_argument("--filter", default="", help="only subjects whose name holds this")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name}")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for row in _rows(options.framework, options.filter, Path(scratch)):
            print(row.subject.name, *_said(row), f"{row.seconds:.0f} s", flush=True)
            rows.append(row)
    if options.write and not options.filter:
        _write(options.framework, rows)
    return 0


def _rows(framework: str, wanted: str, scratch: Path) -> Iterator[Row]:
    subjects = import_module(f"imports_{framework}").subjects(scratch)
    for i, subject in enumerate(s for s in subjects if wanted in s.name):
        stage = scratch / f"stage-{i}"
        stage.mkdir()
        yield _row(subject, stage)


def _row(subject: Subject, stage: Path) -> Row:
    start = time.monotonic()
    request = Request(
        Path(subject.source),
        ("cpu",),
        stage,
        inputs=tuple(InputSpec.parse(text) for text in subject.inputs),
        reading=subject.options,
    )
    try:
        done = front.optimize(request, stage, lambda *_: None)
    except InfcError as error:
        return Row(subject, time.monotonic() - start, refusal=error.diagnostics[0])
    origin = done.source.origin
    outputs: list[dict[str, Any]] = done.proof["outputs"]
    shapes = (f"{i.name} {'x'.join(map(str, i.shape or ()))}" for i in done.inputs)
    before, after = done.nodes
    cells = (
        ", ".join(f"`{shape}`" for shape in shapes),
        origin.exporter if origin else "-",
        f"{before} -> {after}",
        f"{max(o['relative_error'] for o in outputs):.1e}",
    )
    return Row(subject, time.monotonic() - start, cells)


def _said(row: Row) -> tuple[str, ...]:
    return row.cells if row.refusal is None else (row.refusal.code, row.refusal.message)


def _write(framework: str, rows: list[Row]) -> None:
    """Replace the section of `framework`; those of the others stay."""
    title = FRAMEWORKS[framework]
    text = TABLE.read_text(encoding="utf-8") if TABLE.exists() else ""
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]
    sections = {part.splitlines()[0].removeprefix("## "): part.strip() for part in parts}
    sections[title] = _section(title, rows)
    ordered = (sections[name] for name in FRAMEWORKS.values() if name in sections)
    TABLE.write_text("\n\n".join([INTRODUCTION.strip(), *ordered]) + "\n", encoding="utf-8")


def _section(title: str, rows: list[Row]) -> str:
    lines = [
        f"## {title}",
        "",
        "| model | inputs | exporter | nodes | error |",
        "|---|---|---|---|---|",
    ]
    refused = []
    for row in rows:
        if row.refusal is None:
            lines.append(f"| {row.subject.name} | {' | '.join(row.cells)} |")
        else:
            assert row.refusal.severity is Severity.ERROR
            message = row.refusal.message.replace("|", "\\|").splitlines()[0]
            folder = f"{Path(row.subject.source).parent}/"
            message = message.replace(folder, "")
            refused.append(f"| {row.subject.name} | {row.refusal.code} | {message} |")
    if refused:
        lines += ["", "| refused | code | message |", "|---|---|---|", *refused]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

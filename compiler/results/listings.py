"""What the verbs print that look things up: targets, passes, toolchains, codes, what is installed.

A document for machines and a text for people, as in `results`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from infc.diagnostics import Code, ExitCode
from infc.formatting import columns, count, format_bytes
from infc.output import Output
from infc.results.text import labelled, paired, wrapped

if TYPE_CHECKING:
    from pathlib import Path

    from infc.doctor import Examination
    from infc.passes import Phase
    from infc.targets import BackEnd, Target
    from infc.workers.locks import Lock
    from infc.workers.toolchains import Entry


def targets_table(rows: Sequence[tuple[Target, bool]]) -> Output:
    """Of `targets`: each with whether its back end is installed."""
    document = {"targets": [{**t.to_json(), "installed": there} for t, there in rows]}
    header = ("TARGET", "BACK END", "DEVICE", "PRECISION", "INSTALLED", "")
    cells = [
        (t.name, t.back_end, t.device, str(t.precision), "yes" if there else "no", t.summary)
        for t, there in rows
    ]
    return Output(document, columns([header, *cells]))


def target_details(target: Target, end: BackEnd, there: bool) -> Output:
    """Of `targets NAME`."""
    document = {
        "target": {**target.to_json(), "installed": there},
        "back_end": {
            "name": end.NAME,
            "summary": end.SUMMARY,
            "precisions": [str(p) for p in end.PRECISIONS],
            "options": dict(end.OPTIONS),
            "min_opset": end.MIN_OPSET,
        },
    }
    options = columns([(f"-X {key}=...", text) for key, text in end.OPTIONS.items()])
    rows = [
        ("back end", f"{end.NAME}: {end.SUMMARY}"),
        ("installed", "yes" if there else f"no: `infc doctor {end.NAME}` says how"),
        ("device", target.device),
        ("triple", target.triple or "this machine's"),
        ("precisions", f"{', '.join(end.PRECISIONS)} (default {target.precision})"),
        ("opset", f"{end.MIN_OPSET} or later; older graphs are converted"),
        ("options", options or "none"),
    ]
    if target.options:
        rows.append(("preset", paired((f"-X {k}", v) for k, v in target.options.items())))
    return Output(
        document, f"{click.style(target.name, bold=True)}  {target.summary}\n{labelled(rows)}"
    )


def passes_table(phases: Sequence[Phase], order: Sequence[tuple[str, str, str]]) -> Output:
    """Of `passes`."""
    rows = [
        {"name": spec.name, "phase": phase.name, "repeat": phase.repeat, "summary": spec.summary}
        for phase in phases
        for spec in phase.passes
    ]
    reasons = [{"earlier": a, "later": b, "why": why} for a, b, why in order]
    width = max(len(spec.name) for phase in phases for spec in phase.passes)
    blocks = []
    for phase in phases:
        again = ", again and again until nothing changes" if phase.repeat else ""
        lines = [f"  {spec.name.ljust(width)}  {spec.summary}" for spec in phase.passes]
        blocks.append("\n".join([f"{click.style(phase.name, bold=True)}{again}", *lines]))
    return Output({"passes": rows, "order": reasons}, "\n\n".join(blocks))


def examined(examination: Examination) -> Output:
    """Of `doctor`: exit code 4 where something required is missing."""
    document = {
        "infc": examination.infc,
        "python": examination.python,
        "system": examination.system,
        "required": list(examination.required),
        "groups": [group.to_json() for group in examination.groups],
    }
    groups = examination.groups
    width = max(len(item.name) for group in groups for item in group.items)
    blocks = [f"infc {examination.infc}, Python {examination.python}, {examination.system}"]
    for group in groups:
        verdict = ("ready", "green") if group.ready else ("incomplete", "yellow")
        lines = [
            f"{click.style(group.name, bold=True)}: {group.summary}, "
            f"{click.style(verdict[0], fg=verdict[1])}"
        ]
        for item in group.items:
            missing = click.style("missing", fg="red")
            state = item.found if item.found is not None else f"{missing}  {item.remedy}"
            lines.append(f"  {item.name.ljust(width)}  {state}")
        blocks.append("\n".join(lines))
    code = ExitCode.DONE if examination.ready else ExitCode.TOOLCHAIN_MISSING
    return Output(document, "\n\n".join(blocks), code)


def toolchains_table(rows: Sequence[Entry]) -> Output:
    """Of `toolchain list`."""
    documents = [row.to_json() for row in rows]
    table = [
        (
            row.name,
            str(row.state),
            f"Python {row.python}" if row.python else "",
            *_installation(document),
        )
        for row, document in zip(rows, documents, strict=True)
    ]
    return Output({"toolchains": documents}, columns(table))


def _installation(document: Mapping[str, Any]) -> tuple[str, str, str]:
    """How many packages, how large, where; of what is not installed, what it would be."""
    if document["path"] is None:
        return ("", "", document["summary"])
    packages = count(len(document["packages"]), "package")
    return (packages, format_bytes(document["bytes"]), document["path"])


def toolchain_installed(row: Entry, changed: bool, *, brief: bool = False) -> Output:
    """Of `toolchain install`; a `brief` text is the path."""
    document = row.to_json()
    if brief:
        return Output({"changed": changed, **document}, document["path"])
    packages = ", ".join(f"{k} {v}" for k, v in document["packages"].items())
    lines = [
        ("python", row.python),
        ("packages", wrapped(packages.split(", "))),
        ("size", format_bytes(document["bytes"])),
        ("path", document["path"]),
    ]
    verdict = "installed" if changed else "up to date"
    headline = f"{click.style(row.name, bold=True)}  {click.style(verdict, fg='green')}"
    return Output({"changed": changed, **document}, f"{headline}\n{labelled(lines)}")


def toolchain_locked(lock: Lock, output: Path | None, step: str, *, brief: bool = False) -> Output:
    """Of `toolchain lock`: the lock itself, or where it was written, and only that if `brief`."""
    document = {
        "name": lock.name,
        "python": lock.python,
        "platform": lock.platform,
        "packages": dict(lock.packages),
        "lock": lock.render(),
        "output": None if output is None else str(output),
    }
    if output is None:
        return Output(document, lock.render().rstrip("\n"))
    if brief:
        return Output(document, str(output))
    lines = [("packages", str(len(lock.pins))), ("next", step)]
    return Output(document, f"{output}\n{labelled(lines)}")


def explained(code: Code) -> Output:
    """Of `explain CODE`."""
    document = {
        "code": code.id,
        "title": code.title,
        "exit_code": int(code.exit_code),
        "explanation": code.explanation,
    }
    head = f"{click.style(code.id, bold=True)}: {code.title}"
    status = f"Exit code, where it is an error: {int(code.exit_code)}"
    return Output(document, f"{head}\n\n{textwrap.fill(code.explanation, 80)}\n\n{status}")


def codes_table(codes: Iterable[Code]) -> Output:
    """Of `explain` without a code."""
    rows = list(codes)
    document = {
        "codes": [{"code": c.id, "title": c.title, "exit_code": int(c.exit_code)} for c in rows]
    }
    return Output(document, columns([(c.id, c.title) for c in rows]))

"""What `infc debug-accuracy` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from infc.diagnostics import ExitCode, printable
from infc.formatting import columns, count, format_error, format_sqnr
from infc.output import Output

if TYPE_CHECKING:
    from infc.divergence import AccuracyResult
    from infc.divergence.verdict import Row
from infc.results.figures import errors_table
from infc.results.text import labelled


def debugged(result: AccuracyResult, *, brief: bool = False) -> Output:
    """Of `debug-accuracy`; a `brief` text is the name of the first layer that diverges."""
    first, steepest = result.first, result.steepest
    outputs = [error.to_json() for error in result.outputs]
    document = {
        "bundle": str(result.bundle),
        "target": result.target.to_json(),
        "threshold_db": result.threshold_db,
        "sets": result.sets,
        "inputs": result.inputs,
        "first": None if first is None else first.layer.name,
        "steepest": None if steepest is None else steepest.layer.name,
        "layers": [row.to_json() for row in result.rows],
        "outputs": outputs,
        "builds": result.builds,
        "identical": result.identical,
    }
    sets = count(result.sets, "input set")
    lines = [
        ("held to", f"{result.threshold_db:g} dB, on {sets} ({result.inputs})"),
        ("artifact", errors_table(outputs)),
    ]
    if steepest is not None:
        name, drop = printable(steepest.layer.name), steepest.drop_db or 0.0
        lines.append(("drop", f"the largest: {drop:.1f} dB at {name} ({steepest.layer.operators})"))
    if first is None and result.exit_code is not ExitCode.DONE:
        lines.append(("next", "only what is fused diverges: look again with `--layers 8`"))
    text = f"{_accused(result)}\n{labelled(lines)}\n\n{_layers_table(result.rows)}"
    if brief:
        text = "" if first is None else printable(first.layer.name)
    return Output(document, text, result.exit_code, result.notes)


def _accused(result: AccuracyResult) -> str:
    """The verdict in one line."""
    first, path = result.first, result.bundle
    if first is not None and first.error is not None:
        sqnr = format_sqnr(first.error.to_json()["sqnr_db"])
        name = click.style(printable(first.layer.name), bold=True, fg="red")
        return f"{name} ({first.layer.operators}) is the first to diverge in {path}: SQNR {sqnr}"
    if result.exit_code is ExitCode.DONE:
        return f"{click.style('nothing diverges', bold=True, fg='green')} in {path}"
    return f"{click.style('no single layer diverges', bold=True, fg='red')} in {path}"


def _layers_table(rows: Sequence[Row]) -> str:
    """A line for each layer, in order; what became of it on the right."""
    cells: list[tuple[str, ...]] = [
        ("LAYER", "OPERATOR", "SQNR", "DROP", "RELATIVE", "MAX ABS", "")
    ]
    for row in rows:
        name, operators = printable(row.layer.name), printable(row.layer.operators)
        if row.error is None:
            cells.append((name, operators, "", "", "", "", printable(row.reason)))
            continue
        figures = row.error.to_json()
        said = {"diverges": "<- diverges", "fine": ""}.get(str(row.state), str(row.state))
        errors = (format_error(figures[k]) for k in ("relative_error", "max_abs_error"))
        drop = f"{row.drop_db:.1f}" if row.drop_db else ""
        said = f"{said}, alone".removeprefix(", ") if row.alone else said
        cells.append((name, operators, format_sqnr(figures["sqnr_db"]), drop, *errors, said))
    return columns(cells, right=(2, 3, 4, 5))

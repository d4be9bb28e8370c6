"""What `infc finish`, `verify` and `bench` print."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from infc.formatting import count, format_bytes, format_shape
from infc.output import Output

if TYPE_CHECKING:
    from infc.driver import FinishResult, VerifyResult
from infc.results.figures import errors_table, stand_in_text, verdict
from infc.results.text import labelled


def finished(result: FinishResult, *, brief: bool = False) -> Output:
    """Of `finish`; a `brief` text is the path of the bundle."""
    library, facts, gpu = result.library, result.facts, result.gpu
    document = {
        "bundle": str(result.bundle),
        "state": result.state,
        "changed": result.changed,
        "library": dict(library),
        "gpu": gpu,
        "facts": dict(facts),
        "verification": dict(result.verification),
        "latency": result.latency,
        "machine": result.machine,
        "sent": dict(result.sent),
    }
    by = f"{library['module']} {library['version']}"
    if result.machine:
        by += f" on {result.machine}"
    rows = [("built", by)]
    if gpu is not None:
        rows.append(("gpu", f"{gpu['name']}, compute capability {gpu['compute_capability']}"))
    if "bytes" in facts:
        rows.append(("engine", f"{format_bytes(facts['bytes'])} in {facts['seconds']:g} s"))
    rows.append(("verified", verdict(result.verification)))
    if result.latency is not None:
        spread = f"{result.latency['min_ms']:.3f} to {result.latency['max_ms']:.3f} ms"
        rows.append(("latency", f"{result.latency['median_ms']:.3f} ms, {spread}"))
    if result.sent:
        there = f", {format_bytes(result.sent['there'])} were there" if result.sent["there"] else ""
        rows.append(("sent", f"{format_bytes(result.sent['sent'])}{there}"))
    ready = result.state == "ready"
    state = click.style(result.state, bold=True, fg="green" if ready else "yellow")
    again = "" if result.changed else ", as before"
    text = str(result.bundle) if brief else f"{state}{again}  {result.bundle}\n{labelled(rows)}"
    return Output(document, text, result.exit_code, result.diagnostics)


def verified(result: VerifyResult) -> Output:
    """Of `verify`."""
    outputs = [error.to_json() for error in result.errors]
    document = {
        "bundle": str(result.bundle),
        "through": result.through,
        "sets": result.sets,
        "device": result.device,
        "ran_on": result.ran_on,
        "outputs": outputs,
    }
    passed = click.style("passed", bold=True, fg="green")
    sets = count(result.sets, "input set")
    text = f"{passed}  {result.bundle} through {result.through} on {sets}"
    if stand_in := stand_in_text(result.device, result.ran_on):
        text += f", {stand_in}"
    return Output(document, f"{text}\n{textwrap.indent(errors_table(outputs), '  ')}")


def benched(figures: Mapping[str, Any]) -> Output:
    """Of `bench`."""
    shapes = ", ".join(f"{k} {format_shape(v)}" for k, v in figures["inputs"].items())
    threads = count(figures["threads"], "thread")
    head = click.style(f"{figures['median_ms']:.3f} ms", bold=True)
    text = f"{head}  {figures['bundle']} through {figures['through']}, {threads}\n"
    spread = f"{figures['min_ms']:.3f} to {figures['max_ms']:.3f} ms"
    runs = count(figures["runs"], "run")
    rows = [("latency", f"median of {runs}, {spread}"), ("inputs", shapes)]
    if stand_in := stand_in_text(figures["device"], figures["ran_on"]):
        rows.append(("device", stand_in))
    text += labelled(rows)
    return Output(figures, text)

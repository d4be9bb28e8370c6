"""What the verbs print: a document for machines, a text for people.

The document always has the same keys for a verb; the text may hold ANSI styles, which are taken
out where standard output is not a terminal.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from infc.diagnostics import ExitCode, printable
from infc.formatting import (
    columns,
    count,
    format_bytes,
    format_error,
    format_requirements,
    format_seconds,
    format_shape,
    format_sqnr,
    listed,
)
from infc.output import Output

if TYPE_CHECKING:
    from infc.divergence import AccuracyResult
    from infc.divergence.verdict import Row
    from infc.driver import (
        CompileResult,
        FinishResult,
        OptimizeResult,
        QuantizeResult,
        TargetResult,
        VerifyResult,
    )

LABEL_WIDTH = 12
TEXT_WIDTH = 96


def compiled(
    result: CompileResult, manifests: Mapping[str, Mapping[str, Any]], *, brief: bool = False
) -> Output:
    """Of `compile`; `manifests` are those of the published bundles, by target.

    A `brief` text is one path a line, for `$(...)` in a script.
    """
    rows = [
        {
            "target": row.target,
            "ok": row.exit_code is ExitCode.DONE,
            "bundle": None if row.bundle is None else str(row.bundle),
            "log": None if row.log is None else str(row.log),
            "verification": row.verification,
            "seconds": {k: round(v, 6) for k, v in row.seconds.items()},
            "measured": row.measured,
            "diagnostics": [d.to_json() for d in row.diagnostics],
        }
        for row in result.results
    ]
    document = {**_passes_document(result), "results": rows}
    blocks = [
        _compiled_block(row, manifests[row.target], result)
        if row.bundle is not None
        else _failed_block(row)
        for row in result.results
    ]
    paths = [str(row.bundle) for row in result.results if row.bundle is not None]
    text = "\n".join(paths) if brief else "\n\n".join(blocks)
    failures = tuple(d for row in result.results for d in row.diagnostics)
    return Output(document, text, result.exit_code, (*result.notes, *failures))


def _passes_document(result: CompileResult | OptimizeResult) -> dict[str, Any]:
    return {
        "nodes_before": result.nodes_before,
        "nodes_after": result.nodes_after,
        "passes": [record.to_json(timings=True) for record in result.passes],
    }


def _compiled_block(row: TargetResult, manifest: Mapping[str, Any], result: CompileResult) -> str:
    if manifest["state"] == "deferred":
        return _deferred_block(row, manifest, result)
    target, proof = manifest["target"], manifest["verification"]
    files = manifest["artifact"]["files"]
    size = sum(manifest["files"][file]["bytes"] for file in files)
    passed = proof["verdict"] == "passed"
    runs = proof["verdict"] not in ("graph", "not verified")
    name = click.style(row.target, bold=True, fg="green" if passed else "yellow")
    headline = f"{name}  {row.bundle}"
    shape = f"{target['back_end']} on {target['device']}, {target['precision']}"
    lines = [
        ("artifact", f"{manifest['artifact']['entry']}, {format_bytes(size)}, {shape}"),
        ("nodes", _nodes(result)),
        ("verified", verdict(proof)),
    ]
    budget = manifest.get("quantization", {}).get("budget")
    if budget is not None:
        lines.insert(2, ("float", _kept(budget)))
    if "pruning" in manifest:
        lines.insert(2, ("pruned", _pruned(manifest["pruning"])))
    notes = manifest["artifact"]["notes"]
    if notes.get("tuning", {}).get("records") or "tuning" in row.measured:
        lines.append(("tuned", _tuned(notes["tuning"], row.measured.get("tuning"))))
    if row.measured.get("beside"):
        lines.append(("latency", _beside(row.measured["beside"])))
    if memory := _memory(notes):
        lines.insert(1, ("memory", memory))
    stand_in = _stand_in(target["device"], notes.get("verified_on", target["device"]))
    if passed and "emulator" in notes:
        stand_in = f"in {notes['emulator']}, not on the processor itself"
    if passed and stand_in:
        lines.append(("", stand_in))
    path = shlex.quote(str(row.bundle))
    if manifest["loaders"] and passed:
        through = "cpp" if "cpp" in manifest["loaders"] else manifest["loaders"][0]
        lines.append(("next", f"infc verify {path} --through {through}"))
    else:  # without reference vectors there is nothing to verify with
        where = "" if runs else ", where it can run"
        verb = "bench" if runs else "verify"
        lines.append(("next", f"infc {verb} {path}{where}"))
    return f"{headline}\n{labelled(lines)}"


def _deferred_block(row: TargetResult, manifest: Mapping[str, Any], result: CompileResult) -> str:
    """Of a bundle whose engine is still to be built: why, where and how."""
    target, how, artifact = manifest["target"], manifest["on_device"], manifest["artifact"]
    size = sum(manifest["files"][file]["bytes"] for file in artifact["files"])
    path = shlex.quote(str(row.bundle))
    lines = [
        ("engine", f"to be built on the device, {target['precision']}: {how['reason']}"),
        ("graph", f"{how['graph']}, {format_bytes(size)}"),
        ("nodes", _nodes(result)),
        ("verified", verdict(manifest["verification"])),
        ("needs", format_requirements(how["requires"])),
        ("next", f"on the device: {path}/finish"),
        ("", f"or from here: infc finish {path} --remote ssh://user@host"),
    ]
    headline = f"{click.style(row.target, bold=True, fg='yellow')}  {row.bundle}  deferred"
    return f"{headline}\n{labelled(lines)}"


def _failed_block(row: TargetResult) -> str:
    codes = ", ".join(dict.fromkeys(d.code for d in row.diagnostics))
    text = f"{click.style(row.target, bold=True, fg='red')}  failed ({codes})"
    return text if row.log is None else f"{text}\n{labelled([('log', str(row.log))])}"


def _tuned(used: Mapping[str, Any], found: Mapping[str, Any] | None) -> str:
    """How many kernels have a record, and what measuring was good for."""
    text = f"{used['records']} of {count(used['kernels'], 'kernel')} by record"
    if not found:
        return text
    return f"{text}\n{tuned_text(found)}"


def tuned_text(found: Mapping[str, Any]) -> str:
    """What a tuning measured: `150 trials in 49.0 s: 3.03 ms by rule, 2.95 ms by record`."""
    took = format_seconds(found["seconds"])
    times = [format_seconds(found[name] / 1e3) for name in ("rule_ms", "best_ms")]
    return f"{count(found['trials'], 'trial')} in {took}: {times[0]} by rule, {times[1]} by record"


def _beside(figures: Mapping[str, Any]) -> str:
    """The time of a run, and how that is to the peer's."""
    mine, others = (format_seconds(figures[k] / 1e3) for k in ("artifact_ms", "peer_ms"))
    return f"{mine}, {figures['ratio']:.2f}x {figures['peer']}'s {others}, on 1 thread"


def _stand_in(device: str, ran_on: str) -> str:
    """That the artifact ran elsewhere than on its target's device; "" where it did not."""
    if ran_on.startswith(f"{device} ("):  # an emulator, which is named
        return f"on {ran_on}"
    return "" if device == ran_on else f"on {ran_on}: {device} is absent here"


def _memory(notes: Mapping[str, Any]) -> str:
    """What the artifact takes of memory, where all of it is planned; "" where it is not."""
    if "memory_bytes" not in notes:
        return ""
    arena, weights = format_bytes(notes["arena_bytes"]), format_bytes(notes["weight_bytes"])
    text = f"{format_bytes(notes['memory_bytes'])} (arena {arena}), weights {weights}"
    if "flash_bytes" not in notes:
        return text
    flash, ram = format_bytes(notes["flash_bytes"]), format_bytes(notes["ram_bytes"])
    return f"{text}; all in all flash {flash}, RAM {ram} and a stack"


def _nodes(result: CompileResult | OptimizeResult) -> str:
    return f"{result.nodes_before:,} -> {result.nodes_after:,}"


def _pruned(document: Mapping[str, Any]) -> str:
    """What pruning removed, and what that changed."""
    layers = document["layers"]
    lines = [f"{len(layers)} of {count(document['layers_with_weights'], 'layer')} lost channels"]
    sizes = [f"parameters {_change(document['parameters'])}"]
    if document["macs"] is not None:
        sizes.append(f"MACs {_change(document['macs'])}")
    lines.append(", ".join(sizes))
    if "metric" in document:
        row = document["metric"]
        name = row["name"].rpartition(":")[2]
        text = f"{name} {row['before']:.6g} -> {row['after']:.6g}"
        lines.append(f"{text} on {count(row['samples'], 'labelled sample')}")
    lines += [
        f"{row['name']}: SQNR {format_sqnr(row['sqnr_db'])} against the source"
        for row in document.get("outputs", ())
    ]
    return "\n".join(lines)


def _change(row: Mapping[str, int]) -> str:
    before, after = row["before"], row["after"]
    return f"{before:,} -> {after:,} ({(after - before) / max(before, 1):+.1%})"


def _kept(budget: Mapping[str, Any]) -> str:
    """What a budget left in float, and what that was good for."""
    kept, before, after = budget["keep"], budget["int8"], budget.get("artifact", budget["found"])
    names = f": {listed(kept)}" if kept else ""
    lines = [f"{len(kept)} of {count(len(budget['layers']), 'layer')}{names}"]
    if "sqnr_db" in after:
        figures = f"SQNR {format_sqnr(before['sqnr_db'])} -> {format_sqnr(after['sqnr_db'])}"
        lines.append(f"{figures}, at least {budget['min_sqnr_db']:g} dB")
    if "metric" in after:
        name, exact = budget["metric"].rpartition(":")[2], budget["float"]["metric"]
        figures = f"{name} {before['metric']:.6g} -> {after['metric']:.6g}"
        lines.append(f"{figures}, float {exact:.6g}, drop at most {budget['max_drop']:g}")
    return "\n".join(lines)


_GRAPH_ONLY = {
    "graph": "the graph only, not the artifact",
    "deferred": "the graph only, the engine is not there yet",
    "not verified": "the graph only, not the engine that was built",
}
"""What the verdicts mean that are not of the artifact."""


def verdict(proof: Mapping[str, Any]) -> str:
    """The verdict, and under it the error of every output."""
    if proof.get("verdict") not in ("passed", *_GRAPH_ONLY):
        return "skipped: nothing proves that it answers as the source model does"
    sets = count(proof["sets"], "input set")
    head, subject = f"passed on {sets} ({proof['inputs']})", "artifact"
    if proof["verdict"] in _GRAPH_ONLY:
        subject = "graph"
        head = f"{_GRAPH_ONLY[proof['verdict']]}: {proof['reason']}\nthe graph {head}"
    lines = [
        head,
        errors_table(proof[subject]["outputs"]),
        *(
            f"{name} is ill-conditioned: held to a relative error of {format_error(bound)}"
            for name, bound in proof.get("noise", {}).items()
        ),
        *(
            f"{name} is computed in {precision} by the source model, and held to that"
            for name, precision in proof.get("computed_in", {}).items()
        ),
    ]
    return "\n".join(lines)


def errors_table(outputs: Sequence[Mapping[str, Any]]) -> str:
    """One line for each output."""
    return columns(
        [
            (
                row["name"],
                f"relative {format_error(row['relative_error'])}",
                f"max abs {format_error(row['max_abs_error'])}",
                f"SQNR {format_sqnr(row['sqnr_db'])}" if row["sqnr_db"] is not None else "exact",
            )
            for row in outputs
        ]
    )


def labelled(rows: Iterable[tuple[str, str]], indent: str = "  ") -> str:
    """Labels on the left, texts of any number of lines on the right."""
    out = []
    for label, text in rows:
        head, *rest = printable(text).splitlines() or [""]
        label = click.style(label.ljust(LABEL_WIDTH), dim=True)  # noqa: PLW2901
        out.append(f"{indent}{label}{head}".rstrip())
        out.extend(f"{indent}{' ' * LABEL_WIDTH}{line}".rstrip() for line in rest)
    return "\n".join(out)


def optimized(result: OptimizeResult, *, brief: bool = False) -> Output:
    """Of `optimize`."""
    proof = result.verification
    document = {
        "output": str(result.output),
        **_passes_document(result),
        "verification": proof or None,
    }
    worked = [row for row in result.passes if row.changes]
    removed = columns(
        [(row.name, f"{-row.removed:+d}" if row.removed else "0") for row in worked], right=(1,)
    )
    verdict = errors_table(proof["outputs"]) if proof else "skipped"
    rows = [("nodes", _nodes(result)), ("passes", removed or "nothing to do")]
    if result.pruning is not None:
        document["pruning"] = result.pruning
        rows.append(("pruned", _pruned(result.pruning)))
    size = result.output.stat().st_size
    text = f"{click.style(str(result.output), bold=True)}  {format_bytes(size)}"
    text = f"{text}\n{labelled([*rows, ('verified', verdict)])}"
    return Output(document, str(result.output) if brief else text, diagnostics=result.notes)


def quantized(result: QuantizeResult, *, brief: bool = False) -> Output:
    """Of `quantize`."""
    proof, done = result.verification, result.quantization
    document = {
        "output": str(result.output),
        "quantization": done,
        "verification": proof or None,
    }
    state = "came quantised, and was left as it is" if done["already"] else ""
    kept = [(row["node"], row["reason"]) for row in done["kept"]]
    rows = [
        ("scheme", done["scheme"]),
        ("int8", state or count(done["quantized"], "node")),
        ("float32", columns(kept) if kept else "no node that could be quantised"),
        ("verified", errors_table(proof["outputs"]) if proof else "skipped"),
    ]
    if "budget" in done:
        rows.insert(1, ("float", _kept(done["budget"])))
    if result.pruning is not None:
        document["pruning"] = result.pruning
        rows.insert(0, ("pruned", _pruned(result.pruning)))
    size = result.output.stat().st_size
    text = f"{click.style(str(result.output), bold=True)}  {format_bytes(size)}"
    text = f"{text}\n{labelled(rows)}"
    return Output(document, str(result.output) if brief else text, diagnostics=result.notes)


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
    if stand_in := _stand_in(result.device, result.ran_on):
        text += f", {stand_in}"
    return Output(document, f"{text}\n{textwrap.indent(errors_table(outputs), '  ')}")


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


def benched(figures: Mapping[str, Any]) -> Output:
    """Of `bench`."""
    shapes = ", ".join(f"{k} {format_shape(v)}" for k, v in figures["inputs"].items())
    threads = count(figures["threads"], "thread")
    head = click.style(f"{figures['median_ms']:.3f} ms", bold=True)
    text = f"{head}  {figures['bundle']} through {figures['through']}, {threads}\n"
    spread = f"{figures['min_ms']:.3f} to {figures['max_ms']:.3f} ms"
    runs = count(figures["runs"], "run")
    rows = [("latency", f"median of {runs}, {spread}"), ("inputs", shapes)]
    if stand_in := _stand_in(figures["device"], figures["ran_on"]):
        rows.append(("device", stand_in))
    text += labelled(rows)
    return Output(figures, text)


def paired(pairs: Iterable[tuple[str, Any]]) -> str:
    """Names and values with commas between them: `ai.onnx 17, my 1`."""
    return ", ".join(f"{name} {value}" for name, value in pairs)


def wrapped(parts: Iterable[str]) -> str:
    """`parts` with commas between them, broken into lines between parts only."""
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + 2 + len(part) > TEXT_WIDTH - LABEL_WIDTH:
            lines[-1] += ","
            lines.append("")
        lines[-1] += f", {part}" if lines[-1] else part
    return "\n".join(lines)

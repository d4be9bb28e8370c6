"""What `infc compile` prints: a block for each target."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from infc.diagnostics import ExitCode
from infc.formatting import count, format_bytes, format_requirements, format_seconds
from infc.output import Output

if TYPE_CHECKING:
    from infc.driver import CompileResult, TargetResult
from infc.results.figures import (
    kept_in_float,
    nodes,
    passes_document,
    pruned,
    stand_in_text,
    tuned_text,
    verdict,
)
from infc.results.text import labelled


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
    document = {**passes_document(result), "results": rows}
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


def _compiled_block(row: TargetResult, manifest: Mapping[str, Any], result: CompileResult) -> str:
    if manifest["state"] == "deferred":
        return _deferred_block(row, manifest, result)
    proof, notes = manifest["verification"], manifest["artifact"]["notes"]
    passed = proof["verdict"] == "passed"
    budget = manifest.get("quantization", {}).get("budget")
    rows = [("artifact", _artifact(manifest))]
    if memory := _memory(notes):
        rows.append(("memory", memory))
    rows.append(("nodes", nodes(result)))
    if "pruning" in manifest:
        rows.append(("pruned", pruned(manifest["pruning"])))
    if budget is not None:
        rows.append(("float", kept_in_float(budget)))
    rows.append(("verified", verdict(proof)))
    if notes.get("tuning", {}).get("records") or "tuning" in row.measured:
        rows.append(("tuned", _tuned(notes["tuning"], row.measured.get("tuning"))))
    if row.measured.get("beside"):
        rows.append(("latency", _beside(row.measured["beside"])))
    if passed and (stand_in := _ran_on(manifest)):
        rows.append(("", stand_in))
    rows.append(("next", _next(row, manifest)))
    name = click.style(row.target, bold=True, fg="green" if passed else "yellow")
    return f"{name}  {row.bundle}\n{labelled(rows)}"


def _artifact(manifest: Mapping[str, Any]) -> str:
    """Its file, its size, and what it was built for."""
    target, artifact = manifest["target"], manifest["artifact"]
    size = sum(manifest["files"][file]["bytes"] for file in artifact["files"])
    made_for = f"{target['back_end']} on {target['device']}, {target['precision']}"
    return f"{artifact['entry']}, {format_bytes(size)}, {made_for}"


def _ran_on(manifest: Mapping[str, Any]) -> str:
    """What it was verified on, where that is not the device itself; "" where it is."""
    device, notes = manifest["target"]["device"], manifest["artifact"]["notes"]
    if "emulator" in notes:
        return f"in {notes['emulator']}, not on the processor itself"
    return stand_in_text(device, notes.get("verified_on", device))


def _next(row: TargetResult, manifest: Mapping[str, Any]) -> str:
    """The line to go on with; without reference vectors there is nothing to verify with."""
    path, verdict_ = shlex.quote(str(row.bundle)), manifest["verification"]["verdict"]
    if manifest["loaders"] and verdict_ == "passed":
        through = "cpp" if "cpp" in manifest["loaders"] else manifest["loaders"][0]
        return f"infc verify {path} --through {through}"
    if verdict_ in ("graph", "not verified"):
        return f"infc verify {path}, where it can run"
    return f"infc bench {path}"


def _deferred_block(row: TargetResult, manifest: Mapping[str, Any], result: CompileResult) -> str:
    """Of a bundle whose engine is still to be built: why, where and how."""
    target, how, artifact = manifest["target"], manifest["on_device"], manifest["artifact"]
    size = sum(manifest["files"][file]["bytes"] for file in artifact["files"])
    path = shlex.quote(str(row.bundle))
    lines = [
        ("engine", f"to be built on the device, {target['precision']}: {how['reason']}"),
        ("graph", f"{how['graph']}, {format_bytes(size)}"),
        ("nodes", nodes(result)),
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


def _beside(figures: Mapping[str, Any]) -> str:
    """The time of a run, and how that is to the peer's."""
    mine, others = (format_seconds(figures[k] / 1e3) for k in ("artifact_ms", "peer_ms"))
    return f"{mine}, {figures['ratio']:.2f}x {figures['peer']}'s {others}, on 1 thread"


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

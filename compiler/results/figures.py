"""What several verbs say of passes, pruning, budgets and proofs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from infc.formatting import columns, count, format_error, format_seconds, format_sqnr, listed

if TYPE_CHECKING:
    from infc.driver import CompileResult, OptimizeResult


def passes_document(result: CompileResult | OptimizeResult) -> dict[str, Any]:
    """The passes that were run, for machines."""
    return {
        "nodes_before": result.nodes_before,
        "nodes_after": result.nodes_after,
        "passes": [record.to_json(timings=True) for record in result.passes],
    }


def nodes(result: CompileResult | OptimizeResult) -> str:
    """How many there were, and how many there are."""
    return f"{result.nodes_before:,} -> {result.nodes_after:,}"


def pruned(document: Mapping[str, Any]) -> str:
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


def kept_in_float(budget: Mapping[str, Any]) -> str:
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


def tuned_text(found: Mapping[str, Any]) -> str:
    """What a tuning measured: `150 trials in 49.0 s: 3.03 ms by rule, 2.95 ms by record`."""
    took = format_seconds(found["seconds"])
    times = [format_seconds(found[name] / 1e3) for name in ("rule_ms", "best_ms")]
    return f"{count(found['trials'], 'trial')} in {took}: {times[0]} by rule, {times[1]} by record"


def stand_in_text(device: str, ran_on: str) -> str:
    """That the artifact ran elsewhere than on its target's device; "" where it did not."""
    if ran_on.startswith(f"{device} ("):  # an emulator, which is named
        return f"on {ran_on}"
    return "" if device == ran_on else f"on {ran_on}: {device} is absent here"


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

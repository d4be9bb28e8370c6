"""The actions of the worker: label, measure, search, score. The user's metric runs here only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infc.budget import BudgetOptions
from infc.mixed_precision import labelled
from infc.mixed_precision.evaluation import Figures, Subject, score, step
from infc.mixed_precision.layers import CANONICAL, alone, layers, scheme_from_json
from infc.mixed_precision.selection import select
from infc.signature import load_tensors
from infc.workers.protocol import report

MEASURED_RUNS = 16
"""Of calibration samples for each layer: they say which layer is worse, not by how much."""
MEASURED_LABELLED = 32
"""Runs of labelled samples for each layer."""
ROUNDING = 1e-9
"""What a difference of two metrics may be off by."""


def _label(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Write the labelled data to a folder.

    The answer says what the float graph scores on all of it, and on what `measure` takes.
    """
    exported = labelled.export(payload)
    runs, every = (
        [str(folder) for folder in exported.runs],
        step(len(exported.runs), MEASURED_LABELLED),
    )
    found = {"feeds": runs, "labels": str(exported.labels), "data": exported.fingerprint}
    row = {**found, "metric": payload["metric"], "home": payload["home"]}
    subject = Subject({**payload["subject"], "labelled": row})
    return {
        **found,
        "samples": sum(exported.samples),
        "samples_few": sum(exported.samples[::every]),
        "exact": subject.figures(subject.model, 0, None).metric,
        "exact_few": subject.figures(subject.model, 0, MEASURED_LABELLED).metric,
    }


def _measure(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of each layer quantised alone; `runs` says on how many they were measured."""
    subject = Subject(payload)
    spans, means = subject.scales(CANONICAL)
    found = layers(subject.model, CANONICAL)
    rows = []
    for number, (name, unit) in enumerate(found.items()):
        report(done=number, total=len(found))
        single = alone(subject.model, name, spans, means, CANONICAL)
        figures = subject.figures(single, MEASURED_RUNS, MEASURED_LABELLED)
        rows.append({"name": name, "op_type": unit.node.op_type, **figures.to_json()})
    return {"layers": rows}


def _search(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The layers to keep in float for `budget` under `scheme`, and what was tried.

    `order` names layers, the most harmful first; those that it lacks come last. `always` stays in
    float whatever the budget says.
    """
    from infc.passes.quantization import quantize

    subject = Subject(payload)
    scheme = scheme_from_json(payload["scheme"])
    budget = BudgetOptions(**payload["budget"])
    spans, means = subject.scales(scheme)
    always = frozenset(payload["always"])
    there = [name for name in layers(subject.model, scheme) if name not in always]
    order = [name for name in payload["order"] if name in there]
    order += [name for name in there if name not in order]
    tried: dict[frozenset[str], Figures] = {}

    def figures_of(keep: frozenset[str]) -> Figures:
        if keep not in tried:
            report(done=len(tried))
            model = subject.model.clone()
            quantize(model, spans, scheme, keep_float=keep | always, means=means)
            runs = 0 if budget.min_sqnr_db is None else None
            tried[keep] = subject.figures(model, runs, None)
        return tried[keep]

    selection = select(
        order, lambda keep: misses(figures_of(keep), budget, payload["float_metric"]) == []
    )
    figures_of(frozenset(selection.keep))
    prefixes = (frozenset(order[:count]) for count in range(len(order) + 1))
    return {
        "keep": selection.keep,
        "layers": len(order),
        "trials": selection.trials,
        "minimal": selection.minimal,
        "int8": figures_of(frozenset()).to_json(),
        "found": tried[frozenset(selection.keep)].to_json(),
        "curve": [
            {"kept": len(keep), **tried[keep].to_json()} for keep in prefixes if keep in tried
        ],
    }


def misses(figures: Figures, budget: BudgetOptions, exact: float | None) -> list[str]:
    """What of `budget` is missed, in words; `exact` is the float graph's metric."""
    out = []
    sqnr_db, least_db = figures.sqnr_db, budget.min_sqnr_db
    if least_db is not None and sqnr_db is not None and sqnr_db < least_db:
        out.append(f"its SQNR is {sqnr_db:.2f} dB, below {least_db:g} dB")
    if budget.max_drop is not None and figures.metric is not None and exact is not None:
        drop = exact - figures.metric
        if drop > budget.max_drop + ROUNDING:
            name = budget.metric.rpartition(":")[2]
            out.append(
                f"its {name} is {figures.metric:.6g} and the float graph's {exact:.6g}: "
                f"a drop of {drop:.3g}, above {budget.max_drop:g}"
            )
    return out


def _score(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The metric of the answers in the tensor folders `answers`."""
    given = (_in_order(Path(folder), payload["outputs"]) for folder in payload["answers"])
    value = score(payload["metric"], Path(payload["home"]), given, Path(payload["labels"]), 1)
    return {"metric": value}


def _in_order(folder: Path, names: list[str]) -> dict[str, Any]:
    found = load_tensors(folder)
    return {name: found[name] for name in names}


ACTIONS = {"label": _label, "measure": _measure, "search": _search, "score": _score}

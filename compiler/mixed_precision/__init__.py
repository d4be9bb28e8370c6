"""Mixed precision by budget: the smallest set of layers stays in float that a budget asks for.

prepare   the data that a command's budget is held against, and the sensitivity of every layer
search    the layers that a target keeps in float
check     the artifact itself, in its own runtime

    labelled      samples with labels           metrics      top1, or the user's function
    layers        what can stay in float        evaluation   SQNR and metric of a graph
    sensitivity   each layer alone              selection    the search, without the graphs
    preparing     what it is held against       worker       the process that runs all of it
    curve         the report's pictures
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import own_calibration
from infc.budget import BudgetOptions
from infc.diagnostics import Diagnostic, InfcError, Severity, fail
from infc.mixed_precision.evaluation import Figures, worst_sqnr_db
from infc.mixed_precision.layers import scheme_to_json
from infc.mixed_precision.preparing import Budget, Tell, call, prepare
from infc.mixed_precision.worker import misses
from infc.request import Precision, WorkerLimits
from infc.signature import load_tensors
from infc.targets import Target
from infc.verification.running import run_artifact

if TYPE_CHECKING:
    from infc.quantization import Scheme

__all__ = ["Budget", "Kept", "check", "prepare", "require_applicable", "search"]
HEADROOM_DB = 0.2
"""What is searched for above what is asked for: ONNX Runtime's artifact is at the SQNR of the graph
that was searched on, OpenVINO's up to 0.1 dB below (ultraface at 50 dB: 50.21 and 50.12)."""
SENSITIVITY = "sensitivity.json"
"""Where a bundle keeps what its layers cost."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a target keeps in float: `layers`, and all that the manifest says about it."""

    layers: frozenset[str] = frozenset()
    document: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Diagnostic, ...] = ()


def require_applicable(options: BudgetOptions | None, chosen: Sequence[Target]) -> None:
    """Refuse a budget where no target has anything to do with it.

    Raises:
        InfcError: E110.
    """
    if options is not None and all(t.precision is not Precision.INT8 for t in chosen):
        raise fail(
            "E110",
            "`--min-sqnr`, `--max-drop` and `--max-latency` are for int8, and no target here is",
            help="add `--precision int8`",
        )


def search(
    budget: Budget,
    scheme: Scheme,
    scratch: Path,
    limits: WorkerLimits,
    tell: Tell,
    always: frozenset[str] = frozenset(),
) -> Kept:
    """The smallest set of layers that `scheme` has to leave in float for the budget.

    Those in `always` are in float whatever the budget says.

    Raises:
        InfcError: E423 where the metric cannot be computed, E50x.
    """
    if budget.sensitivity is None:  # nothing in the graph can be quantised
        return Kept()
    order = budget.sensitivity.order()
    payload = {
        **budget.job,
        "scheme": scheme_to_json(scheme),
        "budget": asdict(_with_headroom(budget.options)),
        "order": order,
        "always": sorted(always),
        "float_metric": budget.exact.metric,
    }
    answer = call(
        "search",
        payload,
        scratch,
        limits,
        "the quantised graph",
        lambda r: tell(f"searching what stays in float, graph {r['done'] + 1}"),
    )
    names = frozenset(answer["keep"])
    rows = {row.name: row for row in budget.sensitivity.layers}
    document = {
        **_limits(budget),
        "float": budget.exact.to_json(),
        **{key: answer[key] for key in ("int8", "found", "minimal", "trials", "curve")},
        "layers": [{"name": n, "kept": n in names, **rows[n].figures.to_json()} for n in order],
    }
    document["keep"] = sorted(names)
    every = len(names) == answer["layers"] > 0
    return Kept(names, document, (_nothing_left(scheme, budget),) if every else ())


def _with_headroom(options: BudgetOptions) -> BudgetOptions:
    if options.min_sqnr_db is None:
        return options
    return replace(options, min_sqnr_db=options.min_sqnr_db + HEADROOM_DB)


def _limits(budget: Budget) -> dict[str, Any]:
    """What was asked for, and on how much data."""
    options = budget.options
    out: dict[str, Any] = {}
    if options.min_sqnr_db is not None:
        out |= {"min_sqnr_db": options.min_sqnr_db, "runs": len(budget.sets.feeds)}
    if options.max_drop is not None:
        out |= {
            "max_drop": options.max_drop,
            "metric": options.metric,
            "labelled_samples": budget.samples,
        }
    return out


def _nothing_left(scheme: Scheme, budget: Budget) -> Diagnostic:
    return Diagnostic(
        "E421",
        f"no layer can be quantised for `{scheme.name}` within {' '.join(budget.options.texts())}: "
        "all stay in float",
        help="more calibration samples, or another `--method`, may leave more of them; "
        "`--precision fp16` is made for small errors",
        severity=Severity.WARNING,
    )


def check(
    budget: Budget, target: Target, entry: Path, scratch: Path, limits: WorkerLimits
) -> dict[str, Any]:
    """The figures of the artifact `entry`, in its own runtime, for the manifest.

    Raises:
        InfcError: E421 where they miss the budget, E423, E5xx.
    """
    options, sqnr, metric = budget.options, None, None
    if options.min_sqnr_db is not None:
        answers, _ = run_artifact(budget.sets, target, entry, scratch / "sqnr", limits)
        pairs = zip(budget.sets.reference, answers, strict=True)
        sqnr = worst_sqnr_db((load_tensors(r), load_tensors(a)) for r, a in pairs)
    if budget.labelled:
        sets = replace(budget.sets, feeds=budget.labelled)
        answers, _ = run_artifact(sets, target, entry, scratch / "metric", limits)
        payload = {
            **budget.job["labelled"],
            "outputs": budget.job["outputs"],
            "answers": [str(folder.resolve()) for folder in answers],
        }
        found = call("score", payload, scratch / "score", limits, "the metric")
        metric = float(found["metric"])
    figures = Figures(sqnr, metric)
    missed = misses(figures, options, budget.exact.metric)
    if missed:
        help = (
            "its runtime rounds otherwise than the graph that was searched on: ask for a bit more"
        )
        if own_calibration.is_own(target):
            help = f"`{target.back_end}` quantises by itself, and keeps no layer in float"
        raise InfcError(
            *(
                Diagnostic(
                    "E421",
                    f"the `{target.name}` artifact misses the budget: {why}",
                    help=help,
                )
                for why in missed
            )
        )
    return figures.to_json()

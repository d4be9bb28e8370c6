"""Run the passes: in order, timed, counted, checked, dumped.

onnx_ir's own PassManager wraps an error in the names of every pass around it; here a failing pass
is one diagnostic that names it and how to go on without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import InfcError, did_you_mean, fail
from infc.passes import PIPELINE, PassSpec, Phase, pass_names
from infc.request import PassOptions

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx_ir.passes import PassBase

MAX_ROUNDS = 12
"""A phase that repeats stops here; a well-behaved one needs three or four rounds."""


@dataclass(slots=True)
class PassRecord:
    """What one pass did, over all its rounds.

    Between the rounds other passes run, so that what this one removed is not the difference of
    `nodes_before`, its first run, and `nodes_after`, its last; `removed` is negative where it
    added nodes.
    """

    name: str
    runs: int = 0
    changes: int = 0
    nodes_before: int = 0
    nodes_after: int = 0
    removed: int = 0
    seconds: float = 0.0

    def to_json(self, *, timings: bool) -> dict[str, Any]:
        """A plain dict; without timings it is the same in every build."""
        row: dict[str, Any] = {
            "name": self.name,
            "runs": self.runs,
            "changes": self.changes,
            "nodes_before": self.nodes_before,
            "nodes_after": self.nodes_after,
            "removed": self.removed,
        }
        if timings:
            row["seconds"] = round(self.seconds, 6)
        return row


def run(
    model: ir.Model,
    options: PassOptions,
    on_pass: Callable[[str], None] = lambda name: None,
) -> tuple[PassRecord, ...]:
    """Run the pipeline over `model`, in place, and return a record for each pass.

    Raises:
        InfcError: E301 a pass failed, E302 an option names an unknown pass.
    """
    _check_names(options)
    state = _State(node_count(model))
    for phase in PIPELINE:
        _run_phase(model, phase, options, state, on_pass)
    return tuple(state.records.values())


@dataclass(slots=True)
class _State:
    """What is carried from pass to pass: `version` counts the changes made to the model."""

    nodes: int
    version: int = 0
    records: dict[str, PassRecord] = field(default_factory=dict)


def node_count(model: ir.Model) -> int:
    """Nodes of the main graph and of all its subgraphs; Constant nodes count."""
    return sum(1 for _ in model.graph.all_nodes())


def _check_names(options: PassOptions) -> None:
    for name in sorted(options.disabled | options.dump_after):
        if name not in pass_names():
            hint = did_you_mean(name, pass_names())
            raise fail("E302", f"there is no pass `{name}`", help=f"{hint}`infc passes` lists them")


def _run_phase(
    model: ir.Model,
    phase: Phase,
    options: PassOptions,
    state: _State,
    on_pass: Callable[[str], None],
) -> None:
    """Run the passes in order; where the phase repeats, until each has seen the last change."""
    passes = [(spec, _make(spec)) for spec in phase.passes if spec.name not in options.disabled]
    seen: dict[str, int] = {}
    for _ in range(MAX_ROUNDS if phase.repeat else 1):
        for spec, instance in passes:
            if seen.get(spec.name) == state.version:
                continue
            on_pass(spec.name)
            _run_one(model, spec, instance, options, state)
            seen[spec.name] = state.version
        if all(version == state.version for version in seen.values()):
            return


def _make(spec: PassSpec) -> PassBase:
    try:
        return spec.make()
    except Exception as error:
        raise _broken(spec, error) from error


def _run_one(
    model: ir.Model, spec: PassSpec, instance: PassBase, options: PassOptions, state: _State
) -> None:
    record = state.records.setdefault(spec.name, PassRecord(spec.name))
    start = time.perf_counter()
    try:
        modified = instance(model).modified
    except InfcError:
        raise
    except Exception as error:
        raise _broken(spec, error) from error
    record.seconds += time.perf_counter() - start
    record.nodes_before = record.nodes_before if record.runs else state.nodes
    record.runs += 1
    if modified:
        record.changes += 1
        state.version += 1
        before, state.nodes = state.nodes, node_count(model)
        record.removed += before - state.nodes
        if options.check_between:
            _check(model, spec)
        if spec.name in options.dump_after:
            _dump(model, options.dump_dir or Path(), f"{record.runs:02d}-{spec.name}.onnx")
    record.nodes_after = state.nodes


def _broken(spec: PassSpec, error: Exception) -> InfcError:
    return fail(
        "E301",
        f"pass `{spec.name}` failed: {type(error).__name__}: {error}",
        help=f"please report this; go on with `--disable-pass {spec.name}`",
    )


def _check(model: ir.Model, spec: PassSpec) -> None:
    """ONNX's checker on the graph as `spec` left it."""
    from onnx_ir.passes.common import CheckerPass

    try:
        CheckerPass()(model)
    except Exception as error:
        raise fail("E301", f"pass `{spec.name}` left an invalid graph: {error}") from error


def _dump(model: ir.Model, folder: Path, file: str) -> None:
    import onnx_ir as ir

    folder.mkdir(parents=True, exist_ok=True)
    ir.save(model, folder / file)

"""Run the passes: in order, timed, counted, checked, dumped.

onnx_ir's own PassManager wraps an error in the names of every pass around it; here a failing pass
is one diagnostic that names it and how to go on without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import InfcError, fail
from infc.passes import PIPELINE, PassSpec, Phase, pass_names
from infc.request import PassOptions

if TYPE_CHECKING:
    import onnx_ir as ir

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
    records: dict[str, PassRecord] = {}
    for phase in PIPELINE:
        _run_phase(model, phase, options, records, on_pass)
    return tuple(records.values())


def node_count(model: ir.Model) -> int:
    """Nodes of the main graph and of all its subgraphs; Constant nodes count."""
    return sum(1 for _ in model.graph.all_nodes())


def _check_names(options: PassOptions) -> None:
    for name in sorted(options.disabled | options.dump_after):
        if name not in pass_names():
            raise fail("E302", f"there is no pass `{name}`", help="`infc passes` lists them")


def _run_phase(
    model: ir.Model,
    phase: Phase,
    options: PassOptions,
    records: dict[str, PassRecord],
    on_pass: Callable[[str], None],
) -> None:
    for _ in range(MAX_ROUNDS if phase.repeat else 1):
        changed = False
        for spec in phase.passes:
            if spec.name in options.disabled:
                continue
            on_pass(spec.name)
            record = records.setdefault(spec.name, PassRecord(spec.name))
            changed |= _run_one(model, spec, options, record)
        if not changed:
            return


def _run_one(model: ir.Model, spec: PassSpec, options: PassOptions, record: PassRecord) -> bool:
    before = node_count(model)
    start = time.perf_counter()
    try:
        modified = spec.make()(model).modified
    except InfcError:
        raise
    except Exception as error:
        raise fail(
            "E301",
            f"pass `{spec.name}` failed: {type(error).__name__}: {error}",
            help=f"please report this; go on with `--disable-pass {spec.name}`",
        ) from error
    record.seconds += time.perf_counter() - start
    record.nodes_before = before if not record.runs else record.nodes_before
    record.nodes_after = node_count(model)
    record.removed += before - record.nodes_after
    record.runs += 1
    record.changes += modified
    if modified and options.check_between:
        _check(model, spec)
    if modified and spec.name in options.dump_after:
        _dump(model, options.dump_dir or Path(), f"{record.runs:02d}-{spec.name}.onnx")
    return modified


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

"""`infc debug-accuracy`: layer by layer, source against artifact; the first that diverges.

    bundle + source -> the graphs, made again -> float answers of every layer
                    -> the artifact, built again with every layer as an output -> verdict

    layers       what is compared               rebuilding   the graphs of a bundle
    measuring    builds, runs and compares      verdict      who is to blame

More outputs hinder what a back end fuses. All layers in one artifact are quick and nearly always
enough; `confirm` looks at as many of them again, each in an artifact of its own, in which only
what crosses that layer is not fused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from infc import bundle, pruning, targets
from infc.building import require_toolchain
from infc.bundle import Bundle
from infc.comparison import THRESHOLDS, OutputError, Threshold
from infc.deferral import require_finished
from infc.diagnostics import Diagnostic, ExitCode, Severity, fail
from infc.divergence.layers import Layer, layers_of
from infc.divergence.measuring import Bench, float_answers, is_input
from infc.divergence.rebuilding import load_source, rebuild
from infc.divergence.verdict import Row, State, ceiling_db, first_of, judge, steepest
from infc.feeds import make_feeds, write_feeds
from infc.frontends import Source
from infc.frontends.frameworks import of_back_ends
from infc.frontends.recorded import reading_of
from infc.reference import reference_sets
from infc.request import Precision, VerifyOptions, WorkerLimits
from infc.scratch import scratch_folder
from infc.targets import Artifact, Target
from infc.verification.running import run_artifact
from infc.verification.sets import Sets, compare_sets, recorded_sets

Progress = Callable[[str, str], None]
"""Called with ("", what is being done now)."""


@dataclass(frozen=True, slots=True)
class AccuracyResult:
    """What was found: a row for each layer, in topological order.

    `first` is the first layer that diverges, `steepest` the one that loses the most. `outputs`
    are the errors of the bundle's own artifact, against the source model. `builds` artifacts were
    built. `identical` says that the artifact, built again, is the bundle's to the byte.
    """

    bundle: Path
    target: Target
    threshold_db: float
    sets: int
    inputs: str
    rows: tuple[Row, ...]
    first: Row | None
    steepest: Row | None
    outputs: tuple[OutputError, ...]
    builds: int
    identical: bool
    notes: tuple[Diagnostic, ...]

    @property
    def exit_code(self) -> ExitCode:
        """3 where something diverges."""
        fine = self.first is None and all(error.ok for error in self.outputs)
        return ExitCode.DONE if fine else ExitCode.VERIFICATION_FAILED


def debug_accuracy(
    path: Path,
    source: Path,
    *,
    data: Path | None = None,
    confirm: int = 0,
    min_sqnr_db: float | None = None,
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    toolchains: Mapping[str, str] | None = None,
    allow_pickle: bool = False,
    progress: Progress = lambda target, step: None,
) -> AccuracyResult:
    """Compare every layer of the bundle's artifact with the float graph of its `source`.

    The inputs are those that the bundle keeps, or the arrays of `data`, an `.npz`; random ones
    where there are neither. A layer below `min_sqnr_db`, by default the threshold of the
    precision, diverges. `confirm` layers around the first that does are measured again, each in
    an artifact of its own. Where the artifact is wrong only without checkpoints, the layers that
    are measured alone are found by bisection.

    Raises:
        InfcError: E205 for TorchScript that was traced from the source itself, E606 where `source`
            is another model than the bundle's, E702 for a damaged
            bundle, E501 for a missing back end, E601 where the passes are to blame, E1xx, E5xx.
    """
    subject, target = _open(path, toolchains or {})
    _require_graph(subject)
    require_toolchain(target)
    with scratch_folder() as scratch:
        progress("", "reading the model")
        place, given = scratch / "source", toolchains or {}
        how = reading_of(subject, place, limits, given, allow_pickle=allow_pickle)
        origin = load_source(source, subject, how)
        sets, inputs = _sets(subject, origin, data, scratch, limits, progress)
        progress("", "making its graphs again")
        measured_on = sets.feeds if data is None else _typical(subject, origin, scratch)
        rebuilt = rebuild(subject, target, origin, measured_on, scratch, limits)
        threshold_db = _threshold_db(target.precision, sets, min_sqnr_db)
        layers = layers_of(rebuilt.exact)
        progress("", "running the float graph")
        exact = float_answers(rebuilt, layers, sets, scratch / "exact", limits)
        bench = Bench(rebuilt, sets, exact, scratch, limits, lambda step: progress("", step))
        progress("", "building the artifact again")
        identical = _is_same(subject, *bench.build()[:2])
        progress("", "running the artifact")
        answers, _ = run_artifact(sets, target, subject.entry, scratch / "run", limits)
        held_to = _threshold(target.precision, min_sqnr_db)
        outputs = compare_sets(sets, answers, held_to)
        whole = all(error.ok for error in outputs)
        rows = _rows(bench, layers, threshold_db, confirm, fine=whole)
    return AccuracyResult(
        path,
        target,
        threshold_db,
        len(sets.feeds),
        inputs,
        rows,
        first_of(rows),
        steepest(rows),
        outputs,
        bench.builds,
        identical,
        () if identical else (_differs(path),),
    )


def _require_graph(subject: Bundle) -> None:
    """Refuse an artifact that no graph of infc's was built into.

    Raises:
        InfcError: E205.
    """
    if subject.manifest["artifact"]["notes"].get("path") == "direct":
        raise fail(
            "E205",
            f"`{subject.path}` was traced from the PyTorch model: there is no graph to look into",
            help="compile with `-X path=ir`, and debug that",
        )


def _rows(
    bench: Bench, layers: Sequence[Layer], threshold_db: float, confirm: int, *, fine: bool
) -> tuple[Row, ...]:
    """What is found of `layers`: first in one artifact, then of `confirm` of them alone.

    `fine` says that the bundle's artifact gives right answers.
    """
    errors, reasons = bench.measure(layers)
    compared = tuple(la for la in layers if la.value in errors or not is_input(la))
    most_db = max(ceiling_db(bench.rebuilt.target.precision), threshold_db)

    def judged(alone: Mapping[str, OutputError]) -> tuple[Row, ...]:
        found = {**errors, **alone}
        return judge(compared, found, reasons, frozenset(alone), threshold_db, most_db)

    rows = judged({})
    if first_of(rows) is None:
        return rows if fine or not confirm else judged(_bisect(bench, rows, threshold_db, confirm))
    return judged({k: e for la in _near(rows, confirm) for k, e in bench.measure([la])[0].items()})


def _open(path: Path, toolchains: Mapping[str, str]) -> tuple[Bundle, Target]:
    """The bundle and its target, whose workers run where the user says."""
    subject = bundle.open_bundle(path)
    require_finished(subject)
    recorded = Target.from_json(subject.manifest["target"])
    (target,) = targets.in_toolchains([recorded], of_back_ends(toolchains))
    return subject, target


def _sets(
    subject: Bundle,
    origin: Source,
    data: Path | None,
    scratch: Path,
    limits: WorkerLimits,
    progress: Progress,
) -> tuple[Sets, str]:
    """The inputs with the source model's answers, and what the inputs are."""
    if data is None and _recorded(subject):
        return recorded_sets(subject), str(subject.manifest["verification"]["inputs"])
    progress("", "running the source model")
    options = VerifyOptions(data=data)
    origin = pruning.again(origin, subject.manifest, scratch / "pruned")
    sets = reference_sets(origin, options, scratch / "reference", limits)
    return sets, "random, seed 0" if data is None else "the user's data"


def _recorded(subject: Bundle) -> bool:
    return (subject.path / "reference" / "0").is_dir()


def _typical(subject: Bundle, origin: Source, scratch: Path) -> tuple[Path, ...]:
    """What the ranges of a 16-bit bundle were measured on, as far as that is known."""
    if _recorded(subject):
        return recorded_sets(subject).feeds
    return write_feeds(make_feeds(origin.inputs, VerifyOptions()), scratch / "typical")


def _threshold(precision: Precision, min_sqnr_db: float | None) -> Threshold:
    own = THRESHOLDS[precision]
    return own if min_sqnr_db is None else replace(own, sqnr_db=min_sqnr_db)


def _threshold_db(precision: Precision, sets: Sets, min_sqnr_db: float | None) -> float:
    """What a layer is held to: also no better than the arithmetic of the source model."""
    if min_sqnr_db is not None:
        return min_sqnr_db
    coarse = {precision, *sets.computed_in.values()}
    return min(THRESHOLDS[p].sqnr_db for p in coarse)


def _is_same(subject: Bundle, folder: Path, artifact: Artifact) -> bool:
    """Whether the artifact, built again, is the bundle's."""
    recorded = {
        file: subject.manifest["files"][file]["sha256"]
        for file in subject.manifest["artifact"]["files"]
    }
    again = {f"model/{file}": bundle.sha256_of(folder / "model" / file) for file in artifact.files}
    return recorded == again


def _differs(path: Path) -> Diagnostic:
    return Diagnostic(
        "E607",
        f"the artifact of `{path}`, built again, is not the same to the byte",
        help="another version of infc or of the back end, other samples, or a key: what is said "
        "of its layers may not be true of the bundle",
        severity=Severity.WARNING,
    )


def _near(rows: Sequence[Row], count: int) -> list[Layer]:
    """The `count` layers nearest to the first that diverges, of two as near the earlier one."""
    compared = _telling(rows)
    at = next(i for i, row in enumerate(compared) if row.state is State.DIVERGES)
    nearest = sorted(range(len(compared)), key=lambda i: (abs(i - at), i > at))
    return [compared[i].layer for i in sorted(nearest[:count])]


def _telling(rows: Sequence[Row]) -> list[Row]:
    """Those that were compared, but for what is given away wrongly and computed with rightly."""
    return [row for row in rows if row.error is not None and row.state is not State.HARMLESS]


def _bisect(
    bench: Bench, rows: Sequence[Row], threshold_db: float, most: int
) -> dict[str, OutputError]:
    """Errors of at most `most` layers, each measured alone: the first that is wrong then.

    Its neighbour before is among them. From the layer on that is wrong all are taken to be.
    """
    layers = [row.layer for row in _telling(rows)]
    found: dict[str, OutputError] = {}
    low, high = -1, len(layers)  # the layer `low` is right, `high` is wrong
    while high - low > 1 and len(found) < most:
        middle = (low + high) // 2
        error = bench.measure([layers[middle]])[0].get(layers[middle].value)
        if error is None:
            del layers[middle]
            high -= 1
            continue
        found[layers[middle].value] = error
        if error.sqnr_db is not None and error.sqnr_db < threshold_db:
            high = middle
        else:
            low = middle
    return found

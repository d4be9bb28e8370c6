"""Channel pruning of a command's model: done, proved, and what it costs.

    optimised graph -> pruned graph, which is the reference of all that follows

Proved is that the channels are really those: the graph without them answers as the graph in which
their weights are zero. What pruning itself changes is told, not judged: parameters and MACs, SQNR
against the source, the metric before and after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import building, comparison, frontends, pipeline
from infc.diagnostics import InfcError, fail
from infc.feeds import shape_at
from infc.formatting import count
from infc.frontends import Source
from infc.mixed_precision.evaluation import ANYTHING
from infc.mixed_precision.labelled import PACK, is_batched
from infc.mixed_precision.preparing import call
from infc.outcomes import Progress
from infc.passes import pass_names
from infc.prune_options import PruneOptions
from infc.reference import Reference
from infc.request import PassOptions, Precision, WorkerLimits
from infc.signature import TensorSpec, load_tensors
from infc.verification.running import UNOPTIMIZED, run_entry
from infc.verification.sets import Sets, compare_sets

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.passes.pruning import Amount, PruningRecord

REFERENCE = "the pruned graph, nothing optimised"
"""What a bundle of a pruned model is compared with."""
ONNX_RUNTIME = "infc.targets.onnxruntime"


@dataclass(frozen=True, slots=True)
class Pruned:
    """`reference` answers as the pruned graph does, None where no proof is asked for.

    `document` is what the manifest says.
    """

    reference: Reference | None
    document: dict[str, Any]


def prune(
    options: PruneOptions,
    source: Source,
    outputs: tuple[TensorSpec, ...],
    reference: Reference | None,
    stage: Path,
    limits: WorkerLimits,
    progress: Progress,
) -> Pruned:
    """Prune `source.model`, the optimised graph, in place, in the new folder `stage`.

    Raises:
        InfcError: E424 where nothing can be removed, E303 where removing is not zeroing, E401 to
            E407 and E423 for the labelled data.
    """
    from infc.passes.pruning import prune, silenced

    progress("", "pruning channels")
    amount = _amount(options)
    before = source.model.clone()
    silent = None if reference is None else silenced(source.model, amount)
    record = prune(source.model, amount, _typical_sizes(source.inputs))
    if not record.pruned:
        raise fail(
            "E424",
            f"`--prune {options.part:.4g}` removes no channel: there "
            f"{'is' if record.layers == 1 else 'are'} {count(record.layers, 'layer')} with weights",
            help="a larger part, `--prune-multiple 1`, or `--prune-normalized` may find some; "
            "`infc explain E424` has more",
        )
    stage.mkdir(parents=True)
    document = {**options.to_json(), **_figures(record)}
    judge = None
    if reference is not None and silent is not None:
        progress("", "verifying the pruned graph")
        pruned = _as_source(source, stage)
        judge = Reference(pruned, reference.options, stage / "reference", limits)
        if record.exact:
            _require_silence(judge, silent, outputs, stage, limits)
        document["outputs"] = _changes(reference.sets, pruned, outputs, stage, limits)
    if options.labelled is not None:
        progress("", "running labelled data before and after pruning")
        document["metric"] = _metric(options, before, source, outputs, stage, limits)
    return Pruned(judge, document)


def _amount(options: PruneOptions) -> Amount:
    from infc.passes.pruning import Amount

    return Amount(options.part, options.scope, options.norm, options.multiple, options.normalized)


def _typical_sizes(inputs: tuple[TensorSpec, ...]) -> dict[str, int]:
    return {
        dim: size
        for spec in inputs
        if spec.shape is not None
        for dim, size in zip(spec.shape, shape_at(spec, 1, {}), strict=True)
        if isinstance(dim, str)
    }


def _figures(record: PruningRecord) -> dict[str, Any]:
    def pair(numbers: tuple[int, int] | None) -> dict[str, int] | None:
        return None if numbers is None else {"before": numbers[0], "after": numbers[1]}

    return {
        "exact": record.exact,
        "layers": [asdict(layer) for layer in record.pruned],
        "layers_with_weights": record.layers,
        "parameters": pair(record.parameters),
        "macs": pair(record.macs),
    }


def _as_source(source: Source, folder: Path) -> Source:
    """The pruned graph as the model that answers are compared with."""
    entry = folder / "pruned.onnx"
    building.save_model(source.model, entry)
    options = {"graph-optimization": "off"}
    judge = frontends.Reference(ONNX_RUNTIME, entry, options)
    return replace(source, reference=judge, origin=None)


def _run(
    model: Path,
    feeds: Sequence[Path],
    outputs: tuple[TensorSpec, ...],
    folder: Path,
    limits: WorkerLimits,
) -> tuple[Path, ...]:
    folder.mkdir(exist_ok=True)
    names = list(load_tensors(feeds[0])), [s.name for s in outputs]
    what = "the pruned graph"
    return run_entry(ONNX_RUNTIME, model, UNOPTIMIZED, feeds, names, folder, limits, what)


def _require_silence(
    judge: Reference,
    silent: ir.Model,
    outputs: tuple[TensorSpec, ...],
    stage: Path,
    limits: WorkerLimits,
) -> None:
    folder = stage / "silent"
    folder.mkdir()
    building.save_model(silent, folder / "model.onnx")

    what = "the graph with the weights of the removed channels at zero"

    def check(sets: Sets) -> tuple[comparison.OutputError, ...]:
        answers = _run(folder / "model.onnx", sets.feeds, outputs, folder, limits)
        errors = compare_sets(sets, answers, comparison.THRESHOLDS[Precision.FP32])
        comparison.require(errors, "E601", what, "")
        return errors

    try:
        judge.require(check, judge.source.model)
    except InfcError as error:
        first = error.diagnostics[0]
        if first.code != "E601":
            raise
        help = "please report this, and leave `--prune` out meanwhile"
        raise fail("E303", first.message, notes=first.notes, help=help) from error


def _changes(
    sets: Sets, pruned: Source, outputs: tuple[TensorSpec, ...], stage: Path, limits: WorkerLimits
) -> list[dict[str, Any]]:
    """How far the pruned graph is from the source model, by output."""
    folder = stage / "changes"
    folder.mkdir()
    answers = _run(pruned.reference.entry, sets.feeds, outputs, folder, limits)
    rows = [error.to_json() for error in compare_sets(sets, answers, ANYTHING)]
    return [{k: v for k, v in row.items() if k != "ok"} for row in rows]


def _metric(
    options: PruneOptions,
    before: ir.Model,
    source: Source,
    outputs: tuple[TensorSpec, ...],
    stage: Path,
    limits: WorkerLimits,
) -> dict[str, Any]:
    """The metric of the graph before and after, on the labelled data.

    Raises:
        InfcError: E401 to E407 and E423.
    """
    exact, pruned = stage / "before.onnx", stage / "after.onnx"
    building.save_model(before, exact)
    building.save_model(source.model, pruned)
    home, names = str(Path.cwd()), [s.name for s in outputs]
    subject = {
        "model": str(exact.resolve()),
        "outputs": names,
        "feeds": [],
        "reference": [],
        "ranges": "",
        "calibration": {},
        "labelled": {"feeds": []},
    }
    payload = {
        "subject": subject,
        "data": options.labelled,
        "metric": options.metric,
        "home": home,
        "inputs": [s.to_json() for s in source.inputs],
        "pack": PACK if is_batched([*source.inputs, *outputs]) else 1,
        "preprocess": None if options.preprocess is None else str(options.preprocess),
        "batch": options.batch,
        "folder": str((stage / "labelled").resolve()),
    }
    found = call("label", payload, stage / "label", limits, "the labelled data")
    answers = _run(
        pruned, [Path(folder) for folder in found["feeds"]], outputs, stage / "answers", limits
    )
    scored = {
        **{key: found[key] for key in ("labels", "data")},
        "metric": options.metric,
        "home": home,
        "outputs": names,
        "answers": [str(folder.resolve()) for folder in answers],
    }
    after = call("score", scored, stage / "score", limits, "the metric")
    return {
        "name": options.metric,
        "samples": found["samples"],
        "before": round(float(found["exact"]), 9),
        "after": round(float(after["metric"]), 9),
    }


def again(source: Source, manifest: Mapping[str, Any], stage: Path) -> Source:
    """What a bundle's answers are compared with: `source`, or what was left of it by pruning.

    `manifest` is the bundle's; `source` itself stays as it is. The pruned graph goes to the new
    folder `stage`.
    """
    if "pruning" not in manifest:
        return source
    model = source.model.clone()
    ran = {row["name"] for row in manifest["passes"]}
    pipeline.run(model, PassOptions(disabled=frozenset(pass_names()) - ran))
    repeat(model, manifest)
    stage.mkdir(parents=True)
    return _as_source(replace(source, model=model), stage)


def repeat(model: ir.Model, manifest: Mapping[str, Any]) -> None:
    """Prune the optimised graph `model` in place as it was for the bundle of `manifest`, if so."""
    from infc.passes.pruning import prune

    if "pruning" in manifest:
        prune(model, _amount(PruneOptions.from_json(manifest["pruning"])), {})

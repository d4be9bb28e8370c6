"""What a budget is held against: samples, labels, the float graph's answers, sensitivity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import building, workers
from infc.budget import TOP1, BudgetOptions
from infc.diagnostics import fail
from infc.mixed_precision.evaluation import Figures
from infc.mixed_precision.labelled import PACK, is_batched
from infc.mixed_precision.layers import CANONICAL, scheme_to_json
from infc.mixed_precision.sensitivity import Layer, Sensitivity, cache_key, keep, load_cached
from infc.mixed_precision.worker import MEASURED_LABELLED, MEASURED_RUNS
from infc.places import cache_folder
from infc.quantizing import Calibrated
from infc.request import CalibrationOptions, WorkerLimits
from infc.signature import TensorSpec
from infc.verification.running import UNOPTIMIZED, run_entry
from infc.verification.sets import Sets

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.calibration.ranges import Ranges
    from infc.quantizing import Opener

RUNS = 64
"""Of calibration samples, spread evenly over all, that an SQNR is measured on."""
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Budget:
    """A command's budget, the same for all of its targets.

    `sets` are calibration samples with the float graph's answers, `labelled` the runs of the
    labelled data, which has so many `samples`, `exact` what the float graph scores on them. `job`
    is what workers are told.
    """

    options: BudgetOptions
    sets: Sets
    labelled: tuple[Path, ...]
    samples: int
    exact: Figures
    sensitivity: Sensitivity | None
    job: Mapping[str, Any]


def prepare(
    options: BudgetOptions,
    model: ir.Model,
    calibrated: Calibrated | None,
    signature: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
    calibration: CalibrationOptions | None,
    samples: Opener | None,
    scratch: Path,
    limits: WorkerLimits,
    tell: Tell,
) -> Budget:
    """Run the float graph on the data of the budget, and measure how sensitive its layers are.

    `model` is the optimised graph, `calibrated` what was made of it for the targets that Q/DQ is
    written for, if there are such.

    Raises:
        InfcError: E110 for a model that came quantised, E401 to E407 and E423 for the data, E414
            without any, E423 for the metric.
    """
    from infc.calibration.exporting import export

    if calibration is None or samples is None:
        raise fail("E414", "a budget needs calibration data: `--calibration DATA`")
    _require_float(model)
    ranges = None if calibrated is None else calibrated.ranges
    inputs, outputs = signature
    scratch.mkdir(parents=True)
    file = scratch / "model.onnx"
    building.save_model(model if calibrated is None else calibrated.model, file)
    if ranges is not None:
        (scratch / "ranges.json").write_text(ranges.dump(), encoding="utf-8")
    tell("running the float graph on samples")
    feeds = export(samples(), RUNS, scratch / "samples", scratch / "export", limits)
    names = [s.name for s in inputs], [s.name for s in outputs]
    answers = run_entry(
        "infc.targets.onnxruntime",
        *(file, UNOPTIMIZED, feeds, names, scratch / "float", limits, "the float graph"),
    )
    job: dict[str, Any] = {
        "model": str(file.resolve()),
        "ranges": str((scratch / "ranges.json").resolve()),
        "outputs": names[1],
        "feeds": [str(folder.resolve()) for folder in feeds],
        "reference": [str(folder.resolve()) for folder in answers],
        "calibration": {"method": calibration.method, "percentile": calibration.percentile},
        "labelled": {"feeds": []},
        "budget": asdict(options),
    }
    found: dict[str, Any] = {}
    if options.max_drop is not None:
        tell("running the float graph on labelled data")
        found = _label(options, job, signature, calibration, scratch, limits)
        home = str(Path.cwd())
        job["labelled"] = {**found, "metric": options.metric, "home": home}
    sensitivity = None
    if ranges is not None:
        sensitivity = _sensitivity(options, job, ranges, scratch, limits, tell)
    return Budget(
        options,
        Sets(feeds, answers),
        tuple(Path(folder) for folder in job["labelled"]["feeds"]),
        found.get("samples", 0),
        Figures(metric=found.get("exact")),
        sensitivity,
        job,
    )


def _require_float(model: ir.Model) -> None:
    from infc.passes.quantization import is_quantized

    if is_quantized(model):
        raise fail(
            "E110",
            "the model came quantised: there is no float model to hold a budget against",
            help="leave `--min-sqnr` and `--max-drop` out, or give the model it was made of",
        )


def _label(
    options: BudgetOptions,
    job: Mapping[str, Any],
    signature: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
    calibration: CalibrationOptions,
    scratch: Path,
    limits: WorkerLimits,
) -> dict[str, Any]:
    payload = {
        "subject": job,
        "data": options.labelled,
        "metric": options.metric,
        "home": str(Path.cwd()),
        "inputs": [s.to_json() for s in signature[0]],
        "pack": PACK if is_batched([*signature[0], *signature[1]]) else 1,
        "preprocess": None if calibration.preprocess is None else str(calibration.preprocess),
        "batch": calibration.batch,
        "folder": str((scratch / "labelled").resolve()),
    }
    return call("label", payload, scratch / "label", limits, "the labelled data")


def _sensitivity(
    options: BudgetOptions,
    job: Mapping[str, Any],
    ranges: Ranges,
    scratch: Path,
    limits: WorkerLimits,
    tell: Tell,
) -> Sensitivity:
    """From the cache where the same was measured before."""
    model, data, row = ranges.model, ranges.data, job["labelled"]
    # Nobody knows what somebody's code will do the next time.
    stable = bool(data) and (not row["feeds"] or (options.metric == TOP1 and row["data"]))
    key = cache_key(
        *(model, data, row.get("data"), job["calibration"], scheme_to_json(CANONICAL)),
        *(MEASURED_RUNS, MEASURED_LABELLED),
    )
    place = cache_folder() / "sensitivity" / f"{key}.json"
    cached = load_cached(place) if stable else None
    if cached is not None:
        return cached
    tell("measuring sensitivity")
    answer = call(
        "measure",
        job,
        scratch / "measure",
        limits,
        "the graph with one layer quantised",
        lambda r: tell(f"measuring sensitivity {r['done']}/{r['total']}"),
    )
    found = Sensitivity(
        model,
        data,
        min(len(job["feeds"]), MEASURED_RUNS),
        options.metric if row["feeds"] else None,
        row.get("samples_few", 0),
        Figures(metric=row.get("exact_few")),
        tuple(Layer(r["name"], r["op_type"], Figures.from_json(r)) for r in answer["layers"]),
    )
    if stable:
        keep(place, found)
    return found


def call(
    action: str,
    payload: Mapping[str, Any],
    scratch: Path,
    limits: WorkerLimits,
    what: str,
    progress: workers.Progress | None = None,
) -> dict[str, Any]:
    """Call an action of `infc.mixed_precision.worker`.

    Raises:
        InfcError: as `workers.call`.
    """
    job = workers.Call(
        "infc.mixed_precision.worker", action, dict(payload), scratch, scratch / "log", what
    )
    said: list[Any] = [None]

    def changed(values: Mapping[str, Any]) -> None:
        # It is looked at several times a second.
        if progress is not None and values != said[0]:
            said[0] = values
            progress(values)

    return workers.call(job, limits, changed if progress is not None else None)

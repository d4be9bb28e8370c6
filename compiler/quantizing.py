"""INT8 for a whole command: calibrated once, written into the graph for each target.

calibrate   equalise a clone of the optimised graph, run it on the samples, keep the ranges
quantized   a clone of that with the Q/DQ that one back end's scheme wants
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.calibration.remarks import no_data
from infc.diagnostics import Diagnostic, did_you_mean, fail
from infc.request import CalibrationOptions, VerifyOptions, WorkerLimits
from infc.signature import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from infc.calibration.data import Samples
    from infc.calibration.pictures import Picture
    from infc.calibration.ranges import Ranges
    from infc.quantization import QuantizationRecord, Range, Scheme

    Array = np.ndarray[Any, Any]
    Opener = Callable[[], Samples]

RANGES = "ranges.json"
"""Where a bundle keeps the ranges that it was quantised with."""
PROOF_SAMPLES = 4
"""How many of the samples an INT8 artifact is verified on: a range that was measured on real data
says nothing about random numbers."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What INT8 needs, whatever the target: the equalised graph, and its ranges.

    `model` is cloned before anything is written into it. `ranges` is None for a model that came
    quantised. `notes` are what is remarkable about the data.
    """

    model: ir.Model
    ranges: Ranges | None
    options: CalibrationOptions | None
    equalized: tuple[tuple[str, str], ...]
    notes: tuple[Diagnostic, ...]


def opener(options: CalibrationOptions | None, inputs: Sequence[TensorSpec]) -> Opener | None:
    """What opens the calibration samples when it is first called; None without any.

    It raises E401 to E407 for the data.
    """
    if options is None:
        return None

    @cache
    def opened() -> Samples:
        from infc.calibration.data import open_samples

        return open_samples(options, inputs)

    return opened


def proof_inputs(
    samples: Opener,
    verify: VerifyOptions,
    scratch: Path,
    limits: WorkerLimits,
) -> VerifyOptions:
    """`verify` with a few of the calibration samples as its inputs.

    Raises:
        InfcError: E401 to E407 for the data.
    """
    from infc.calibration.exporting import export

    folders = export(samples(), PROOF_SAMPLES, scratch / "folders", scratch / "worker", limits)
    return replace(verify, calibration=folders)


def calibrate(
    model: ir.Model,
    samples: Opener | None,
    options: CalibrationOptions | None,
    wanting: Mapping[str, Scheme],
    scratch: Path,
    limits: WorkerLimits,
    progress: Callable[[str], None],
    also: Sequence[Scheme] = (),
) -> Calibrated:
    """Measure the ranges that the INT8 schemes `wanting` need, in one pass over the samples.

    `wanting` has the names of targets, or of schemes, for messages. What the schemes `also` need
    is measured with it.

    Raises:
        InfcError: E414 without data, E401 to E407 for the data, E412 for NaN, E413 where the
            model does not run.
    """
    from infc import calibration
    from infc.passes.quantization import equalize, is_quantized, observed

    if is_quantized(model):
        return Calibrated(model, None, options, (), ())
    if options is None or samples is None:
        raise no_data(wanting)
    schemes = {scheme.name: scheme for scheme in (*wanting.values(), *also)}.values()
    subject = model.clone()
    equalized = equalize(subject)
    wanted = dict.fromkeys(name for scheme in schemes for name in observed(subject, scheme))
    if not wanted:
        return Calibrated(subject, None, options, equalized, ())

    def tell(done: int, total: int | None) -> None:
        progress(f"calibrating {done}/{total}" if total else f"calibrating {done}")

    measured = calibration.calibrate(
        subject, list(wanted), samples(), scratch / "worker", limits, tell
    )
    return Calibrated(subject, measured.ranges, options, equalized, measured.diagnostics)


def require_nodes(model: ir.Model, names: frozenset[str]) -> None:
    """Refuse names that neither a node of the optimised graph has nor what one gives.

    Raises:
        InfcError: E110 with the nearest name there is.
    """
    known = {n.name for n in model.graph if n.name}
    known |= {v.name for n in model.graph for v in n.outputs if v.name}
    for name in sorted(names - known):
        raise fail(
            "E110",
            f"`--keep-float {name}` names no node of the optimised graph",
            help=f"{did_you_mean(name, sorted(known))}`infc inspect` lists the source model's",
        )


@dataclass(frozen=True, slots=True)
class Quantized:
    """A graph with one back end's Q/DQ, what was done, and the ranges its scales are of."""

    model: ir.Model
    record: QuantizationRecord
    spans: Mapping[str, Range]


def quantized(
    calibrated: Calibrated, scheme: Scheme, keep_float: frozenset[str] = frozenset()
) -> Quantized:
    """A clone of the calibrated graph with Q/DQ; the nodes in `keep_float` stay in float."""
    from infc.passes.quantization import quantize

    model = calibrated.model.clone()
    if calibrated.ranges is None:
        return Quantized(model, quantize(model, {}, scheme), {})
    spans, means = chosen(calibrated, scheme)
    record = quantize(model, spans, scheme, keep_float=keep_float, means=means)
    return Quantized(model, record, {k: v for k, v in spans.items() if k in record.tensors})


def chosen(calibrated: Calibrated, scheme: Scheme) -> tuple[dict[str, Range], dict[str, Array]]:
    """The ranges, and the means of channels, that `scheme` needs, by value; no range is missing."""
    from infc.passes.quantization import observed

    ranges, options = calibrated.ranges, calibrated.options
    if ranges is None or options is None:
        return {}, {}
    names = [name for name in observed(calibrated.model, scheme) if name in ranges.tensors]
    spans = ranges.choose(
        names, options.method, options.percentile, scheme.activation, scheme.symmetric
    )
    return spans, {n: m for n in names if (m := ranges.tensors[n].means) is not None}


def describe(calibrated: Calibrated, result: Quantized) -> dict[str, Any]:
    """What the manifest says about it."""
    record = result.record
    out: dict[str, Any] = {
        "scheme": record.scheme,
        "already": record.already,
        "quantized": len(record.quantized),
        "kept": [{"node": n, "reason": why} for n, why in sorted(record.kept.items())],
    }
    if calibrated.ranges is not None and calibrated.options is not None:
        method = calibrated.options.method
        out["calibration"] = {
            "method": method,
            **({"percentile": calibrated.options.percentile} if method == "percentile" else {}),
            "samples": calibrated.ranges.samples,
            "data": calibrated.ranges.data,
        }
        out["equalized"] = [list(pair) for pair in calibrated.equalized]
    return out


def pictures(calibrated: Calibrated, result: Quantized) -> list[Picture]:
    """The histograms that the report shows."""
    from infc.calibration import pictures as drawing

    if calibrated.ranges is None:
        return []
    return drawing.pictures(calibrated.ranges, result.spans)

"""A bundle's graphs, made once more: the float one, and the one that its artifact was built of.

    source -> passes -> float graph (equalised for INT8) -> Q/DQ or 16 bits -> target's graph

with what the manifest and the ranges file of the bundle say: the shapes, the passes left out, the
ranges and their method, the layers kept in float. What the float values lie between, for the guard
against overflow, is measured on the recorded inputs, and what the manifest names as too large is
taken from there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import (
    building,
    frontends,
    native_io,
    native_types,
    pipeline,
    precision,
    pruning,
    quantizing,
)
from infc.bundle import Bundle
from infc.diagnostics import fail
from infc.frontends import Reading, Source, recorded
from infc.measured import Measured
from infc.passes import pass_names
from infc.quantization import Range
from infc.quantizing import Calibrated
from infc.request import CalibrationOptions, PassOptions, Precision, VerifyOptions, WorkerLimits
from infc.signature import TensorSpec
from infc.targets import BackEnd, Target, back_end
from infc.targets.abilities import samples_of
from infc.targets.schemes import scheme_of

if TYPE_CHECKING:
    import onnx_ir as ir

_DEFAULT = CalibrationOptions("-")


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """`exact`: the float graph. `model`: the target's, before its back end legalises it.

    `rounded` says that Q/DQ was written into `model`; `samples` are the tensor folders that a
    back end gets that quantises by itself.
    """

    exact: ir.Model
    model: ir.Model
    end: BackEnd
    target: Target
    signature: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]
    source_name: str
    rounded: bool
    samples: tuple[Path, ...]


def load_source(path: Path, subject: Bundle, how: Reading) -> Source:
    """The source model of `subject` with the shapes that it was compiled with.

    Raises:
        InfcError: E606 where `path` is another model, E1xx.
    """
    said = subject.manifest["source"]
    imported = recorded.is_imported(subject)
    # Another ONNX model's inputs may have other shapes: it is told apart before they are given.
    source = recorded.load(path, subject, how) if imported else frontends.load(path, how=how)
    if source.sha256 != said["sha256"]:
        raise fail(
            "E606",
            f"`{path}` is not the model that `{subject.path}` was compiled from",
            notes=(
                f"`{said['file']}` had SHA-256 {said['sha256']}\n`{path.name}` has {source.sha256}",
            ),
            help="name that model, or compile this one again",
        )
    return source if imported else recorded.load(path, subject, how)


def rebuild(
    subject: Bundle,
    target: Target,
    source: Source,
    measured_on: Sequence[Path],
    scratch: Path,
    limits: WorkerLimits,
) -> Rebuilt:
    """Make the graphs of `subject` again; `measured_on` are tensor folders of typical inputs.

    Raises:
        InfcError: E301, E411 for damaged ranges, E204, and what measuring may raise.
    """
    end = back_end(target.back_end)
    ran = {row["name"] for row in subject.manifest["passes"]}
    pipeline.run(source.model, PassOptions(disabled=frozenset(pass_names()) - ran))
    pruning.repeat(source.model, subject.manifest)
    exact, neutral = source.model, source.model.clone()
    calibrated, quantized = _calibrated(subject, exact), None
    scheme = scheme_of(end)
    if calibrated is not None and scheme is not None:
        exact = calibrated.model
        if native_types.converted((*subject.inputs, *subject.outputs)):
            scheme = replace(scheme, least_channels=1)  # as in `assembly`
        quantized = quantizing.quantized(calibrated, scheme, _kept(subject))
        neutral = quantized.model
    measured = _Recorded(
        exact,
        source.inputs,
        None,
        VerifyOptions(calibration=tuple(measured_on)),
        scratch / "measured",
        limits,
    )
    measured.known = _overflowing(subject)
    raised = building.raise_opset(neutral, end)
    if quantized is None:
        model = precision.lower(raised, target, measured, _asked(subject)).model
    else:
        kept = _asked(subject) | frozenset(quantized.record.quantized)
        model = precision.lower_rest(raised, target, _fallback(subject), measured, kept).model
    if native_types.converted((*subject.inputs, *subject.outputs)):
        native_io.apply(model, target, (source.inputs, subject.outputs), measured)
    wanted = samples_of(end)
    own = wanted is not None and target.precision is Precision.INT8 and wanted(target) > 0
    return Rebuilt(
        exact,
        model,
        end,
        target,
        (subject.inputs, subject.outputs),
        source.path.name,
        calibrated is not None and calibrated.ranges is not None,
        tuple(measured_on) if own else (),
    )


def _calibrated(subject: Bundle, model: ir.Model) -> Calibrated | None:
    """What the bundle was quantised with; None where Q/DQ is not how it came about."""
    from infc.calibration.ranges import load
    from infc.passes.quantization import equalize

    document = subject.manifest.get("quantization")
    if document is None:
        return None
    row = document.get("calibration")
    if row is None:  # it came quantised
        return Calibrated(model, None, None, (), ())
    percentile = row.get("percentile", _DEFAULT.percentile)
    options = CalibrationOptions("-", method=row["method"], percentile=percentile)
    equalized = model.clone()
    pairs = equalize(equalized)
    return Calibrated(equalized, load(subject.path / quantizing.RANGES), options, pairs, ())


def _kept(subject: Bundle) -> frozenset[str]:
    """The layers that stayed in float, because the user said so or for a budget."""
    budget: Mapping[str, Any] = subject.manifest["quantization"].get("budget") or {}
    return frozenset(budget.get("keep", ())) | _asked(subject)


def _fallback(subject: Bundle) -> Precision:
    """What computes that is not quantised."""
    to = subject.manifest.get("conversion", {}).get("to")
    return next((p for p, name in precision.TYPES.items() if name == to), Precision.FP32)


def _asked(subject: Bundle) -> frozenset[str]:
    return frozenset(subject.manifest.get("keep_float", ()))


class _Recorded(Measured):
    """What can be measured, but for the values that the manifest says something about."""

    known: Mapping[str, Range]

    def ranges(self) -> Mapping[str, Range]:
        """As `Measured.ranges`."""
        return {**super().ranges(), **self.known}


def _overflowing(subject: Bundle) -> dict[str, Range]:
    rows = subject.manifest.get("conversion", {}).get("overflow", ())
    return {
        row["value"]: Range(
            -math.inf if row["low"] is None else row["low"],
            math.inf if row["high"] is None else row["high"],
        )
        for row in rows
    }

"""float16 and bfloat16 for a target: the graph converted, as its back end wants that.

    raise the opset -> convert what computes in the type -> store the other weights in it

What the values lie between, for the guard against overflow, is measured once for all targets: on
the calibration data where the user gives some, else on the inputs of the verification. The graph
measures itself: a ReduceMax and a ReduceMin on every value, whose results are two vectors.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import building, dynamic_int8
from infc.diagnostics import Diagnostic, InfcError, Severity, fail
from infc.feeds import make_feeds, write_feeds
from infc.formatting import listed
from infc.quantization import Range
from infc.request import CalibrationOptions, Precision, VerifyOptions, WorkerLimits
from infc.signature import TensorSpec, load_tensors
from infc.targets import Target, back_end
from infc.targets.arithmetic import Arithmetic, arithmetic_of
from infc.targets.schemes import scheme_of
from infc.verification import UNOPTIMIZED, run_entry

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.passes.precision import PrecisionRecord

TYPES = {Precision.FP16: "float16", Precision.BF16: "bfloat16"}


@dataclass(slots=True)
class Measured:
    """What the float32 values of `model`, the optimised graph, lie between; found when needed.

    `scratch` is a folder that may not exist yet.
    """

    model: ir.Model
    inputs: Sequence[TensorSpec]
    calibration: CalibrationOptions | None
    verify: VerifyOptions
    scratch: Path
    limits: WorkerLimits
    _ranges: dict[str, Range] | None = field(init=False, default=None)

    @property
    def source(self) -> str:
        """What the values are measured on."""
        if self.calibration is not None:
            return "the calibration data"
        return "the user's data" if self.verify.data is not None else "random inputs"

    def ranges(self) -> Mapping[str, Range]:
        """The range of every value by name; those that could not be measured are left out.

        Raises:
            InfcError: E401 to E413 for calibration data that does not serve.
        """
        if self._ranges is None:
            self.scratch.mkdir(parents=True, exist_ok=True)
            names = _float_values(self.model)
            if self.calibration is not None:
                self._ranges = self._calibrated(self.calibration, names)
            else:
                self._ranges = self._probed(names)
        return self._ranges

    def _calibrated(self, options: CalibrationOptions, names: list[str]) -> dict[str, Range]:
        from infc import calibration
        from infc.calibration.data import open_samples

        names = [*names, *(s.name for s in self.inputs if s.dtype == "float32")]
        samples = open_samples(options, self.inputs)
        found = calibration.calibrate(
            self.model, names, samples, self.scratch / "worker", self.limits
        )
        return {
            name: Range(s.low - beyond, s.high + beyond)
            for name, s in found.ranges.tensors.items()
            for beyond in (math.inf if s.infinities else 0.0,)
        }

    def _probed(self, names: list[str]) -> dict[str, Range]:
        feeds = write_feeds(make_feeds(self.inputs, self.verify), self.scratch)
        ranges = {
            name: Range(float(array.min()), float(array.max()))
            for folder in feeds
            for name, array in load_tensors(folder).items()
            if array.dtype.name == "float32" and array.size
        }
        if not names:
            return ranges
        building.save_model(probe(self.model, names), self.scratch / "model.onnx")
        try:
            answers = run_entry(
                "infc.targets.onnxruntime",
                self.scratch / "model.onnx",
                UNOPTIMIZED,
                feeds,
                ([s.name for s in self.inputs], list(PROBES)),
                self.scratch,
                self.limits,
                "the optimised graph, measured",
            )
        except InfcError:
            # An empty tensor has no greatest element: nothing is known then, and less converted.
            return {}
        for folder in answers:
            lows, highs = (load_tensors(folder)[name] for name in PROBES)
            for name, low, high in zip(names, lows, highs, strict=True):
                old = ranges.get(name, Range(0.0, 0.0))
                ranges[name] = Range(min(float(low), old.low), max(float(high), old.high))
        return ranges


PROBES = ("infc_lows", "infc_highs")


def _float_values(model: ir.Model) -> list[str]:
    """The names of what the nodes of the main graph give in float32."""
    import onnx_ir as ir

    return [
        str(value.name)
        for node in model.graph
        for value in node.outputs
        if value.name
        and value.dtype == ir.DataType.FLOAT
        and isinstance(value.type, ir.TensorType)
        and node.op_type != "Constant"
    ]


def probe(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A clone of `model` with two outputs (N,), float32: the least and greatest of each value."""
    import numpy as np
    import onnx_ir as ir

    copy = model.clone()
    graph = copy.graph
    wanted = set(names)
    values = [v for node in graph for v in node.outputs if v.name in wanted]
    one = ir.Value(name="infc_one", const_value=ir.tensor(np.array([1], np.int64)))
    graph.register_initializer(one)
    found = []
    for op_type, name in zip(("ReduceMin", "ReduceMax"), PROBES, strict=True):
        rows = []
        for value in values:
            least = ir.node(op_type, [value], {"keepdims": 0})
            row = ir.node("Reshape", [least.outputs[0], one])
            graph.extend((least, row))
            rows.append(row.outputs[0])
        joined = ir.node("Concat", rows, {"axis": 0})
        joined.outputs[0].name = name
        joined.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        joined.outputs[0].shape = ir.Shape([len(values)])
        graph.append(joined)
        found.append(joined.outputs[0])
    graph.outputs.clear()
    graph.outputs.extend(found)
    return copy


@dataclass(frozen=True, slots=True)
class Lowered:
    """A graph in a target's precision, what the manifest says of it, and the warnings."""

    model: ir.Model
    document: Mapping[str, Any] | None
    warnings: tuple[Diagnostic, ...]


def require_keeping(target: Target, keep_float: frozenset[str]) -> None:
    """Refuse nodes that are to stay in float32 where the back end decides that by itself.

    Raises:
        InfcError: E205.
    """
    end, precision = back_end(target.back_end), target.precision
    if not keep_float or precision is Precision.FP32:
        return
    if precision is Precision.INT8_DYNAMIC:
        chosen = True
    elif precision is Precision.INT8:
        chosen = scheme_of(end) is not None
    else:
        arithmetic = arithmetic_of(end, precision)
        chosen = arithmetic is not None and (arithmetic.converts or bool(arithmetic.stores))
    if not chosen:
        raise fail(
            "E205",
            f"`--keep-float`: `{target.name}` decides by itself what computes in {precision}",
            help="compile for it at fp32, or leave `--keep-float` out",
        )


def lower(
    model: ir.Model,
    target: Target,
    measured: Measured,
    keep_float: frozenset[str] = frozenset(),
) -> Lowered:
    """`model`, a clone of the optimised graph, as `target` wants it at its precision.

    `keep_float` names nodes, or values that they give, that stay in float32.

    Raises:
        InfcError: as `Measured.ranges`, and `dynamic_int8.lower`.
    """
    from infc.passes.precision.store import store

    if target.precision is Precision.INT8_DYNAMIC:
        return Lowered(model, dynamic_int8.lower(model, target, keep_float), ())
    arithmetic = arithmetic_of(back_end(target.back_end), target.precision)
    if arithmetic is None:
        return Lowered(model, None, ())
    document: dict[str, Any] = {"to": TYPES[target.precision]}
    warnings: list[Diagnostic] = []
    if arithmetic.converts:
        model, found, warnings = _convert(
            model, target, target.precision, arithmetic, measured, keep_float
        )
        document |= found
    if arithmetic.stores:
        large = store(model, arithmetic.stores, keep_float)
        document |= {
            "stored": arithmetic.stores,
            "float32_weights": [{"weight": name, "reason": why} for name, why in large],
        }
        warnings += _weights(large, target, arithmetic.stores)
    return Lowered(model, document, tuple(warnings))


def require_fallback(target: Target, fallback: Precision) -> None:
    """Refuse a target at int8 whose float layers cannot be given the precision `fallback`.

    Raises:
        InfcError: E205.
    """
    if target.precision is not Precision.INT8 or fallback is Precision.FP32:
        return
    end = back_end(target.back_end)
    arithmetic = arithmetic_of(end, fallback)
    if scheme_of(end) is None or arithmetic is None or not arithmetic.converts:
        raise fail(
            "E205",
            f"`--fallback {fallback}`: `{target.name}` has no layers at int8 beside ones in "
            f"{fallback}",
            help="leave it out for this target",
        )


def lower_rest(
    model: ir.Model,
    target: Target,
    fallback: Precision,
    measured: Measured,
    keep_float: frozenset[str],
) -> Lowered:
    """`model`, a graph with Q/DQ for `target`, with what is not quantised at `fallback`.

    `keep_float` names what stays in float32, the quantised nodes among it: their inputs and
    outputs are float32 only for Q/DQ to stand between, and no cast may come there. `measured` is
    of the graph that was quantised.

    Raises:
        InfcError: as `Measured.ranges`.
    """
    arithmetic = arithmetic_of(back_end(target.back_end), fallback)
    if fallback is Precision.FP32 or arithmetic is None:
        return Lowered(model, None, ())
    model, document, warnings = _convert(model, target, fallback, arithmetic, measured, keep_float)
    rows = [row for row in document["kept"] if row["node"] not in keep_float]
    return Lowered(model, {"to": TYPES[fallback], **document, "kept": rows}, tuple(warnings))


def _convert(
    model: ir.Model,
    target: Target,
    precision: Precision,
    arithmetic: Arithmetic,
    measured: Measured,
    keep_float: frozenset[str],
) -> tuple[ir.Model, dict[str, Any], list[Diagnostic]]:
    """The model converted, what the manifest says of it, and the warnings."""
    from infc.passes.precision import convert

    model = _raised(model, arithmetic.opset)
    record = convert(
        model,
        TYPES[precision],
        blocked=arithmetic.blocked,
        keep_float=keep_float,
        ranges=measured.ranges(),
    )
    return model, _converted(record, measured), _overflowing(record, target, precision, measured)


def _raised(model: ir.Model, opset: int) -> ir.Model:
    """`model` at `opset`, where more operators have the type; as it is where ONNX fails at that."""
    from infc.passes.opsets import OpsetError, at_opset

    with contextlib.suppress(OpsetError):
        return at_opset(model, opset)
    return model


def _converted(record: PrecisionRecord, measured: Measured) -> dict[str, Any]:
    return {
        "converted": record.converted,
        "kept": [{"node": node, "reason": reason} for node, reason in record.kept],
        "overflow": [
            {"value": name, "low": _finite(low), "high": _finite(high)}
            for name, low, high in record.overflow
        ],
        "measured_on": measured.source,
    }


def _finite(number: float) -> float | None:
    return float(f"{number:.3g}") if math.isfinite(number) else None


def _overflowing(
    record: PrecisionRecord, target: Target, precision: Precision, measured: Measured
) -> list[Diagnostic]:
    if not record.overflow:
        return []
    peaks = [(name, max(-low, high)) for name, low, high in record.overflow]
    count = f"{len(peaks)} value{'' if len(peaks) == 1 else 's'}"
    return [
        Diagnostic(
            "E420",
            f"{count} of the graph may overflow {TYPES[precision]}: "
            f"what computes them for `{target.name}` stays in float32",
            notes=(listed([f"`{name}` reaches {peak:.3g}" for name, peak in peaks]),),
            help=f"measured on {measured.source}; `--calibration DATA` measures on typical ones",
            severity=Severity.WARNING,
        )
    ]


def _weights(kept: Sequence[tuple[str, str]], target: Target, stored: str) -> list[Diagnostic]:
    if not kept:
        return []
    return [
        Diagnostic(
            "E420",
            f"{len(kept)} weight{'' if len(kept) == 1 else 's'} cannot be stored in {stored} for "
            f"`{target.name}`, and stay in float32",
            notes=(listed([f"`{name}` {why}" for name, why in kept]),),
            severity=Severity.WARNING,
        )
    ]

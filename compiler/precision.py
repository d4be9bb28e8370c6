"""float16 and bfloat16 for a target: the graph converted, as its back end wants that.

    raise the opset -> convert what computes in the type -> store the other weights in it

What the values lie between, for the guard against overflow, is measured by `infc.measured`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infc import dynamic_int8
from infc.diagnostics import Diagnostic, Severity, fail
from infc.formatting import listed
from infc.measured import Measured
from infc.request import Precision
from infc.targets import Target, back_end
from infc.targets.arithmetic import Arithmetic, arithmetic_of
from infc.targets.schemes import scheme_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.passes.precision import PrecisionRecord

TYPES = {Precision.FP16: "float16", Precision.BF16: "bfloat16"}


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
    arithmetic = arithmetic_of(back_end(target.back_end), target.precision, target)
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

"""How far an answer is from the reference, and how far it may be.

For a reference output r and an answer a, over all elements of all input sets,

    max_abs_error  = max |a - r|
    relative_error = max |a - r| / max |r|
    SQNR           = 10 log10(sum r^2 / sum (a - r)^2)  in dB; none where a = r

Integer and boolean outputs must be equal, but for those of 8 and 16 bits that the source model
quantises: rounding the other way at a tie is a step there as well. Where the zero point lies is
arbitrary, so that the signal of such an output is its spread, sum (r - mean r)^2. NaN equals NaN,
an infinity equals itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infc.diagnostics import Diagnostic, InfcError
from infc.request import Precision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

    Tensors = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class Threshold:
    """What an output may differ by: `relative_error` at most, `sqnr_db` at least."""

    relative_error: float
    sqnr_db: float


THRESHOLDS = {
    Precision.FP32: Threshold(1e-4, 80.0),
    Precision.FP16: Threshold(2e-2, 40.0),
    Precision.BF16: Threshold(1e-1, 25.0),
    Precision.INT8: Threshold(math.inf, 15.0),
    Precision.INT8_DYNAMIC: Threshold(math.inf, 15.0),
}
"""float32 differs by summation order, 1e-6 to 2e-5 of the peak on the models tried; float16 and
bfloat16 by their 11 and 8 bits; INT8 is judged by SQNR alone, a peak says little about it."""


CODES = ("int8", "uint8", "int16", "uint16")
"""What real numbers are quantised to at an interface."""


@dataclass(frozen=True, slots=True)
class OutputError:
    """How far one output is from the reference; `sqnr_db` is None where there is no noise."""

    name: str
    max_abs_error: float
    relative_error: float
    sqnr_db: float | None
    ok: bool

    def to_json(self) -> dict[str, Any]:
        """A plain dict, with three significant digits: more would be noise."""
        return {
            "name": self.name,
            "max_abs_error": _three_digits(self.max_abs_error),
            "relative_error": _three_digits(self.relative_error),
            "sqnr_db": None if self.sqnr_db is None else round(max(self.sqnr_db, -999.0), 1),
            "ok": self.ok,
        }


def _three_digits(value: float) -> float | None:
    return float(f"{value:.3g}") if math.isfinite(value) else None


def compare(
    pairs: Iterable[tuple[Tensors, Tensors]],
    threshold: Threshold,
    noise: Mapping[str, float] | None = None,
    computed_in: Mapping[str, Precision] | None = None,
) -> tuple[OutputError, ...]:
    """Compare (reference, answer) sets output by output, in the reference's order.

    `computed_in` names the outputs that the source model itself computes in a coarser arithmetic,
    which are held to that one's threshold. `noise` maps an ill-conditioned output to the relative
    error that it is held to instead. The pairs are consumed one at a time: no more than one is in
    memory.
    """
    totals: dict[str, _Total] = {}
    for reference, answer in pairs:
        for name, value in reference.items():
            totals.setdefault(name, _Total()).add(value, answer.get(name))
    return tuple(
        total.error(
            name,
            limits_of(name, threshold, noise, computed_in),
            quantized=(computed_in or {}).get(name) is Precision.INT8,
        )
        for name, total in totals.items()
    )


def limits_of(
    name: str,
    threshold: Threshold,
    noise: Mapping[str, float] | None = None,
    computed_in: Mapping[str, Precision] | None = None,
) -> Threshold:
    """What the output `name` is held to; the arguments are those of `compare`."""
    own = _coarser(threshold, (computed_in or {}).get(name, Precision.FP32))
    return _held_to(own, (noise or {}).get(name))


def _coarser(threshold: Threshold, precision: Precision) -> Threshold:
    own = THRESHOLDS[precision]
    return Threshold(
        max(threshold.relative_error, own.relative_error), min(threshold.sqnr_db, own.sqnr_db)
    )


def _held_to(threshold: Threshold, noise: float | None) -> Threshold:
    if noise is None:
        return threshold
    return Threshold(max(noise, threshold.relative_error), -math.inf)


@dataclass(slots=True)
class _Total:
    """The running sums and maxima of one output."""

    worst: float = 0.0
    peak: float = 0.0
    noise: float = 0.0
    signal: float = 0.0
    total: float = 0.0
    count: int = 0
    exact: bool = False
    codes: bool = False
    mismatched: bool = False

    def add(self, reference: Any, answer: Any) -> None:
        import numpy as np

        if (
            answer is None
            or reference.shape != answer.shape
            or reference.dtype.name != answer.dtype.name
        ):
            self.mismatched = True
            return
        self.exact |= not is_floating(reference)
        self.codes = reference.dtype.name in CODES
        r, a = reference.astype(np.float64), answer.astype(np.float64)
        same = (reference == answer) | (np.isnan(r) & np.isnan(a))
        with np.errstate(invalid="ignore"):
            difference = np.where(same, 0.0, np.abs(a - r))
        if not is_floating(reference):
            # Integers beyond 2 ** 53 may differ and be the same as float64.
            difference = np.where(same, 0.0, np.maximum(difference, 1.0))
        # Finite against infinite or NaN: as wrong as can be.
        difference = np.where(np.isnan(difference), np.inf, difference)
        finite = np.where(np.isfinite(r), np.abs(r), 0.0)
        self.worst = max(self.worst, float(difference.max(initial=0.0)))
        self.peak = max(self.peak, float(finite.max(initial=0.0)))
        self.noise += float(np.square(difference).sum())
        self.signal += float(np.square(finite).sum())
        self.total += float(np.where(np.isfinite(r), r, 0.0).sum())
        self.count += r.size

    def error(self, name: str, threshold: Threshold, *, quantized: bool = False) -> OutputError:
        if self.mismatched:
            return OutputError(name, math.inf, math.inf, -math.inf, ok=False)
        relative = self.worst / self.peak if self.peak else math.inf if self.worst else 0.0
        of_steps = quantized and self.codes
        spread = self.signal - self.total**2 / max(self.count, 1)
        sqnr = _sqnr_db(spread if of_steps else self.signal, self.noise)
        if self.exact and not of_steps:
            ok = self.worst == 0.0
        else:
            ok = relative <= threshold.relative_error
            ok = ok and (sqnr is None or sqnr >= threshold.sqnr_db)
        return OutputError(name, self.worst, relative, sqnr, ok)


def is_floating(array: Any) -> bool:
    """Whether the elements are floats; ml_dtypes' bfloat16 is of numpy's kind "V"."""
    return bool(array.dtype.kind == "f" or array.dtype.name == "bfloat16")


def _sqnr_db(signal: float, noise: float) -> float | None:
    if noise == 0.0:
        return None
    if signal == 0.0 or not math.isfinite(noise):
        return -math.inf
    return 10.0 * math.log10(signal / noise)


def require(errors: Sequence[OutputError], code: str, what: str, help: str) -> None:
    """Refuse errors outside their threshold.

    Raises:
        InfcError: `code` for each output outside its threshold.
    """
    failed = [e for e in errors if not e.ok]
    if failed:
        raise InfcError(*(Diagnostic(code, _sentence(e, what), help=help) for e in failed))


def _sentence(error: OutputError, what: str) -> str:
    if not math.isfinite(error.max_abs_error):
        return (
            f"output `{error.name}` of {what} has another shape or type than the source model's, "
            f"or is not finite where that is"
        )
    return (
        f"output `{error.name}` of {what} is off by {error.relative_error:.3g} of its peak "
        f"(max abs {error.max_abs_error:.3g}, SQNR "
        f"{'-' if error.sqnr_db is None else f'{error.sqnr_db:.1f} dB'})"
    )


def summary(errors: Sequence[OutputError]) -> dict[str, Any]:
    """One comparison as the manifest has it."""
    return {"ok": all(e.ok for e in errors), "outputs": [e.to_json() for e in errors]}

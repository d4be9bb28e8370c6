"""How far the engine's answers are from the reference, in plain Python: a device may lack numpy.

The definitions are those of `infc.comparison`: for a reference r and an answer a, over all elements
of all input sets,

    max_abs_error  = max |a - r|
    relative_error = max |a - r| / max |r|
    SQNR           = 10 log10(sum r^2 / sum (a - r)^2)  in dB; none where a = r

Integer and boolean outputs must be equal, but for codes of 8 or 16 bits that the source quantises
itself (`codes`), whose signal is their spread. NaN equals NaN, an infinity equals itself.
"""

from __future__ import annotations

import array
import math
import struct
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Tensor = tuple[str, tuple[int, ...], bytes]
    """dtype, shape, contents: little-endian, C order."""

_CODES = {
    "float32": "f",
    "float64": "d",
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "bool": "B",
}
_CODED = ("int8", "uint8", "int16", "uint16")
"""What real numbers are quantised to at an interface."""
_FLOATS = ("float16", "bfloat16", "float32", "float64")


class Total:
    """The running sums and maxima of one output."""

    def __init__(self) -> None:
        self.worst = 0.0
        self.peak = 0.0
        self.noise = 0.0
        self.signal = 0.0
        self.sum = 0.0
        self.count = 0
        self.exact = False
        self.codes = False
        self.mismatched = False

    def add(self, reference: Tensor, answer: Tensor | None) -> None:
        """Take one input set into account."""
        if answer is None or (reference[0], tuple(reference[1])) != (answer[0], tuple(answer[1])):
            self.mismatched = True
            return
        if len(reference[2]) != len(answer[2]):
            self.mismatched = True
            return
        self.exact = self.exact or reference[0] not in _FLOATS
        self.codes = reference[0] in _CODED
        for r, a in zip(numbers(reference), numbers(answer)):  # noqa: B905
            self.count += 1
            if math.isfinite(r):
                self.peak = max(self.peak, abs(r))
                self.signal += r * r
                self.sum += r
            if r == a or (r != r and a != a):  # noqa: PLR0124
                continue
            difference = abs(a - r)
            if difference != difference:  # noqa: PLR0124
                difference = math.inf  # finite against NaN: as wrong as can be
            self.worst = max(self.worst, difference)
            self.noise += difference * difference

    def row(self, name: str, limits: Mapping[str, Any]) -> dict[str, Any]:
        """A row of the manifest's `outputs`; `limits` are null where there is none."""
        if self.mismatched:
            row: dict[str, Any] = {"name": name, "max_abs_error": None, "relative_error": None}
            return dict(row, sqnr_db=-999.0, ok=False)
        relative = self.worst / self.peak if self.peak else math.inf if self.worst else 0.0
        of_steps = self.codes and limits.get("codes", False)
        sqnr = self._sqnr_db(of_steps)
        if self.exact and not of_steps:
            ok = self.worst == 0.0
        else:
            most, least = limits["relative_error"], limits["sqnr_db"]
            ok = most is None or relative <= most
            ok = ok and (least is None or sqnr is None or sqnr >= least)
        return {
            "name": name,
            "max_abs_error": _three_digits(self.worst),
            "relative_error": _three_digits(relative),
            "sqnr_db": None if sqnr is None else round(max(sqnr, -999.0), 1),
            "ok": ok,
        }

    def _sqnr_db(self, of_steps: bool) -> float | None:
        signal = self.signal
        if of_steps:
            signal -= self.sum * self.sum / max(self.count, 1)
        if self.noise == 0.0:
            return None
        if signal == 0.0 or not math.isfinite(self.noise):
            return -math.inf
        return 10.0 * math.log10(signal / self.noise)


def compare(
    pairs: Iterable[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]],
    held_to: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Compare (reference, answer) sets output by output: `ok`, and `outputs` in their order."""
    totals: dict[str, Total] = {}
    for reference, answer in pairs:
        for name, tensor in reference.items():
            totals.setdefault(name, Total()).add(tensor, answer.get(name))
    rows = [total.row(name, held_to[name]) for name, total in totals.items()]
    return {"ok": all(row["ok"] for row in rows), "outputs": rows}


def numbers(tensor: Tensor) -> Iterable[float]:
    """The elements of a tensor, in order; integers stay integers."""
    dtype, _, contents = tensor
    if dtype == "float16":
        return (value for (value,) in struct.iter_unpack("<e", contents))
    if dtype == "bfloat16":
        halves = array.array("H", _native(contents, 2))
        wide = array.array("I", (bits << 16 for bits in halves))  # the upper half of a float32
        return memoryview(wide).cast("B").cast("f")
    code = _CODES[dtype]
    view: Any = memoryview(_native(contents, struct.calcsize(f"={code}")))
    elements: Iterable[float] = view.cast(code)
    return elements


def _native(contents: bytes, size: int) -> bytes:
    """`contents` in the byte order of this machine."""
    if sys.byteorder == "little" or size == 1:
        return contents
    swapped = array.array({2: "H", 4: "I", 8: "Q"}[size], contents)
    swapped.byteswap()
    return swapped.tobytes()


def _three_digits(value: float) -> float | None:
    return float(f"{value:.3g}") if math.isfinite(value) else None

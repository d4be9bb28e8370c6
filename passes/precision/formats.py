"""The two 16-bit floats: what they hold, and which constants they hold well enough.

    float16    1 + 5 + 10 bits    6.0e-8 .. 65504      integers up to 2048 exactly
    bfloat16   1 + 8 +  7 bits    9.2e-41 .. 3.39e38   integers up to 256 exactly

Source: IEEE 754-2008 binary16; ONNX TensorProto.BFLOAT16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import LAZY_BYTES, elements

BLOCK = 1 << 20
"""Elements that are looked at in one go."""

NOISE = 1e-6
"""What rounding may cost a constant: the energy of the errors in parts of its own (60 dB).

Rounding to 11 bits costs 1e-7 at most; more is lost only where elements fall below 6.1e-5, from
where on float16 has fewer bits. One such element among large ones does not matter; an epsilon
does. bfloat16 has 8 bits everywhere and no such limit.
"""


@dataclass(frozen=True, slots=True)
class Format:
    """A reduced precision: its ONNX type, greatest finite value, and greatest exact integer.

    Below `least` its numbers have fewer bits than above.
    """

    name: str
    dtype: ir.DataType
    least: float
    largest: float
    exact_integer: int
    narrow: bool
    """Whether its exponent has fewer bits than float32's."""

    @property
    def type_string(self) -> str:
        """As in the type constraints of an operator's schema."""
        return f"tensor({self.name})"

    @property
    def headroom(self) -> float:
        """Values measured beyond this are kept in float32: half of the greatest.

        What was measured are samples; the next one may be larger, and a sum is rounded up.
        """
        return self.largest / 2

    @property
    def masked(self) -> float:
        """What a masked logit is lowered by where float32 had -1e9 or less: -16376 in float16.

        A softmax gives exactly 0 for it. A quarter of the range, so that neither the logit nor
        further masks added to it give -Inf, of which a row of nothing else would become NaN.
        """
        return -self.largest / 4


FORMATS = {
    "float16": Format("float16", ir.DataType.FLOAT16, 2.0**-14, 65504.0, 2048, narrow=True),
    "bfloat16": Format(
        "bfloat16", ir.DataType.BFLOAT16, 2.0**-126, 3.3895313892515355e38, 256, narrow=False
    ),
}


def misfit(tensor: ir.TensorProtocol, form: Format) -> str:
    """Why `tensor` (float32) cannot be had in `form`: "overflows", "underflows", or ""."""
    flat = elements(tensor).reshape(-1)
    signal = noise = 0.0
    for start in range(0, flat.size, BLOCK):
        exact = flat[start : start + BLOCK].astype(np.float32, copy=False)
        with np.errstate(over="ignore"):
            rounded = exact.astype(form.dtype.numpy()).astype(np.float32)
        whole = np.isfinite(rounded)
        if not whole.all():
            if np.isfinite(exact[~whole]).any():
                return "overflows"
            exact, rounded = exact[whole], rounded[whole]
        # The squares of what float16 holds badly are less than float32 holds.
        peak = np.float32(max(np.abs(exact).max(initial=0.0), np.finfo(np.float32).tiny))
        scaled, error = exact / peak, (exact - rounded) / peak
        signal += float(np.dot(scaled, scaled)) * float(peak) ** 2
        noise += float(np.dot(error, error)) * float(peak) ** 2
    return "underflows" if form.narrow and noise > NOISE * signal else ""


def vanishes(tensor: ir.TensorProtocol, form: Format) -> bool:
    """Whether an element of `tensor` that is not 0 becomes 0: no divisor may."""
    array = elements(tensor)
    return bool(((array != 0) & (array.astype(form.dtype.numpy()) == 0)).any())


def lowered(tensor: ir.TensorProtocol, form: Format, bound: float | None = None) -> Any:
    """`tensor` (float32) rounded to `form`, its finite elements clipped to [-bound, bound] before.

    A big one is computed when it is read, and not kept.
    """

    def evaluate() -> ir.TensorProtocol:
        array = elements(tensor)
        if bound is not None:
            array = np.where(np.isfinite(array), np.clip(array, -bound, bound), array)
        return ir.tensor(array.astype(form.dtype.numpy()), form.dtype)

    if tensor.nbytes <= LAZY_BYTES:
        return evaluate()
    return ir.LazyTensor(evaluate, form.dtype, ir.Shape(tensor.shape.numpy()))

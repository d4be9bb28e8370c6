"""exp, erf, tanh and sigmoid as arithmetic, for float32: a vector of them at once.

LLVM calls the C library for each element otherwise, which takes about ten times as long, and is not
there without an operating system. None is further off than some units in the last place.

    exp(x) = 2^n * (1 + r + r^2 * P(r)),   n = floor(x / ln 2 + 1/2),   r = x - n * ln 2
    erf(x) = x * A(x^2) / B(x^2),   tanh(x) = x * C(x^2) / D(x^2),   x bounded where they are 1

Source: expf of Cephes (Moshier); erf and tanh as in Eigen's MathFunctionsImpl.h.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

LOG2_E = 1.44269504088896341
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
"""Together ln 2; the first has few bits, so that its product with n is exact."""
EXP = (
    *(1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3),
    *(4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1),
)
LEAST = -86.9
"""exp of less is 0: it would be below the least normal number."""
GREATEST = 88.8
"""exp of more is infinite."""
ERF_BOUND = 4.0
ERF_OVER = (
    *(-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05),
    *(-7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02),
)
ERF_UNDER = (
    *(-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03),
    *(-7.37332916720468e-03, -1.42647390514189e-02),
)
TANH_BOUND = 7.90531110763549805
TANH_OVER = (
    *(-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08),
    *(1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03),
)
TANH_UNDER = (
    *(1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03),
)
"""Coefficients, that of the highest power first."""


def as_arithmetic(func: Any) -> Any:
    """Return `func`, a TIR function, without calls of these functions on float32."""
    import tvm_ffi
    from tvm import ir

    made: dict[str, Callable[[Any], Any]] = {
        "tirx.exp": exponential,
        "tirx.erf": error_function,
        "tirx.tanh": hyperbolic_tangent,
        "tirx.sigmoid": sigmoid,
    }

    def replaced(call: Any) -> Any:
        name = str(getattr(call.op, "name", ""))
        if name not in made or str(call.args[0].ty.dtype) != "float32":
            return call
        return made[name](call.args[0])

    return tvm_ffi.structural_map(func, (ir.Call, replaced), order="post")


def exponential(x: Any) -> Any:
    """The exponential of a float32 expression."""
    from tvm import tirx

    def of(v: Any) -> Any:
        return _named(_bounded(v, LEAST, GREATEST), lambda b: whole(v, b))

    def whole(v: Any, b: Any) -> Any:
        times = tirx.floor(b * _number(LOG2_E) + _number(0.5))
        return _named(times, lambda n: _named(rest(b, n), lambda r: scaled(v, n, r)))

    def rest(b: Any, n: Any) -> Any:
        return b - n * _number(LN2_HIGH) - n * _number(LN2_LOW)

    def scaled(v: Any, n: Any, r: Any) -> Any:
        y = _polynomial(EXP, r) * r * r + r + _number(1.0)
        # One power of two is taken from n: 2^128 is no number, and half of it times 2 may be.
        bits = (tirx.Cast("int32", n) + tirx.const(126, "int32")) << tirx.const(23, "int32")
        value = (y + y) * tirx.reinterpret("float32", bits)
        return tirx.Select(v < _number(LEAST), _number(0.0), value)

    return _named(x, of)


def error_function(x: Any) -> Any:
    """The error function of a float32 expression."""
    return _odd_ratio(x, ERF_BOUND, ERF_OVER, ERF_UNDER)


def hyperbolic_tangent(x: Any) -> Any:
    """The hyperbolic tangent of a float32 expression."""
    return _odd_ratio(x, TANH_BOUND, TANH_OVER, TANH_UNDER)


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)) of a float32 expression."""
    return _number(1.0) / (_number(1.0) + exponential(_number(0.0) - x))


def _odd_ratio(x: Any, bound: float, over: Sequence[float], under: Sequence[float]) -> Any:
    """`over` by `under` of the square of x, times x, which is bounded on both sides."""

    def ratio(b: Any) -> Any:
        return _named(b * b, lambda s: b * _polynomial(over, s) / _polynomial(under, s))

    return _named(_bounded(x, -bound, bound), ratio)


def _bounded(x: Any, least: float, most: float) -> Any:
    """`x` from `least` to `most`; what is no number stays that.

    The bound comes first: TVM's max(a, b) is b where neither is greater.
    """
    from tvm import tirx

    return tirx.min(_number(most), tirx.max(_number(least), x))


def _polynomial(coefficients: Sequence[float], x: Any) -> Any:
    """By Horner's rule, the coefficient of the highest power first."""
    value = _number(coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + _number(coefficient)
    return value


def _number(value: float) -> Any:
    from tvm import tirx

    return tirx.const(value, "float32")


def _named(value: Any, body: Callable[[Any], Any]) -> Any:
    """`body` of a variable that is `value`, which is computed once."""
    from tvm import tirx

    variable = tirx.Var("v", str(value.ty.dtype))
    return tirx.Let(variable, value, body(variable))

"""Ranges from statistics: against brute force on the values themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from infc.calibration.histogram import Histogram
from infc.calibration.observers import Statistics, observe
from infc.calibration.thresholds import METHODS, choose, squared_error
from infc.quantization import INTEGERS, Range
from infc.request import CALIBRATION_METHODS

Array = np.ndarray[Any, np.dtype[Any]]
GRIDS = [("int8", True), ("uint8", False), ("uint8", True), ("int8", False)]
SIZE = 30_000
"""Below the size from which a subset is counted."""

SHAPES: dict[str, Callable[[np.random.Generator], Array]] = {
    "normal": lambda rng: rng.standard_normal(SIZE),
    "laplace": lambda rng: rng.laplace(size=SIZE),
    "relu": lambda rng: np.maximum(rng.standard_normal(SIZE), 0),
    "spike": lambda rng: np.where(rng.random(SIZE) < 0.02, rng.gamma(2.0, 1.0, SIZE), 0),
    "skewed": lambda rng: rng.gamma(1.0, 1.0, SIZE) - 0.3,
    "negative": lambda rng: -rng.gamma(0.5, 3.0, SIZE) - 1,
    "uniform": lambda rng: rng.uniform(-1, 3, SIZE),
    "outlier": lambda rng: np.append(rng.standard_normal(SIZE - 1), 900.0),
    "far from zero": lambda rng: rng.normal(100, 1, SIZE),
    "tiny": lambda rng: rng.standard_normal(SIZE) * 1e-20,
    "huge": lambda rng: rng.standard_normal(SIZE) * 1e30,
}


def values(name: str) -> Array:
    return SHAPES[name](np.random.default_rng(0)).astype(np.float32)


def statistics(array: Array) -> Statistics:
    return observe(array, None, 0)


def quantised(array: Array, span: Range, integer: str, symmetric: bool) -> Array:
    """ONNX QuantizeLinear and DequantizeLinear over `span`, in float64."""
    least, greatest = INTEGERS[integer]
    x = array.astype(np.float64)
    if symmetric:
        zero = 0 if integer == "int8" else 128
        scale = max(-span.low, span.high) / (greatest - zero)
    else:
        scale = (span.high - span.low) / (greatest - least)
        zero = round(least - span.low / scale)
    q = np.clip(np.rint(x / scale) + zero, least, greatest)
    return np.asarray((q - zero) * scale)


def error(array: Array, span: Range, integer: str, symmetric: bool) -> float:
    return float(((quantised(array, span, integer, symmetric) - array) ** 2).mean())


def test_the_methods_are_those_that_can_be_asked_for() -> None:
    assert set(METHODS) == set(CALIBRATION_METHODS)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("integer", "symmetric"), GRIDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_range_contains_zero_and_stays_within_the_extremes(
    shape: str, integer: str, symmetric: bool, method: str
) -> None:
    array = values(shape)
    span = choose(statistics(array), method, 99.9, integer, symmetric)
    assert min(float(array.min()), 0) <= span.low <= 0 <= span.high <= max(float(array.max()), 0)
    assert span.high > span.low


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("integer", "symmetric"), GRIDS)
def test_mse_is_as_good_as_the_best_of_many_clippings(
    shape: str, integer: str, symmetric: bool
) -> None:
    array = values(shape)
    low, high = min(float(array.min()), 0.0), max(float(array.max()), 0.0)
    found = choose(statistics(array), "mse", 99.99, integer, symmetric)
    limits = np.exp2(-np.arange(0, 8, 0.5))
    if symmetric:
        spans = [Range(low * a, high * a) for a in limits]
    else:
        spans = [Range(low * a, high * b) for a in limits for b in limits]
    least = min(error(array, span, integer, symmetric) for span in dict.fromkeys(spans))
    assert error(array, found, integer, symmetric) <= 1.1 * least


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("integer", "symmetric"), GRIDS)
def test_the_expected_error_is_the_error(shape: str, integer: str, symmetric: bool) -> None:
    array = values(shape)
    s = statistics(array)
    bins = s.histogram.bins(s.low, s.high)
    least, greatest = INTEGERS[integer]
    for factor in (1.0, 0.5, 0.1):
        span = Range(s.low * factor, s.high * factor)
        if symmetric:
            zero = 0 if integer == "int8" else 128
            scale = max(-span.low, span.high) / (greatest - zero)
        else:
            scale = (span.high - span.low) / (greatest - least)
            zero = round(least - span.low / scale)
        ends = np.array([[scale], [least - zero], [greatest - zero]], np.float64)
        expected = squared_error(bins, *ends)[0] / array.size
        real = error(array, span, integer, symmetric)
        assert expected == pytest.approx(real, rel=0.1), factor


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9])
def test_percentile_clips_as_many_values_as_it_says(percentile: float) -> None:
    share = 1 - percentile / 100
    expected = pytest.approx(share, abs=4 * (share / SIZE) ** 0.5 + share / 10)
    for shape in ("normal", "laplace", "skewed", "uniform", "far from zero"):
        array = values(shape)
        span = choose(statistics(array), "percentile", percentile, "int8", True)
        limit = max(-span.low, span.high)
        assert (np.abs(array) > limit).mean() == expected, shape
        span = choose(statistics(array), "percentile", percentile, "uint8", False)
        outside = (array > span.high).mean() + (array < span.low).mean()
        assert outside == expected, shape
    rest = values("relu")
    span = choose(statistics(rest), "percentile", percentile, "uint8", False)
    assert (span.low, (rest > span.high).mean()) == (0, expected)


def test_percentile_100_is_minmax() -> None:
    for shape in SHAPES:
        s = statistics(values(shape))
        for integer, symmetric in GRIDS:
            span = choose(s, "percentile", 100.0, integer, symmetric)
            assert span == choose(s, "minmax", 100.0, integer, symmetric), shape


def test_entropy_keeps_what_is_dense_and_drops_what_is_far_out() -> None:
    uniform = values("uniform")
    span = choose(statistics(uniform), "entropy", 0, "uint8", False)
    assert span.low == pytest.approx(-1, rel=0.05)
    assert span.high == pytest.approx(3, rel=0.05)
    outlier = values("outlier")
    for integer, symmetric in GRIDS:
        span = choose(statistics(outlier), "entropy", 0, integer, symmetric)
        assert 2.5 < span.high < 60, (integer, symmetric)


def test_entropy_agrees_with_the_published_algorithm() -> None:
    """Migacz 2017, as it is printed: 2048 bins, 128 levels, on |x|."""
    rng = np.random.default_rng(7)
    for array in (rng.laplace(size=200_000), np.abs(rng.standard_normal(200_000)) ** 3):
        s = sum(
            (statistics(a.astype(np.float32)) for a in np.array_split(array, 8)[1:]),
            statistics(np.array_split(array, 8)[0].astype(np.float32)),
        )
        ours = choose(s, "entropy", 0, "int8", True)
        limit = max(-ours.low, ours.high)
        theirs = published(array)
        assert 0.5 < limit / theirs < 2
        lost, published_lost = (
            error(array.astype(np.float32), Range(-t, t), "int8", True) for t in (limit, theirs)
        )
        assert lost < 1.5 * published_lost


def published(array: Array) -> float:
    counts, edges = np.histogram(np.abs(array), 2048)
    best, threshold = np.inf, 0.0
    for i in range(128, 2049, 8):
        reference = counts[:i].astype(np.float64)
        quantised = np.zeros(i)
        for chunk in np.array_split(np.arange(i), 128):
            held = chunk[reference[chunk] > 0]
            if held.size:
                quantised[held] = reference[chunk].sum() / held.size
        reference[-1] += counts[i:].sum()
        some = (reference > 0) & (quantised > 0)
        p, q = reference / reference.sum(), quantised / quantised.sum()
        divergence = (p[some] * np.log(p[some] / q[some])).sum()
        if divergence < best:
            best, threshold = divergence, edges[i]
    return float(threshold)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("integer", "symmetric"), GRIDS)
def test_constants(method: str, integer: str, symmetric: bool) -> None:
    for constant in (3.0, -0.25, 1e-30):
        s = statistics(np.full(1000, constant, np.float32))
        span = choose(s, method, 99.0, integer, symmetric)
        assert max(-span.low, span.high) == abs(np.float32(constant))
        assert min(-span.low, span.high) == 0
    for nothing in (0.0, 1e-42):
        s = statistics(np.full(1000, nothing, np.float32))
        assert choose(s, method, 99.0, integer, symmetric) == Range(0, 0)


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_that_is_zero_but_for_one_value(method: str) -> None:
    array = np.zeros(20_000, np.float32)
    array[7] = 5
    span = choose(statistics(array), method, 99.99, "uint8", False)
    assert span.low == 0
    assert 0 < span.high <= 5


def test_average_is_the_mean_of_the_extremes() -> None:
    first = observe(np.array([-1.0, 2.0], np.float32), None, 0)
    s = first + observe(np.array([-3.0, 10.0], np.float32), None, 1)
    assert choose(s, "average", 0, "int8", True) == Range(-2.0, 6.0)
    assert choose(s, "minmax", 0, "int8", True) == Range(-3.0, 10.0)


def test_the_extremes_have_a_bin_even_where_the_subset_missed_them() -> None:
    histogram = Histogram.of(np.array([1.0, 1.5, -0.25], np.float32), 1, 8.0)
    bins = histogram.bins(-2.0, 8.0)
    assert (bins.low[0], bins.high[0], bins.mass[0]) == (-2.0, -2.0, 1.0)
    assert (bins.low[-1], bins.high[-1], bins.mass[-1]) == (8.0, 8.0, 1.0)
    assert bins.mass.sum() == 5


def test_unknown_methods_and_integers() -> None:
    s = statistics(values("normal"))
    with pytest.raises(KeyError):
        choose(s, "kl", 99, "int8", True)
    with pytest.raises(KeyError):
        choose(s, "mse", 99, "int4", True)

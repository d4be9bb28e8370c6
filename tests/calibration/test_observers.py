"""Statistics of a tensor: against numpy on all the values, and the same whatever the order."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from infc.calibration.histogram import BINS, OCTAVES, STEPS, Histogram
from infc.calibration.observers import SUBSET, Statistics, observe, stride_of
from infc.calibration.ranges import Ranges, parse

Array = np.ndarray[Any, np.dtype[Any]]


def dump(statistics: Statistics) -> str:
    return Ranges("m", "d", statistics.samples, {"x": statistics}).dump()


def total(arrays: list[Array], axis: int | None = None) -> Statistics:
    found = [observe(array, axis, i) for i, array in enumerate(arrays)]
    return sum(found[1:], found[0])


def counted(values: Array) -> dict[float, int]:
    """The lower edge of each bin that holds anything, negative for negative values."""
    magnitude = float(np.abs(values).max(initial=0))
    histogram = Histogram.of(values.astype(np.float32), 1, magnitude)
    edges = histogram.edges()[:-1]
    out = {-float(e): int(n) for e, n in zip(edges, histogram.negative, strict=True) if n}
    return out | {float(e): int(n) for e, n in zip(edges, histogram.positive, strict=True) if n}


def test_a_value_lies_in_the_bin_that_its_edges_say() -> None:
    step = 1 + 1 / STEPS
    found = counted(np.array([1.0, 1.0 + 0.99 / STEPS, step, 0.5, -3.0, -3.0, 0.75 * step]))
    assert found == {
        1.0: 2,
        step: 1,
        0.5: 1,
        -3.0: 2,
        0.75 * step - 0.75 / STEPS % (0.5 / STEPS): 1,
    }


def test_no_value_is_lost() -> None:
    rng = np.random.default_rng(0)
    values = (rng.standard_normal(10_000) * 2.0 ** rng.integers(-40, 40, 10_000)).astype(np.float32)
    values[:100] = 0
    values[100:200] = 1e-42  # below the normal numbers
    histogram = Histogram.of(values, 3, float(np.abs(values).max()))
    assert histogram.positive.size == histogram.negative.size == BINS
    assert histogram.positive.sum() + histogram.negative.sum() + histogram.zero == 30_000
    edges = histogram.edges()
    for sign, counts in ((1, histogram.positive), (-1, histogram.negative)):
        expected, _ = np.histogram(sign * values, edges)
        np.testing.assert_array_equal(counts, 3 * expected)


def test_an_outlier_moves_the_window_and_keeps_the_rest() -> None:
    small = Histogram.of(np.array([1.0, 0.01, -0.5], np.float32), 1, 1.0)
    both = small + Histogram.of(np.array([3000.0], np.float32), 1, 3000.0)
    assert both.top == small.top + 11
    assert both.zero == 0
    assert both.positive.sum() == 3
    far = both + Histogram.of(np.array([1e30], np.float32), 1, 1e30)
    assert (far.zero, far.positive.sum(), far.negative.sum()) == (4, 1, 0)


@pytest.mark.parametrize("shape", [(1, 16, 20, 30), (4, 7), (3, 5, 11), (9,), ()])
def test_extremes_averages_and_means_are_those_of_all_values(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.normal(0.3, 1 + i, shape).astype(np.float32) for i in range(5)]
    axis = (1 if len(shape) == 4 else -1) if shape else None
    found = total(arrays, axis)
    stacked = np.stack(arrays).astype(np.float64)
    assert (found.low, found.high) == (stacked.min(), stacked.max())
    assert found.average_low == pytest.approx(np.mean([a.min() for a in arrays]))
    assert found.average_high == pytest.approx(np.mean([a.max() for a in arrays]))
    assert (found.samples, found.elements) == (5, stacked.size)
    if axis is None:
        assert found.means is None
    else:
        kept = axis % len(shape)
        assert found.axis == kept
        assert found.means is not None
        others = tuple(i for i in range(len(shape) + 1) if i != kept + 1)
        np.testing.assert_allclose(found.means, stacked.mean(axis=others), rtol=1e-5, atol=1e-6)


def test_samples_may_differ_in_shape() -> None:
    rng = np.random.default_rng(2)
    arrays = [rng.normal(1, 1, (n, 8, n * 9, 13)).astype(np.float32) for n in (1, 2, 3)]
    found = total(arrays, 1)
    assert found.means is not None
    flat = np.concatenate([a.transpose(1, 0, 2, 3).reshape(8, -1) for a in arrays], axis=1)
    np.testing.assert_allclose(found.means, flat.mean(axis=1), rtol=1e-5)
    histogram = found.histogram
    assert histogram.positive.sum() + histogram.negative.sum() + histogram.zero == flat.size
    assert total([*arrays, np.ones((1, 9, 2, 2), np.float32)], 1).means is None


def test_the_subset_is_spread_over_rows_and_channels() -> None:
    shape = (1, 64, 112, 112)
    size = 64 * 112 * 112
    stride = stride_of(shape, size)
    assert size / stride <= SUBSET
    for sample in range(3):
        seen = np.zeros(size, bool)
        seen[int((sample + 1) * 0.6180339887498949 % 1.0 * stride) :: stride] = True
        grid = seen.reshape(64, 112, 112)
        for axis in ((0, 1), (0, 2), (1, 2)):
            counts = grid.sum(axis=axis)
            assert counts.min() > 0.8 * counts.mean()


def test_the_histogram_of_a_subset_is_that_of_all_but_for_noise() -> None:
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal((1, 32, 112, 113)).astype(np.float32) for _ in range(8)]
    found = total(arrays).histogram
    every = np.concatenate([a.ravel() for a in arrays])
    for threshold in (-2.0, -0.5, 0.25, 1.0, 3.0):
        edges = found.edges()
        below = found.negative[edges[:-1] >= abs(threshold)].sum() if threshold < 0 else (
            found.negative.sum() + found.zero + found.positive[edges[1:] <= threshold].sum()
        )  # fmt: skip
        weight = found.negative.sum() + found.zero + found.positive.sum()
        assert weight == pytest.approx(every.size, rel=1e-3)
        assert below / weight == pytest.approx((every < threshold).mean(), abs=2e-3)


def test_the_size_does_not_depend_on_the_data() -> None:
    rng = np.random.default_rng(4)

    def grown(samples: int, side: int) -> int:
        found = total([rng.standard_normal((1, 8, side, side)) for _ in range(samples)], 1)
        histogram = found.histogram
        assert found.means is not None
        return found.means.nbytes + histogram.positive.nbytes + histogram.negative.nbytes

    assert grown(1, 3) == grown(50, 40) == 2 * 8 * BINS + 8 * 8


def test_no_sample_is_kept() -> None:
    tracemalloc.start()
    found = observe(np.ones((1, 4, 64, 64), np.float32), 1, 0)
    peaks = []
    for sample in range(60):
        found += observe(np.full((1, 4, 64, 64), sample, np.float32), 1, sample)
        peaks.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert peaks[-1] - peaks[4] < 4 * 64 * 64 * 4  # less than one sample in 55


def test_adding_up_in_any_grouping_gives_the_same_histogram_and_extremes() -> None:
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal((1, 4, 50, 50)) * 10.0**i for i in (3, -4, 0, 2)]
    parts = [observe(a.astype(np.float32), 1, i) for i, a in enumerate(arrays)]
    left = ((parts[0] + parts[1]) + parts[2]) + parts[3]
    right = parts[0] + (parts[1] + (parts[2] + parts[3]))
    assert left.histogram.zero == right.histogram.zero
    np.testing.assert_array_equal(left.histogram.positive, right.histogram.positive)
    np.testing.assert_array_equal(left.histogram.negative, right.histogram.negative)
    assert (left.low, left.high) == (right.low, right.high)
    assert left.means is not None and right.means is not None
    np.testing.assert_allclose(left.means, right.means)


def test_nan_and_inf_are_counted_and_left_out() -> None:
    values = np.array([[1.0, np.nan, -2.0], [np.inf, -np.inf, 3.0]], np.float32)
    found = total([values, np.ones((2, 3), np.float32)], -1)
    assert (found.nans, found.infinities, found.finite) == (1, 2, False)
    assert (found.low, found.high, found.elements) == (-2.0, 3.0, 9)
    assert found.means is None
    nothing = observe(np.full(3, np.nan), None, 0)
    assert (nothing.samples, nothing.nans) == (0, 3)
    after = nothing + observe(np.array([2.0, 4.0], np.float32), None, 1)
    assert (after.low, after.high, after.samples, after.nans) == (2.0, 4.0, 1, 3)


def test_empty_and_integer_and_half_tensors() -> None:
    nothing = observe(np.zeros((0, 4), np.float32), -1, 0)
    assert nothing.samples == 0
    some = nothing + observe(np.array([[1, -7, 3, 5]], np.int64), -1, 1)
    assert (some.low, some.high, some.samples) == (-7.0, 5.0, 1)
    assert some.means is not None
    np.testing.assert_array_equal(some.means, [1, -7, 3, 5])
    half = observe(np.array([0.5, 65504], np.float16), None, 0)
    assert half.high == 65504
    assert observe(np.array([1e300, 1.0]), None, 0).infinities == 1


def test_a_resumed_sum_is_the_same_to_the_last_bit() -> None:
    rng = np.random.default_rng(6)
    arrays = [rng.gamma(0.3, i + 1, (1, 6, 31, 17)).astype(np.float32) for i in range(7)]
    parts = [observe(a, 1, i) for i, a in enumerate(arrays)]
    whole = sum(parts[1:], parts[0])
    half = parse(dump(sum(parts[1:3], parts[0]))).tensors["x"]
    assert dump(sum(parts[3:], half)) == dump(whole)
    assert f'"{-OCTAVES}"' not in dump(whole)

"""Scales, zero points, rounded weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infc.passes.quantization.affine import BIAS_STEPS, affine, dequantized, weights
from infc.quantization import INTEGERS, Range, Scheme

U8 = Scheme("u8", frozenset())
S8 = Scheme("s8", frozenset(), activation="int8", symmetric=True)
bounded = st.floats(-1e6, 1e6, width=32)


@given(bounded, bounded, st.sampled_from([U8, S8]))
def test_zero_is_represented_and_the_range_to_half_a_step(
    a: float, b: float, scheme: Scheme
) -> None:
    span = Range(min(a, b), max(a, b))
    tensor = affine(span, scheme)
    least, greatest = INTEGERS[tensor.dtype]
    assert least <= tensor.zero_point <= greatest
    low = (least - tensor.zero_point) * tensor.scale
    high = (greatest - tensor.zero_point) * tensor.scale
    half = tensor.scale * 0.5001
    assert low - half <= span.low
    assert span.high <= high + half


def test_a_tensor_of_zeros_has_a_scale() -> None:
    assert affine(Range(0, 0), U8).scale == 1.0


@pytest.mark.parametrize("high", [6.0, 1.0, 2.5, 0.1, 3.3333])
def test_255_steps_do_not_pass_the_bound_of_a_clip(high: float) -> None:
    bound = float(np.float32(high))
    tensor = affine(Range(0, high + 1), U8, bounds=(0.0, bound))
    assert tensor.zero_point == 0
    assert np.float32(255) * np.float32(tensor.scale) <= np.float32(bound)
    assert np.float32(255) * np.float32(tensor.scale) > 0.999 * bound


def test_both_bounds_of_a_clip_hold() -> None:
    tensor = affine(Range(-1, 1), U8, bounds=(-1.0, 1.0))
    assert -tensor.zero_point * tensor.scale >= -1
    assert (255 - tensor.zero_point) * tensor.scale <= 1


def test_symmetric_takes_the_type_that_fits() -> None:
    assert affine(Range(0, 1), U8, symmetric=True).dtype == "uint8"
    both = affine(Range(-0.5, 1), U8, symmetric=True)
    assert (both.dtype, both.zero_point) == ("int8", 0)


@pytest.mark.parametrize("axis", [0, 1, None])
def test_weights_are_right_to_half_a_step(axis: int | None) -> None:
    rng = np.random.default_rng(0)
    array = (rng.standard_normal((5, 7, 3, 3)) * 10.0 ** rng.integers(-3, 3, (5, 7, 1, 1))).astype(
        np.float32
    )
    rounded = weights(array, axis, U8)
    shape = [-1 if i == axis else 1 for i in range(4)]
    step = rounded.scale.reshape(shape) if axis is not None else rounded.scale
    found = dequantized(rounded.integers, rounded.scale, axis)
    assert (np.abs(found - array) <= step * 0.5001).all()
    assert np.abs(rounded.integers).max() == 127
    assert rounded.integers.min() >= -127


def test_reduced_range_is_seven_bits() -> None:
    array = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    rounded = weights(array, 0, Scheme("r", frozenset(), reduce_range=True))
    assert np.abs(rounded.integers).max() == 63


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-12, 1.0])
def test_the_bias_of_small_weights_fits_int32_and_keeps_its_value(size: float) -> None:
    """A pruned channel of a depthwise convolution gives its bias, and nothing else."""
    array = np.array([[[[1.0]]], [[[size]]]], np.float32)
    bias = np.array([0.25, 3.0], np.float32)
    rounded = weights(array, 0, U8, input_scale=0.02, bias=bias)
    step = rounded.scale.astype(np.float64) * 0.02
    steps = np.rint(bias / step)
    assert (np.abs(steps) <= BIAS_STEPS).all()
    np.testing.assert_allclose(steps * step, bias, rtol=1e-2 if size == 1 else 1e-3)
    assert np.isfinite(rounded.scale).all()
    assert (rounded.scale > math.ldexp(1, -70)).all()

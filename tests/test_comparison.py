"""What counts as the same answer."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from infc.comparison import THRESHOLDS, OutputError, compare, require, summary
from infc.diagnostics import InfcError
from infc.request import Precision

FP32 = THRESHOLDS[Precision.FP32]


def error_of(reference: object, answer: object) -> OutputError:
    (error,) = compare([({"y": np.asarray(reference)}, {"y": np.asarray(answer)})], FP32)
    return error


def test_equal_outputs_have_no_noise() -> None:
    error = error_of(np.float32([1, 2]), np.float32([1, 2]))
    assert (error.max_abs_error, error.relative_error, error.sqnr_db, error.ok) == (
        0,
        0,
        None,
        True,
    )


def test_figures_follow_their_definitions() -> None:
    reference, answer = np.float32([3.0, -4.0]), np.float32([3.0, -4.5])
    error = error_of(reference, answer)
    assert error.max_abs_error == 0.5
    assert error.relative_error == 0.5 / 4.0
    assert error.sqnr_db == pytest.approx(10 * math.log10((9 + 16) / 0.25))
    assert not error.ok


def test_the_totals_run_over_all_sets() -> None:
    one = {"y": np.float32([100.0])}, {"y": np.float32([100.0])}
    two = {"y": np.float32([0.0])}, {"y": np.float32([1.0])}
    (error,) = compare([one, two], FP32)
    assert error.relative_error == 0.01
    assert error.sqnr_db == pytest.approx(40.0)


@pytest.mark.parametrize(
    ("answer", "ok"),
    [([math.nan, 1.0], True), ([0.0, 1.0], False), ([math.nan, math.inf], False)],
)
def test_nan_equals_nan_only(answer: list[float], ok: bool) -> None:
    assert error_of(np.float32([math.nan, 1.0]), np.float32(answer)).ok is ok


@pytest.mark.parametrize(
    ("answer", "ok"), [(math.inf, True), (-math.inf, False), (1.0, False), (math.nan, False)]
)
def test_an_infinity_equals_itself_only(answer: float, ok: bool) -> None:
    assert error_of(np.float32([math.inf, 1.0]), np.float32([answer, 1.0])).ok is ok


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_integers_must_be_equal(dtype: type) -> None:
    reference = np.ones(1000, dtype)
    answer = reference.copy()
    assert error_of(reference, answer).ok
    answer[7] = 0
    assert not error_of(reference, answer).ok


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_integers_beyond_what_float64_holds_must_be_equal(dtype: type) -> None:
    reference = np.array([1 << 60, 5], dtype)
    assert error_of(reference, reference.copy()).ok
    assert not error_of(reference, reference + np.array([1, 0], dtype)).ok


def test_another_shape_or_type_is_wrong() -> None:
    assert not error_of(np.zeros((1, 2), np.float32), np.zeros((2,), np.float32)).ok
    assert not error_of(np.zeros(2, np.float32), np.zeros(2, np.float64)).ok


def test_a_missing_output_is_wrong() -> None:
    (error,) = compare([({"y": np.zeros(1, np.float32)}, {})], FP32)
    assert not error.ok


def test_bfloat16_is_compared_as_a_float() -> None:
    reference = np.ones(2, ml_dtypes.bfloat16)
    answer = np.array([1.0, 1.0078125], ml_dtypes.bfloat16)  # one step apart
    (error,) = compare([({"y": reference}, {"y": answer})], THRESHOLDS[Precision.BF16])
    assert error.ok
    assert not error_of(reference, answer).ok


def test_zero_against_nonzero_is_infinitely_wrong() -> None:
    error = error_of(np.zeros(3, np.float32), np.float32([0, 0, 1e-30]))
    assert error.relative_error == math.inf
    assert not error.ok


def test_empty_outputs_are_equal() -> None:
    assert error_of(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32)).ok


def test_require_names_every_output_outside_its_threshold() -> None:
    reference = {"a": np.float32([1]), "b": np.float32([1]), "c": np.float32([1])}
    answer = {"a": np.float32([2]), "b": np.float32([1]), "c": np.float32([math.nan])}
    errors = compare([(reference, answer)], FP32)
    with pytest.raises(InfcError) as caught:
        require(errors, "E602", "the artifact", "help")
    first, second = caught.value.diagnostics
    assert "`a`" in first.message
    assert "off by 1 of its peak" in first.message
    assert "`c`" in second.message


def test_the_summary_holds_json_values_only() -> None:
    errors = compare([({"y": np.zeros(1, np.float32)}, {})], FP32)
    (row,) = summary(errors)["outputs"]
    assert row["max_abs_error"] is None
    assert row["sqnr_db"] == -999.0


def test_an_output_that_the_source_quantises_may_be_a_step_off() -> None:
    reference = {"y": np.array([-128, -128, -100, 20, 127], np.int8)}
    near = {"y": np.array([-128, -127, -100, 21, 127], np.int8)}
    far = {"y": np.array([-128, -60, 100, -20, 0], np.int8)}
    quantised = {"y": Precision.INT8}
    fp32 = FP32
    assert not compare([(reference, near)], fp32)[0].ok
    assert compare([(reference, near)], fp32, computed_in=quantised)[0].ok
    assert not compare([(reference, far)], fp32, computed_in=quantised)[0].ok
    ids = {"y": np.array([3], np.int64)}, {"y": np.array([4], np.int64)}
    assert not compare([ids], fp32, computed_in=quantised)[0].ok


def test_the_zero_point_of_a_quantised_output_is_no_signal() -> None:
    """All but constant at -128: two answers of noise must not pass for the size of that alone."""
    reference = {"y": np.array([-128, -127, -128, -126], np.int8)}
    wrong = {"y": np.array([-126, -128, -127, -128], np.int8)}
    quantised = {"y": Precision.INT8}
    (error,) = compare([(reference, wrong)], FP32, computed_in=quantised)
    assert not error.ok

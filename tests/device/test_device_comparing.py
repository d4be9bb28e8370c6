"""The device's comparison in plain Python says what infc's says with numpy."""

from __future__ import annotations

import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from infc import comparison
from infc.comparison import THRESHOLDS, Threshold
from infc.device import comparing
from infc.device.producing import read_tensors
from infc.request import Precision
from infc.signature import save_tensors

RANDOM = np.random.default_rng(7)
TYPES = (
    *("float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16"),
    *("uint32", "uint64", "bool"),
)


def tensor(array: np.ndarray) -> comparing.Tensor:
    return array.dtype.name, array.shape, array.tobytes()


def limits(threshold: Threshold) -> dict[str, float | None]:
    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "relative_error": finite(threshold.relative_error),
        "sqnr_db": finite(threshold.sqnr_db),
    }


def both(pairs: list[tuple[np.ndarray, np.ndarray]], threshold: Threshold) -> tuple[dict, dict]:
    """What the device says, and what infc says."""
    own = comparing.compare(
        [({"y": tensor(r)}, {"y": tensor(a)}) for r, a in pairs], {"y": limits(threshold)}
    )
    errors = comparison.compare([({"y": r}, {"y": a}) for r, a in pairs], threshold)
    return own, comparison.summary(errors)


def noisy(dtype: str, noise: float) -> tuple[np.ndarray, np.ndarray]:
    if dtype == "bool":
        reference = RANDOM.integers(0, 2, (3, 50)).astype(bool)
        return reference, reference ^ (RANDOM.random((3, 50)) < noise)
    if "int" in dtype:
        info = np.iinfo(dtype)
        # The figures, not the verdict, are of float64 in infc and of integers here.
        low, high = max(info.min // 2, -(1 << 50)), min(info.max // 2, 1 << 50)
        reference = RANDOM.integers(low, high, (3, 50)).astype(dtype)
        return reference, reference + (RANDOM.random((3, 50)) < noise).astype(dtype)
    reference = RANDOM.normal(size=(3, 50)).astype(dtype)
    answer = reference + RANDOM.normal(size=(3, 50)).astype(dtype) * np.asarray(noise, dtype)
    return reference, answer.astype(dtype)


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-3, 0.3])
@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("dtype", TYPES)
def test_it_says_what_infc_says(dtype: str, precision: Precision, noise: float) -> None:
    own, expected = both([noisy(dtype, noise), noisy(dtype, noise)], THRESHOLDS[precision])
    assert own == expected


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.9])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "float32"])
def test_codes_that_the_source_quantises(dtype: str, noise: float) -> None:
    pairs = [noisy(dtype, noise), noisy(dtype, noise)]
    held_to = {**limits(THRESHOLDS[Precision.INT8]), "codes": True}
    own = comparing.compare(
        [({"y": tensor(r)}, {"y": tensor(a)}) for r, a in pairs], {"y": held_to}
    )
    errors = comparison.compare(
        [({"y": r}, {"y": a}) for r, a in pairs],
        THRESHOLDS[Precision.FP32],
        computed_in={"y": Precision.INT8},
    )
    assert own == comparison.summary(errors)


@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.3])
def test_bfloat16(noise: float) -> None:
    reference, answer = noisy("float32", noise)
    pair = reference.astype(ml_dtypes.bfloat16), answer.astype(ml_dtypes.bfloat16)
    own, expected = both([pair], THRESHOLDS[Precision.BF16])
    assert own == expected


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_neighbours_beyond_what_float64_holds_are_told_apart(dtype: str) -> None:
    reference = np.array([1 << 60, 5], dtype)
    own, expected = both([(reference, reference + np.array([1, 0], dtype))], THRESHOLDS["int8"])
    assert not own["ok"]
    assert not expected["ok"]


ODD = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, 65504.0]


@pytest.mark.parametrize("wrong", [None, 0, 1, 2, 3, 5])
def test_nan_and_infinity(wrong: int | None) -> None:
    reference = np.array(ODD, np.float32)
    answer = reference.copy()
    if wrong is not None:
        answer[wrong] = 2.0 if not np.isfinite(reference[wrong]) else np.nan
    own, expected = both([(reference, answer)], THRESHOLDS[Precision.FP16])
    assert own == expected
    assert own["ok"] is (wrong is None)


@pytest.mark.parametrize(
    "answer",
    [np.zeros((2, 3), np.float32), np.zeros(6, np.float64), np.zeros(5, np.float32)],
    ids=["shape", "type", "size"],
)
def test_another_shape_or_type_is_wrong(answer: np.ndarray) -> None:
    own, expected = both([(np.zeros(6, np.float32), answer)], THRESHOLDS[Precision.INT8])
    assert own == expected
    assert not own["ok"]


def test_a_missing_output_is_wrong() -> None:
    row = tensor(np.zeros(3, np.float32))
    (only,) = comparing.compare([({"y": row}, {})], {"y": limits(THRESHOLDS[Precision.FP32])})[
        "outputs"
    ]
    assert not only["ok"]


def test_nothing_but_zeros_and_no_elements() -> None:
    for shape in ((4,), (0, 4)):
        zeros = np.zeros(shape, np.float32)
        own, expected = both([(zeros, zeros)], THRESHOLDS[Precision.FP32])
        assert own == expected
        assert own["ok"]


def test_a_tensor_folder_of_infc_is_read(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.array(True)}
    save_tensors(tmp_path / "t", arrays)
    found = read_tensors(tmp_path / "t")
    assert {k: list(comparing.numbers(v)) for k, v in found.items()} == {
        "a": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        "b": [1],
    }
    assert found["a"][1] == (2, 3)

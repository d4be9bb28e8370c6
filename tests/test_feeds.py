"""Random inputs that any model takes."""

from __future__ import annotations

import numpy as np
import pytest

from infc.feeds import make_feeds
from infc.request import VerifyOptions
from infc.signature import TensorSpec


@pytest.mark.parametrize("dtype", ["int64", "bool", "uint8"])
def test_no_mask_hides_everything(dtype: str) -> None:
    """Of a row that is wholly masked, PyTorch's attention makes 0 and ONNX's softmax the mean."""
    mask = TensorSpec("mask", dtype, ("batch", "length"), {"batch": (1, 2, 8), "length": (1, 2, 3)})
    for feeds in make_feeds([mask], VerifyOptions(samples=8)):
        assert feeds["mask"].astype(int).sum(-1).min() >= 1
        assert set(np.unique(feeds["mask"].astype(int))) <= {0, 1}


def test_an_index_may_be_zero() -> None:
    index = TensorSpec("index", "int64", (1,))
    feeds = make_feeds([index], VerifyOptions(samples=32))
    assert {int(f["index"][0]) for f in feeds} == {0, 1}


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool"])
def test_an_input_without_dimensions_is_an_array(dtype: str) -> None:
    """numpy draws a number there, which ONNX Runtime does not take."""
    (feeds, *_) = make_feeds([TensorSpec("count", dtype, ())], VerifyOptions())
    assert isinstance(feeds["count"], np.ndarray)
    assert feeds["count"].shape == ()
    assert feeds["count"].dtype == dtype

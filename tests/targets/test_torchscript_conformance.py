"""The node tests that ship with ONNX, through the lowerings: right, or refused; nothing else."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from infc.targets import Target, torchscript

RIGHT_AT_LEAST = 1500
"""Of the 1884 in onnx 1.23; the others hold types or operators that torch has no equivalent for."""
TOLERANCE = {"float16": 3e-3, "bfloat16": 2e-2}
"""11 and 8 bits, and a few roundings."""


def as_array(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value)


def agree(expected: Any, answer: Any, rtol: float) -> bool:
    want, got = as_array(expected), torchscript._array(answer)
    if (want.dtype, want.shape) != (got.dtype, got.shape):
        return False
    rtol = max(rtol, TOLERANCE.get(want.dtype.name, 0.0))
    atol = max(1e-6, TOLERANCE.get(want.dtype.name, 0.0) / 3)
    wide = want.astype(np.float64), got.astype(np.float64)
    return bool(np.allclose(wide[1], wide[0], rtol=rtol, atol=atol, equal_nan=True))


def outcome(test: Any) -> str:
    """ "right", "refused", or what went wrong."""
    import torch

    model = ir.from_proto(test.model)
    torchscript.legalize(model, Target("torchscript", "torchscript", ""))
    program, unsupported = torchscript.program_of(model)
    if unsupported:
        return "refused"
    module = torchscript.compile_program(program, freeze=True)
    for inputs, outputs in test.data_sets:
        with torch.inference_mode():
            answers = module(*(torchscript._tensor(as_array(a)) for a in inputs))
        for expected, answer in zip(outputs, answers, strict=True):
            if not agree(expected, answer, test.rtol):
                return "wrong"
    return "right"


@pytest.mark.slow
def test_no_node_of_the_standard_is_answered_wrongly(need_module: Callable[[str], None]) -> None:
    need_module("torch")
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx computes its expectations with overflows and NaN
        from onnx.backend.test.loader import load_model_tests

        tests = load_model_tests(kind="node")
        found = {}
        for test in tests:
            try:
                found[test.name] = outcome(test)
            except Exception as error:
                # The scales are an input: only the running artifact can refuse them.
                known = "align_corners with a scale that gives no whole length" in str(error)
                found[test.name] = "refused" if known else f"{type(error).__name__}: {error}"
    failures = {k: v for k, v in found.items() if v not in ("right", "refused")}
    assert not failures, failures
    counts = Counter(found.values())
    assert counts["right"] >= RIGHT_AT_LEAST, counts

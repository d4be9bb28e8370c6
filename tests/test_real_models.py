"""Every real model, on every back end: compiled, verified in its runtime and through C++."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import verdicts

from infc import driver
from infc.request import Request
from infc.targets import BACK_ENDS

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
SHARED = [
    "ultraface/version-RFB-320.onnx",
    "ultraface/version-RFB-320_without_postprocessing.onnx",
    "ultraface/version-slim-320.onnx",
    "fastestdet/FastestDet.onnx",
    "dtln/model_1.onnx",
    "dtln/model_2.onnx",
]
LIGHTEST = ("inception_v1", "resnet50", "shufflenet", "squeezenet")
"""The others have no further operator; three are half a gigabyte of constants."""


def check(path: Path, output: Path) -> None:
    result = driver.compile(Request(path, BACK_ENDS, output, loaders=("cpp",)))
    for row in result.results:
        assert row.bundle is not None, "\n".join(d.render() for d in row.diagnostics)
        assert row.verification["verdict"] == verdicts.expected(row.target)
        if row.verification["verdict"] == "passed":
            assert all(e.ok for e in driver.verify(row.bundle, through="cpp").errors)
    assert result.nodes_after <= result.nodes_before


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.parametrize("name", SHARED)
def test_a_shared_model(
    models: Path, tmp_path: Path, name: str, need_tool: Callable[[str], str]
) -> None:
    need_tool("cmake")
    check(models / name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHTEST)
def test_a_light_model(name: str, tmp_path: Path, need_tool: Callable[[str], str]) -> None:
    need_tool("cmake")
    check(LIGHT / f"light_{name}.onnx", tmp_path)

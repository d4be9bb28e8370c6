"""The Keras models of the shared folder, read without Keras, in every back end and through C++."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import verdicts
from conftest import ROOT

from infc import driver
from infc.request import Request, VerifyOptions
from infc.targets import BACK_ENDS

sys.path.append(str(ROOT / "scripts"))

KEYPOINTS = 4450
"""Labelled rows of keypoint.csv."""


@pytest.fixture
def ready(need_tool: Callable[[str], str], need_back_end: Callable[[str], None]) -> None:
    need_tool("cmake")
    for name in BACK_ENDS:
        need_back_end(name)


def read(path: Path, folder: Path) -> Path:
    import keras_layers

    onnx.save(keras_layers.read(path), folder / f"{path.stem}.onnx")
    return folder / f"{path.stem}.onnx"


@pytest.mark.slow
@pytest.mark.models
def test_hand_keypoint_keeps_its_accuracy(ready: None, models: Path, tmp_path: Path) -> None:
    """Every row goes through the artifact and through its C++ loader, as one batch."""
    folder = models / "hand_keypoint"
    rows = np.loadtxt(folder / "keypoint.csv", delimiter=",", dtype=np.float32)
    assert len(rows) == KEYPOINTS
    np.savez(tmp_path / "rows.npz", x=rows[:, 1:])
    path = read(folder / "keypoint_classifier.hdf5", tmp_path)
    answers = onnx_answers(path, rows[:, 1:])
    assert (answers.argmax(1) == rows[:, 0]).mean() == pytest.approx(0.965, abs=5e-4)
    verify = VerifyOptions(data=tmp_path / "rows.npz")
    for row in driver.compile(Request(path, BACK_ENDS, tmp_path / "build", verify=verify)).results:
        assert row.bundle is not None, "\n".join(d.render() for d in row.diagnostics)
        assert row.verification["verdict"] == verdicts.expected(row.target)
        if row.verification["verdict"] != "passed":
            continue
        # The reference is the source model's answers to all 4,450 rows.
        through = driver.verify(row.bundle, through="cpp")
        assert all(e.relative_error < 1e-5 for e in through.errors), row.target


def onnx_answers(path: Path, rows: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": rows})[0])


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.parametrize("name", ["ad01", "pretrainedResnet"])
def test_mlperf_tiny(ready: None, models: Path, tmp_path: Path, name: str) -> None:
    path = read(models / "mlperf_tiny" / f"{name}.h5", tmp_path)
    request = Request(path, BACK_ENDS, tmp_path / "build", loaders=("cpp",))
    for row in driver.compile(request).results:
        assert row.bundle is not None, "\n".join(d.render() for d in row.diagnostics)
        assert row.verification["verdict"] == verdicts.expected(row.target)
        if row.verification["verdict"] == "passed":
            assert all(e.ok for e in driver.verify(row.bundle, through="cpp").errors)

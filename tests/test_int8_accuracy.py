"""What the default calibration keeps of a real network's answers, on photos it has not seen."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import ROOT
from onnx import TensorProto, helper, numpy_helper

import infc

sys.path.append(str(ROOT / "scripts"))


def quantized(source: Path, data: dict[str, np.ndarray], folder: Path) -> Path:
    np.savez(folder / "data.npz", **data)
    options = infc.CalibrationOptions(str(folder / "data.npz"))
    infc.quantize(source, folder / "int8.onnx", "onnxruntime", options, verify=False)
    return folder / "int8.onnx"


@pytest.mark.models
def test_faces_survive_the_default_method(models: Path, tmp_path: Path) -> None:
    """Entropy clipped a branch of slim-320 that only faces make large: 8 % of them were left."""
    pytest.importorskip("PIL")
    import bench_int8
    import int8_subjects

    subject = int8_subjects.SUBJECTS["slim"](models, tmp_path)
    reference = int8_subjects.run(subject.path, subject.test, plain=True)
    path = quantized(subject.path, subject.calibrate, tmp_path)
    found = bench_int8.figures(subject, reference, int8_subjects.run(path, subject.test))
    scores, boxes = found["sqnr_db"]
    assert scores > 43
    assert boxes > 52
    assert found["detections"] > 99


def test_rare_great_values_that_the_answer_rests_on_are_kept(tmp_path: Path) -> None:
    """One value in 32,768 is 20 times the others, and is what a detector is to find."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((64, 1, 32, 32)).astype(np.float32)
    rows[::32, 0, 7, 9] = 20
    w = np.zeros((4, 1, 3, 3), np.float32)
    w[:, 0, 1, 1] = 1, 0.5, -1, 0.25
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 32, 32])],
        [numpy_helper.from_array(w, "w")],
    )
    imports = [helper.make_opsetid("", 17)]
    onnx.save(
        helper.make_model(graph, opset_imports=imports, ir_version=8), tmp_path / "spike.onnx"
    )
    import int8_subjects

    path = quantized(tmp_path / "spike.onnx", {"x": rows}, tmp_path)
    (found,) = int8_subjects.run(path, {"x": rows[:1]})
    assert found[0, 0, 7, 9] == pytest.approx(20, rel=0.02)

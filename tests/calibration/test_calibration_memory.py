"""The memory of a calibration does not grow with the samples."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SAMPLE_BYTES = 3 * 8 * 128 * 128 * 4
"""The observed tensors of one sample."""

PROGRAM = """
import resource, sys
from pathlib import Path
from infc.calibration import calibrate
from infc.calibration.data import open_samples
from infc.request import CalibrationOptions, WorkerLimits
from infc.signature import TensorSpec
import onnx_ir as ir
model, scratch, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
options = CalibrationOptions("random", samples=count)
samples = open_samples(options, (TensorSpec("x", "float32", (1, 8, 128, 128)),))
done = calibrate(ir.load(model), ["v0", "v1", "v2"], samples, scratch, WorkerLimits())
assert done.ranges.samples == count
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


def peak_bytes(model: Path, folder: Path, count: int) -> int:
    """Of the worker."""
    words = [str(model), str(folder / str(count)), str(count)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "INFC_HOME": str(folder / "home")},
    )
    return int(done.stdout)


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    nodes, weights, value = [], [], "x"
    for i in range(3):
        array = np.eye(8, dtype=np.float32).reshape(8, 8, 1, 1)
        weights.append(numpy_helper.from_array(array, f"w{i}"))
        nodes.append(helper.make_node("Conv", [value, f"w{i}"], [f"v{i}"]))
        value = f"v{i}"
    nodes.append(helper.make_node("GlobalMaxPool", [value], ["y"]))
    shapes = (("x", [1, 8, 128, 128]), ("y", [1, 8, 1, 1]))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes)
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    model = tmp_path / "m.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), model)
    few, many = (peak_bytes(model, tmp_path, count) for count in (20, 420))
    assert many - few < 25 * SAMPLE_BYTES, f"{(many - few) / 400 / SAMPLE_BYTES:.2f} of a sample"

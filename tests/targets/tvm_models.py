"""Models that TVM's artifacts are tried with, and what builds and runs those as a worker does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import parser

from infc.signature import TensorSpec
from infc.targets import Artifact, BuildJob, RunJob, Target, configure, tvm

TOLERANCE = 3e-6
"""Of the largest answer: float32 sums of a few thousand terms, added up in another order."""

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
agraph (float[1, 3, 12, 12] x) => (float[1, 10] y) {
    c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]>(x, w)
    a = Relu(c)
    d = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 16>(a, v)
    e = Sigmoid(d)
    m = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(e)
    shape = Constant<value = int64[2] {1, -1}>()
    flat = Reshape(m, shape)
    z = MatMul(flat, u)
    y = Softmax<axis = 1>(z)
}
"""
SHAPES = {"w": (16, 3, 3, 3), "v": (16, 1, 3, 3), "u": (144, 10)}


def small_network(seed: int) -> onnx.ModelProto:
    """Convolutions, one of them depthwise, what follows them, a matrix and a softmax."""
    model = parser.parse_model(TEXT)
    rng = np.random.default_rng(seed)
    for name, shape in SHAPES.items():
        array = (rng.standard_normal(shape) / 4).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def expected(model: onnx.ModelProto, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What ONNX Runtime answers."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


def target_of(**options: str) -> Target:
    """The target `tvm` with these options, checked."""
    return configure(Target("tvm", "tvm", ""), None, options)


def build(
    model: onnx.ModelProto, folder: Path, name: str = "model", **options: str
) -> tuple[Artifact, RunJob]:
    """The artifact of `model` in `folder / "model"`, and the job that opens it."""
    folder.mkdir(parents=True, exist_ok=True)
    target = target_of(**options)
    lowered = ir.from_proto(model)
    tvm.legalize(lowered, target)
    ir.save(lowered, folder / "in.onnx")
    output = folder / "model"
    output.mkdir()
    specs = (
        (TensorSpec("x", "float32", (1, 3, 12, 12)),),
        (TensorSpec("y", "float32", (1, 10)),),
    )
    artifact = tvm.build(BuildJob(folder / "in.onnx", output, target, *specs, name=name))
    return artifact, RunJob(output / artifact.entry, target, ("y",), ("x",))


def require_right(model: onnx.ModelProto, job: RunJob) -> None:
    """Hold the artifact to ONNX Runtime's answers, on one thread and on three."""
    x = np.random.default_rng(9).standard_normal((1, 3, 12, 12)).astype(np.float32)
    right = expected(model, x)
    for threads in (1, 3):
        found = tvm.open(replace(job, threads=threads))({"x": x})["y"]
        np.testing.assert_allclose(found, right, rtol=0, atol=TOLERANCE * float(right.max()))

"""`infc compile --fallback fp16`: what INT8 leaves in float computes in 16 bits, guarded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import weighted
from command import infc

from infc import precision, targets
from infc.passes.infer_shapes import InferShapes
from infc.passes.quantization import observed, quantize
from infc.quantization import Range
from infc.request import Precision
from infc.targets.schemes import TENSORRT

NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1,3,16,16] image) => (float[1,10] scores)
{
  a = Conv<pads = [1,1,1,1]>(image, w1)
  b = Relu(a)
  c = Conv<pads = [1,1,1,1]>(b, w2)
  d = Relu(c)
  e = Conv(d, w3)
  f = Relu(e)
  g = GlobalAveragePool(f)
  h = Flatten(g)
  scores = Gemm(h, w4)
}
"""
SHAPES = {"w1": (32, 3, 3, 3), "w2": (32, 32, 3, 3), "w3": (64, 32, 3, 3), "w4": (64, 10)}


def model(folder: Path, gain: float = 1.0) -> Path:
    rng = weighted.save(folder / "net.onnx", NET, SHAPES, {"w2": gain, "w3": 1 / gain})
    images = rng.standard_normal((24, 3, 16, 16)).astype(np.float32)
    np.savez(folder / "images.npz", image=images)
    return folder / "net.onnx"


def words(path: Path, *more: object) -> tuple[object, ...]:
    data = path.parent / "images.npz"
    precision = ("--precision", "int8", "--calibration", data, "--fallback", "fp16")
    return ("compile", path, "-o", path.parent / "o", "--loader", "none", *precision, *more)


def compiled(path: Path, *more: object) -> tuple[dict[str, Any], str]:
    done = infc(*words(path, "-t", "openvino", *more))
    assert done.status == 0, done.err
    return json.loads((path.parent / "o" / "net-openvino" / "manifest.json").read_text()), done.err


def test_what_stays_in_float_computes_in_16_bits(tmp_path: Path) -> None:
    manifest, _ = compiled(model(tmp_path), "--min-sqnr", "60")
    assert manifest["quantization"]["budget"]["keep"], "a budget that INT8 alone cannot hold"
    conversion = manifest["conversion"]
    assert conversion["to"] == "float16"
    assert conversion["converted"] > 0
    assert manifest["verification"]["verdict"] == "passed"


def test_where_all_is_quantised_nothing_is_cast(tmp_path: Path) -> None:
    manifest, _ = compiled(model(tmp_path))
    assert manifest["conversion"]["converted"] == 0


def test_no_cast_comes_between_a_quantised_layer_and_its_scale(tmp_path: Path) -> None:
    graph = ir.load(model(tmp_path))
    InferShapes()(graph)
    ranges = {name: Range(-3.0, 3.0) for name in observed(graph, TENSORRT)}
    record = quantize(graph, ranges, TENSORRT, keep_float=frozenset(["c", "d"]))

    class Known:
        source = "nothing"

        def ranges(self) -> dict[str, Range]:
            return {name: Range(-3.0, 3.0) for name in "abcdefgh"}

    target = targets.choose(("tensorrt-rtx",), Precision.INT8, {}, {})[0]
    lowered = precision.lower_rest(
        graph,
        target,
        Precision.FP16,
        Known(),
        frozenset(record.quantized),  # type: ignore[arg-type]
    )
    assert lowered.document is not None
    assert lowered.document["converted"] == 2, "the convolution and its activation"
    for node in lowered.model.graph:
        if node.op_type == "Cast":
            (value,) = node.inputs
            assert value is not None
            for use in node.outputs[0].uses():
                assert use.node.op_type in ("Conv", "QuantizeLinear", "Relu")
    onnx.checker.check_model(ir.to_proto(lowered.model), full_check=True)


def test_what_would_overflow_stays_in_float32_and_is_named(tmp_path: Path) -> None:
    path = model(tmp_path, gain=1e6)
    manifest, said = compiled(path, "--min-sqnr", "60")
    assert "E420" in said
    assert manifest["conversion"]["overflow"]
    assert any("reaches" in row["reason"] for row in manifest["conversion"]["kept"])
    assert manifest["verification"]["verdict"] == "passed"


def test_a_bundle_with_both_is_debugged_as_it_was_made(tmp_path: Path) -> None:
    path = model(tmp_path)
    compiled(path, "--keep-float", "scores", "--min-sqnr", "60")
    done = infc("debug-accuracy", tmp_path / "o" / "net-openvino", "--source", path, "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["identical"], "the artifact, byte by byte"


@pytest.mark.parametrize("target", ["onnxruntime", "mindspore-lite"])
def test_a_back_end_without_both_refuses(tmp_path: Path, target: str) -> None:
    done = infc(*words(model(tmp_path), "-t", target))
    assert done.status == 2
    assert "E205" in done.err
    assert "--fallback fp16" in done.err

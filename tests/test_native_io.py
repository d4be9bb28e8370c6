"""`--io native`: inputs and outputs in the type of the precision, proved all the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import weighted
from command import infc

from infc.native_types import decode, encode
from infc.passes.native_io import to_floats, to_integers
from infc.quantization import Range
from infc.signature import TensorSpec

NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[batch,3,16,16] image) => (float[batch,10] scores)
{
  a = Conv<pads = [1,1,1,1]>(image, w1)
  b = Relu(a)
  c = Conv(b, w2)
  d = Relu(c)
  e = GlobalAveragePool(d)
  f = Flatten(e)
  scores = Gemm(f, w3)
}
"""
SHAPES = {"w1": (32, 3, 3, 3), "w2": (64, 32, 3, 3), "w3": (64, 10)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = weighted.save(tmp_path / "net.onnx", NET, SHAPES)
    images = rng.standard_normal((24, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "images.npz", image=images)
    return tmp_path / "net.onnx"


def compiled(model: Path, target: str, precision: str, *words: object) -> tuple[Path, Any, str]:
    done = infc(
        *("compile", model, "-t", target, "-o", model.parent / "o", "--precision", precision),
        *("--calibration", model.parent / "images.npz", "--io", "native", *words),
    )
    assert done.status == 0, done.err
    bundle = model.parent / "o" / f"net-{target}"
    return bundle, json.loads((bundle / "manifest.json").read_text()), done.err


CASES = [
    ("onnxruntime", "fp16", "float16"),
    ("openvino", "fp16", "float16"),
    ("torchscript", "bf16", "bfloat16"),
    ("onnxruntime", "int8", "uint8"),
    ("openvino", "int8", "uint8"),
    ("tvm", "int8", "uint8"),
]


@pytest.mark.parametrize(("target", "precision", "dtype"), CASES, ids=str)
def test_the_artifact_has_its_own_types_and_is_proved(
    model: Path, target: str, precision: str, dtype: str
) -> None:
    bundle, manifest, _ = compiled(model, target, precision)
    (row,) = manifest["inputs"]
    assert (row["dtype"], row["source_dtype"]) == (dtype, "float32")
    assert ("scale" in row) == (precision == "int8")
    assert manifest["verification"]["verdict"] == "passed"
    outputs = {row["name"]: row["dtype"] for row in manifest["outputs"]}
    if precision != "int8":
        assert outputs == {"scores": dtype}
    assert infc("verify", bundle).status == 0
    assert infc("verify", bundle, "--source", model).status == 0
    assert infc("bench", bundle, "--runs", "2", "--json").status == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
@pytest.mark.parametrize(("target", "precision", "dtype"), CASES, ids=str)
def test_the_loader_takes_those_types(model: Path, target: str, precision: str, dtype: str) -> None:
    bundle, manifest, _ = compiled(model, target, precision)
    done = infc("verify", bundle, "--through", "cpp")
    assert done.status == 0, done.err
    header = (bundle / "loader" / "cpp" / "net.h").read_text()
    row = manifest["inputs"][0]
    if precision == "int8":
        assert f"#define NET_INPUT_IMAGE_ZERO_POINT {row['zero_point']}\n" in header
        (line,) = (x for x in header.splitlines() if "NET_INPUT_IMAGE_SCALE" in x)
        assert np.float32(line.split()[-1].rstrip("f")) == np.float32(row["scale"])
        (java,) = (bundle / "loader" / "java").rglob("Net.java")
        assert f"IMAGE_ZERO_POINT = {row['zero_point']};" in java.read_text()
        assert f"IMAGE_SCALE = {line.split()[-1]};" in java.read_text()
    else:
        assert "const uint16_t* image" in header


def test_inspect_says_what_integers_stand_for(model: Path) -> None:
    bundle, manifest, _ = compiled(model, "onnxruntime", "int8")
    row = manifest["inputs"][0]
    done = infc("inspect", bundle)
    assert f"(q - {row['zero_point']}) * {row['scale']:.9g}" in done.out


def test_the_float_artifact_and_the_native_one_answer_alike(model: Path) -> None:
    bundle, manifest, _ = compiled(model, "onnxruntime", "int8", "-X", "format=onnx")
    infc(
        *("compile", model, "-t", "onnxruntime", "-o", model.parent / "f", "--precision", "int8"),
        *("--calibration", model.parent / "images.npz", "-X", "format=onnx"),
    )
    image = np.load(model.parent / "images.npz")["image"][:4]
    spec = TensorSpec.from_json(manifest["inputs"][0])
    answers = []
    for folder, array in (
        (bundle, encode(image, spec)),
        (model.parent / "f" / "net-onnxruntime", image),
    ):
        session = onnxruntime.InferenceSession(folder / "model" / "model.onnx")
        answers.append(session.run(None, {"image": array})[0])
    output = TensorSpec.from_json(manifest["outputs"][0])
    native = decode(answers[0], output) if output.source_dtype else answers[0]
    np.testing.assert_allclose(native, answers[1], rtol=0, atol=1e-5)


def test_a_bundle_with_native_types_is_debugged(model: Path) -> None:
    bundle, _, _ = compiled(model, "onnxruntime", "int8")
    done = infc("debug-accuracy", bundle, "--source", model, "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["identical"], "the artifact, byte by byte"


def test_a_budget_is_held_with_native_types(model: Path) -> None:
    words = ("--min-sqnr", "15", "--max-latency", "100x")
    _, manifest, _ = compiled(model, "onnxruntime", "int8", *words)
    assert manifest["quantization"]["budget"]["artifact"]["sqnr_db"] > 15
    assert manifest["inputs"][0]["dtype"] == "uint8"


def test_a_back_end_that_quantises_by_itself_refuses(model: Path) -> None:
    done = infc(
        *("compile", model, "-t", "mindspore-lite", "-o", model.parent, "--precision", "int8"),
        *("--calibration", model.parent / "images.npz", "--io", "native"),
    )
    assert done.status == 2
    assert "E205" in done.err


def graph(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


def test_a_value_that_the_type_cannot_hold_stays() -> None:
    model = graph(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[4] x, float[4] y) => (float[4] z) { z = Add(x, y) }"""
    )
    found = to_floats(model, "float16", {"x": Range(-1.0, 1e5), "z": Range(0.0, 3.0)})
    assert dict(found.types) == {"y": "float16", "z": "float16"}
    assert found.kept == {"x": "it reaches 1e+05"}
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    feeds = {"x": np.float32([1, 2, 1e5, -4]), "y": np.float16([1, 2, -3e4, 4])}
    (z,) = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, feeds)
    assert z.dtype == np.float16
    assert z.tolist()[:2] == [2, 4]


def test_what_is_read_in_float_too_or_given_by_it_stays() -> None:
    model = graph(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[4] x, float[4] y) => (float[4] z, float[4] p) {
          s = Constant<value = float {0.5}>()
          o = Constant<value = uint8 {3}>()
          q = QuantizeLinear(x, s, o)
          r = QuantizeLinear(y, s, o)
          u = DequantizeLinear(q, s, o)
          v = DequantizeLinear(r, s, o)
          a = Add(u, v)
          b = QuantizeLinear(a, s, o)
          z = DequantizeLinear(b, s, o)
          p = Relu(y)
        }"""
    )
    found = to_integers(model)
    assert dict(found.types) == {"x": "uint8", "z": "uint8"}
    assert dict(found.quantized) == {"x": (0.5, 3), "z": (0.5, 3)}
    assert set(found.kept) == {"y", "p"}
    assert [v.name for v in model.graph.outputs] == ["z", "p"]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_a_model_whose_output_is_an_input_of_another_is_left_whole() -> None:
    model = graph(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[4] x) => (float[4] y, float[4] z) { y = Relu(x) z = Neg(y) }"""
    )
    found = to_floats(model, "float16", {})
    assert set(found.types) == {"x", "y", "z"}
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    feed = {"x": np.float16([-1, 0, 1, 2])}
    y, z = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, feed)
    assert (y.tolist(), z.tolist()) == ([0, 0, 1, 2], [0, 0, -1, -2])


@pytest.mark.parametrize(("dtype", "zero"), [("uint8", 3), ("int8", -7)])
def test_conversion_there_and_back_rounds_once(dtype: str, zero: int) -> None:
    spec = TensorSpec("x", dtype, (5,), source_dtype="float32", quantized=(0.25, zero))
    array = np.float32([-0.5, 0, 0.26, 3, 1e9])
    there = encode(array, spec)
    assert there.dtype == dtype
    assert decode(there, spec)[1:4].tolist() == [0, 0.25, 3]
    assert there[-1] == np.iinfo(dtype).max
    assert TensorSpec.from_json(spec.to_json()) == spec

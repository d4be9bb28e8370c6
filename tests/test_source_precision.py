"""What a model itself computes in, and the thresholds that follow from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from infc import conditioning, driver
from infc.bundle import open_bundle
from infc.comparison import THRESHOLDS, compare
from infc.feeds import make_feeds
from infc.request import Precision, Request, VerifyOptions
from infc.signature import TensorSpec
from infc.source_precision import quantities, source_precisions


def parsed(text: str, opset: int = 18) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> g {text}')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(float[2] x) => (float[2] y) { y = Relu(x) }", {}),
        ("(double[2] x) => (double[2] y) { y = Relu(x) }", {}),
        ("(float16[2] x) => (float16[2] y) { y = Relu(x) }", {"y": Precision.FP16}),
        ("(bfloat16[2] x) => (bfloat16[2] y) { y = Neg(x) }", {"y": Precision.BF16}),
        (
            "(float[2] x) => (float[2] y, float[2] z)"
            "{ h = Cast<to=10>(x) r = Exp(h) y = Cast<to=1>(r) z = Relu(x) }",
            {"y": Precision.FP16},
        ),
        (
            "(float[2] x) => (float[2] y) <float16[2] w = {1, 2}>"
            "{ f = Cast<to=1>(w) y = Mul(x, f) }",
            {},
        ),
        (
            "(float[2] x, bool c) => (float[2] y) { y = If(c) <"
            "then_branch = t () => (float[2] a) { h = Cast<to=10>(x) a = Cast<to=1>(h) },"
            "else_branch = e () => (float[2] b) { b = Neg(x) }> }",
            {"y": Precision.FP16},
        ),
        (
            "(float[2] x) => (float[2] y) <float s = {0.5}, int8 z = {0}>"
            "{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }",
            {"y": Precision.INT8},
        ),
        (
            "(float[2] x) => (float[2] y) <float s = {0.5}, int8[2] q = {1, 2}, int8 z = {0}>"
            "{ w = DequantizeLinear(q, s, z) y = Mul(x, w) }",
            {},
        ),
    ],
    ids=[
        "float",
        "double",
        "half",
        "bfloat16",
        "inside",
        "only-stored",
        "in-a-branch",
        "quantised",
        "quantised-weights",
    ],
)
def test_the_arithmetic_of_each_output(text: str, expected: dict[str, Precision]) -> None:
    assert source_precisions(ir.from_proto(parsed(text))) == expected


def test_only_the_outputs_named_get_the_coarser_threshold() -> None:
    reference = {n: np.array([1.0, 2.0], np.float32) for n in "yz"}
    answer = {n: np.array([1.0, 2.002], np.float32) for n in "yz"}
    y, z = compare(
        [(reference, answer)], THRESHOLDS[Precision.FP32], computed_in={"y": Precision.FP16}
    )
    assert y.ok
    assert not z.ok


def half_attention(path: Path) -> Path:
    """A float16 perceptron with a softmax: runtimes round its intermediates in their own ways."""
    rng = np.random.default_rng(0)
    model = parsed(
        "(float16[2, 64] x) => (float16[2, 16] y)"
        "{ a = MatMul(x, w) b = Sigmoid(a) c = Mul(a, b) d = MatMul(c, v) y = LogSoftmax(d) }"
    )
    for name, shape in (("w", (64, 256)), ("v", (256, 16))):
        weights = (rng.standard_normal(shape) / 8).astype(np.float16)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("target", ["openvino", "torchscript"])
def test_a_half_model_is_held_to_what_halves_can_do(
    target: str, tmp_path: Path, need_module: object
) -> None:
    need_module("torch" if target == "torchscript" else target)  # type: ignore[operator]
    path = half_attention(tmp_path / "half.onnx")
    (row,) = driver.compile(Request(path, (target,), tmp_path / "out", loaders=())).results
    assert row.bundle is not None, row.diagnostics
    proof = open_bundle(row.bundle).manifest["verification"]
    assert proof["computed_in"] == {"y": "fp16"}
    assert driver.verify(row.bundle).errors[0].ok


def test_jitter_moves_halves_by_their_last_place() -> None:
    model = ir.from_proto(
        parsed(
            "(float16[1, 4] x) => (float16[1, 4] y)"
            "<float16[4, 4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}>"
            "{ a = MatMul(x, w) y = Relu(a) }"
        )
    )
    (factors,) = (
        v.const_value.numpy()
        for n, v in conditioning.jitter(model, 0).graph.initializers.items()
        if n.endswith("factors")
    )
    assert factors.dtype == np.float16
    assert 0 < np.abs(factors.astype(float) - 1).max() <= 2e-3


def test_eight_bit_inputs_that_stand_for_real_numbers() -> None:
    text = """(uint8[N, 4] pixels, int8[N, 4] codes, uint8[N] ids, float[9, 4] table)
        => (float[N, 4] y, float[N, 4] z, float[N, 4] w)
        <float s = {0.5}, int8 zp = {3}>
        {
          y = Cast <to = 1> (pixels)
          moved = Identity (codes)
          z = DequantizeLinear (moved, s, zp)
          index = Cast <to = 7> (ids)
          w = Gather (table, index)
        }"""
    model = ir.serde.deserialize_model(parsed(text))
    assert quantities(model) == {"pixels", "codes"}
    specs = [TensorSpec("pixels", "uint8", (1, 400)), TensorSpec("ids", "uint8", (400,))]
    feeds = make_feeds(specs, VerifyOptions(samples=1), quantities={"pixels"})[0]
    assert feeds["pixels"].min() < 10
    assert feeds["pixels"].max() > 245
    assert set(feeds["ids"]) == {0, 1}

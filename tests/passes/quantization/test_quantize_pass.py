"""What is quantised computes in integers on the back end, and nearly what it did in float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import networks
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from infc.passes.quantization import observed, quantize
from infc.passes.rewriting import opset
from infc.quantization import Range, Scheme
from infc.targets import schemes

SCHEMES = [schemes.ONNXRUNTIME, schemes.OPENVINO, schemes.TENSORRT, schemes.TVM]
NETWORKS = [networks.mobile, networks.mixed, networks.attention]


def quantized(model: ir.Model, scheme: Scheme, **kw: object):
    data = networks.feeds(model, 16)
    ranges, means = networks.measured(model, scheme, data)
    result = model.clone()
    return result, quantize(result, ranges, scheme, means=means, **kw)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.__name__)
def test_the_answers_are_near(network: Callable[[], ir.Model], scheme: Scheme) -> None:
    """8 bits give about 40 dB a layer, and the noise of up to ten layers adds up."""
    model = network()
    data = networks.feeds(model, 4, seed=1)
    result, record = quantized(model, scheme)
    assert record.quantized
    assert opset(result) == opset(model)
    before, after = networks.run(model, data), networks.run(result, data)
    assert min(networks.sqnr_db(before, after)) > 28
    for old, new in zip(model.graph.outputs, result.graph.outputs, strict=True):
        assert (old.name, old.dtype) == (new.name, new.dtype)
    assert [v.name for v in result.graph.inputs] == [v.name for v in model.graph.inputs]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.__name__)
def test_onnx_runtime_computes_in_integers(network: Callable[[], ir.Model], tmp_path: Path) -> None:
    result, _ = quantized(network(), schemes.ONNXRUNTIME)
    path = tmp_path / "optimized.onnx"
    networks.session(result, optimized=str(path))
    kinds = Counter(n.op_type for n in onnx.load(path).graph.node)
    assert not set(kinds) & {"Conv", "FusedConv", "Gemm", "MatMul", "FusedMatMul", "Clip", "Relu"}
    assert kinds["QLinearConv"] + kinds["QGemm"] + kinds["MatMulIntegerToFloat"] > 5


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.__name__)
def test_openvino_computes_in_integers(
    network: Callable[[], ir.Model], need_module: Callable[[str], None]
) -> None:
    need_module("openvino")
    import openvino

    result, _ = quantized(network(), schemes.OPENVINO)
    core = openvino.Core()
    read = core.read_model(ir.to_proto(result).SerializeToString())
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        kind = info["layerType"].astype(str)
        if kind in ("Convolution", "Deconvolution", "FullyConnected", "MatMul"):
            found[node.get_friendly_name()] = info["runtimePrecision"].astype(str)
    assert len(found) > 5
    assert set(found.values()) <= {"u8", "i8"}, found


def test_the_back_end_does_not_fuse_what_becomes_integers() -> None:
    from infc.targets.onnxruntime_fusion import fuse_conv_activation

    result, _ = quantized(networks.mobile(), schemes.ONNXRUNTIME)
    assert fuse_conv_activation(result) == 0


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_every_value_kept_in_float_is_left_alone(scheme: Scheme) -> None:
    """Whatever is kept, what was observed is enough, and the rest is still quantised."""
    model = networks.mixed()
    data = networks.feeds(model, 2)
    ranges, means = networks.measured(model, scheme, data)
    _, whole = quantized(model, scheme)
    before = networks.run(model, data)
    for node in whole.quantized:
        result = model.clone()
        record = quantize(result, ranges, scheme, means=means, keep_float=frozenset((node,)))
        assert node not in record.quantized
        assert not [r for r in record.kept.values() if "measured" in r]
        assert min(networks.sqnr_db(before, networks.run(result, data))) > 25


def test_correcting_biases_takes_the_mean_error_away() -> None:
    n = networks.Network(3)
    model = n.model({"x": (1, 8, 12, 12)}, [n.conv("x", 8, 16)])
    data = [{"x": f["x"] + 3} for f in networks.feeds(model, 16)]
    # The weights alone are coarse: the input is exact to 16 bits' worth of its range.
    scheme = Scheme("w", frozenset(("Conv",)), reduce_range=True, bias="float")
    ranges, means = networks.measured(model, scheme, data)
    reference = np.array([r[0] for r in networks.run(model, data)])
    errors = []
    for given in (None, means):
        result = model.clone()
        quantize(result, ranges, scheme, means=given)
        found = np.array([r[0] for r in networks.run(result, data)])
        errors.append(np.abs((found - reference).mean(axis=(0, 1, 3, 4))).max())
    assert errors[1] < 0.2 * errors[0]


def test_a_value_without_a_range_stays_in_float_and_is_named() -> None:
    model = networks.mobile()
    ranges, _ = networks.measured(model, schemes.ONNXRUNTIME, networks.feeds(model, 1))
    del ranges["x"]
    record = quantize(model, ranges, schemes.ONNXRUNTIME)
    assert record.kept["n_v0"] == "`x` has no measured range"
    assert len(record.quantized) > 5


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_float(number: float) -> None:
    model = networks.mobile()
    ranges, _ = networks.measured(model, schemes.ONNXRUNTIME, networks.feeds(model, 1))
    weight = model.graph.initializers["w0"]
    array = weight.const_value.numpy().copy()
    array[0, 0, 0, 0] = number
    weight.const_value = ir.tensor(array, name="w0")
    record = quantize(model, ranges, schemes.ONNXRUNTIME)
    assert record.kept["n_v0"] == "`w0` is not finite"


def test_an_infinite_range_is_not_used() -> None:
    model = networks.mobile()
    ranges, _ = networks.measured(model, schemes.ONNXRUNTIME, networks.feeds(model, 1))
    ranges["x"] = Range(0, np.inf)
    assert quantize(model, ranges, schemes.ONNXRUNTIME).kept["n_v0"] == "`x` is not finite"


def test_what_came_quantised_is_left_alone() -> None:
    model, _ = quantized(networks.mobile(), schemes.ONNXRUNTIME)
    before = ir.to_proto(model).SerializeToString()
    assert observed(model, schemes.ONNXRUNTIME) == ()
    record = quantize(model, {}, schemes.ONNXRUNTIME)
    assert record.already
    assert not record.quantized
    assert ir.to_proto(model).SerializeToString() == before


def test_half_precision_is_left_alone() -> None:
    model = networks.mobile()
    for value in [*model.graph.initializers.values(), *model.graph.inputs]:
        value.type = ir.TensorType(ir.DataType.FLOAT16)
    record = quantize(model, {}, schemes.ONNXRUNTIME)
    assert not record.quantized
    assert record.kept["n_v0"] == "it does not compute in float32"


CAPTURED = """<ir_version: 8, opset_import: ["": 13]>
g (float[1,1,4,4] x, bool b) => (float[1,1,4,4] y)
<float[1,1,1,1] w = {1.27}, int64[4] s = {1, 1, 4, 4}>
{
  c = Conv(x, w)
  r = Reshape(c, s)
  d = Conv(x, w)
  e = If (b) <
    then_branch = t () => (float[1,1,4,4] p) { p = Neg(CAPTURE) },
    else_branch = f () => (float[1,1,4,4] q) { q = Relu(CAPTURE) }
  >
  y = Add(d, e)
}"""


@pytest.mark.parametrize("value", ["c", "r"])
def test_what_a_body_reads_is_left_in_float(value: str) -> None:
    """ONNX Runtime aborts on a DequantizeLinear before a Reshape that a body reads."""
    text = CAPTURED.replace("CAPTURE", value)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    names = observed(model, schemes.ONNXRUNTIME)
    assert names == ("x", "d")
    record = quantize(model, dict.fromkeys(names, Range(-1, 1)), schemes.ONNXRUNTIME)
    assert "the body of an If" in record.kept["c"]
    assert record.quantized == ("d",)
    branch = next(n for n in model.graph if n.op_type == "If").attributes["then_branch"]
    assert next(iter(branch.as_graph())).inputs[0].name == value
    feed = {"x": np.ones((1, 1, 4, 4), np.float32), "b": np.array(True)}
    assert networks.session(model).run(None, feed)[0].shape == (1, 1, 4, 4)

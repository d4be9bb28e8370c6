"""`--precision int8-dynamic`: int8 weights, activations rounded at run time, no calibration."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx_ir as ir
import pytest
from command import infc, write_model
from onnx import TensorProto, helper, numpy_helper

from infc import targets
from infc.bundle import open_bundle
from infc.passes.dynamic_quantization import quantize_dynamic, round_columns
from infc.request import Precision
from infc.targets.dynamic import dynamic_of
from infc.targets.onnxruntime_recurrent import quantize_lstm
from infc.targets.torchscript_dynamic import fuse_dynamic_linear

TARGETS = ("onnxruntime", "openvino", "torchscript")
WIDE = 64


class Net:
    """Nodes and weights with a seed."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def const(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def normal(self, *shape: int) -> str:
        scale = 1 / np.sqrt(shape[0])
        return self.const((self.rng.standard_normal(shape) * scale).astype(np.float32))

    def op(self, kind: str, *inputs: str, count: int = 1, **attributes: object) -> str:
        at = len(self.nodes)
        names = [f"v{at}" if i == 0 else f"v{at}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=f"n{at}", **attributes))
        return names[0]

    def model(self, shape: list[int | str], *outputs: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.weights,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return onnx.shape_inference.infer_shapes(made)


def block() -> onnx.ModelProto:
    """q, k and v of one input, attention, an MLP; every way in which a layer is written."""
    n = Net()
    q, k, v = (
        n.op("Add", n.op("MatMul", "x", n.normal(WIDE, WIDE)), n.normal(WIDE)) for _ in "qkv"
    )
    scores = n.op("MatMul", q, n.op("Transpose", k, perm=[0, 2, 1]))
    mixed = n.op("MatMul", n.op("Softmax", scores, axis=-1), v)
    h = n.op(
        "Relu", n.op("Add", n.normal(4 * WIDE), n.op("MatMul", mixed, n.normal(WIDE, 4 * WIDE)))
    )
    y = n.op("Add", n.op("MatMul", h, n.normal(4 * WIDE, WIDE)), "x")
    pooled = n.op("ReduceMean", y, axes=[1], keepdims=0)
    turned = n.normal(40, WIDE)
    logits = n.op("Gemm", pooled, turned, n.normal(40), transB=1)
    return n.model(["batch", 12, WIDE], y, logits)


def lstm() -> onnx.ModelProto:
    n = Net(1)
    weights = (n.normal(2, 128, 16), n.normal(2, 128, 32), n.normal(2, 256))
    y = n.op("LSTM", "x", *weights, hidden_size=32, direction="bidirectional", count=3)
    flat = n.op("Reshape", y, n.const(np.array([6, -1, 64], np.int64)))
    return n.model([6, 1, 16], n.op("MatMul", flat, n.normal(64, 32)), "v0_1")


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    serialized = model.SerializeToString()
    session = onnxruntime.InferenceSession(serialized, options, ["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def sqnr_db(reference: np.ndarray, answer: np.ndarray) -> float:
    noise = ((reference.astype(np.float64) - answer) ** 2).sum()
    return float(10 * np.log10((reference.astype(np.float64) ** 2).sum() / noise))


@pytest.fixture(scope="module")
def feeds() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(2).standard_normal((3, 12, WIDE)).astype(np.float32)}


@pytest.mark.parametrize("form", ["integer", "weights"])
def test_the_graph(form: str, feeds: dict[str, np.ndarray]) -> None:
    source = block()
    model = ir.from_proto(source)
    record = quantize_dynamic(model, form)
    result = ir.to_proto(model)
    onnx.checker.check_model(result, full_check=True)
    assert len(record.quantized) == 6
    assert [why for _, why in record.kept] == ["its second operand is no constant"] * 2
    assert record.weight_bytes[1] < 0.27 * record.weight_bytes[0]
    for a, b in zip(run(source, feeds), run(result, feeds), strict=True):
        assert sqnr_db(a, b) > 30
    kinds = Counter(node.op_type for node in result.graph.node)
    if form == "integer":
        # q, k and v read one input, which is rounded once.
        assert (kinds["DynamicQuantizeLinear"], kinds["MatMulInteger"]) == (4, 6)
    else:
        assert (kinds["DequantizeLinear"], kinds["MatMul"]) == (6, 8)
    assert not any(t.data_type == 1 and np.prod(t.dims) >= 1024 for t in result.graph.initializer)


def test_columns_are_rounded_to_half_a_step() -> None:
    array = np.random.default_rng(3).standard_normal((30, 20)).astype(np.float32)
    array[:, 4] = 0
    array[:, 5] = 1e-44
    integers, scale = round_columns(array)
    assert integers.dtype == np.int8
    assert integers.min() >= -127
    assert np.isfinite(scale).all()
    assert (np.abs(integers * scale - array) <= 0.5001 * scale).all()
    assert not integers[:, 4].any()


def test_what_stays_in_float() -> None:
    n = Net()
    small = n.op("MatMul", "x", n.normal(8, 8))
    bad = np.ones((8, 256), np.float32)
    bad[3, 3] = np.inf
    infinite = n.op("MatMul", small, n.const(bad))
    scaled = n.op("Gemm", infinite, n.normal(256, 8), alpha=2.0)
    asked = n.op("MatMul", scaled, n.normal(8, 256))
    model = ir.from_proto(n.model([4, 8], asked))
    record = quantize_dynamic(model, "integer", frozenset({"v3"}))
    assert record.quantized == ()
    assert dict(record.kept) == {
        "n0": "its weights have fewer than 1024 elements",
        "n1": "its weights are not finite",
        "n2": "it scales or transposes what it multiplies",
        "n3": "it was asked to stay in float",
    }


def test_onnx_runtime_makes_one_kernel_of_a_layer(tmp_path: Path) -> None:
    import onnxruntime

    model = ir.from_proto(block())
    quantize_dynamic(model, "integer")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 4
    serialized = ir.to_proto(model).SerializeToString()
    onnxruntime.InferenceSession(serialized, options, ["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node)
    assert kinds["DynamicQuantizeMatMul"] + kinds["MatMulIntegerToFloat"] == 6
    assert kinds["MatMulInteger"] == 0


def test_as_accurate_as_onnxruntime_quantization(
    feeds: dict[str, np.ndarray], tmp_path: Path
) -> None:
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as peer

    source = block()
    bare = onnx.ModelProto()
    bare.CopyFrom(source)
    del bare.graph.value_info[:]
    onnx.save(bare, tmp_path / "float.onnx")
    peer(
        tmp_path / "float.onnx",
        tmp_path / "peer.onnx",
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
    model = ir.from_proto(source)
    quantize_dynamic(model, "integer")
    exact = run(source, feeds)
    theirs = run(onnx.load(tmp_path / "peer.onnx"), feeds)
    ours = run(ir.to_proto(model), feeds)
    for e, o, t in zip(exact, ours, theirs, strict=True):
        assert sqnr_db(e, o) > sqnr_db(e, t) - 0.5


def test_torchscript_has_one_operator_for_a_layer() -> None:
    model = ir.from_proto(block())
    quantize_dynamic(model, "weights")
    assert fuse_dynamic_linear(model) == 6
    kinds = Counter((n.domain, n.op_type) for n in model.graph)
    assert kinds["infc", "DynamicLinear"] == 6
    assert kinds["", "DequantizeLinear"] == 0
    # The biases of q, k, v, of the MLP's first half and of the Gemm are in it; x is no bias.
    assert kinds["", "Add"] == 1


def test_lstm_of_onnx_runtime() -> None:
    source = lstm()
    model = ir.from_proto(source)
    names, before, after = quantize_lstm(model, frozenset())
    assert names == ("n0",)
    assert after < 0.3 * before
    feeds = {"x": np.random.default_rng(0).standard_normal((6, 1, 16)).astype(np.float32)}
    for a, b in zip(run(source, feeds), run(ir.to_proto(model), feeds), strict=True):
        assert sqnr_db(a, b) > 25
    kept = ir.from_proto(source)
    assert quantize_lstm(kept, frozenset({"n0"})) == ((), 0, 0)


@pytest.mark.parametrize("target", TARGETS)
def test_a_bundle(target: str, tmp_path: Path, need_back_end) -> None:
    need_back_end(target)
    onnx.save(block(), tmp_path / "block.onnx")
    words = ("compile", tmp_path / "block.onnx", "-t", target, "--precision", "int8-dynamic")
    for folder in ("one", "two"):
        done = infc(*words, "-o", tmp_path / folder, "--loader", "cpp")
        assert done.status == 0, done.err
    one, two = (tmp_path / folder / f"block-{target}" for folder in ("one", "two"))
    document = json.loads((one / "manifest.json").read_text())
    assert document["target"]["precision"] == "int8-dynamic"
    assert document["conversion"]["converted"] == 6
    assert len(document["conversion"]["kept"]) == 2
    for row in document["verification"]["artifact"]["outputs"]:
        assert 20 < row["sqnr_db"] < 60
    size = sum(document["files"][f]["bytes"] for f in document["artifact"]["files"])
    assert size < 0.6 * (tmp_path / "block.onnx").stat().st_size
    assert (one / "manifest.json").read_bytes() == (two / "manifest.json").read_bytes()


@pytest.mark.parametrize("target", TARGETS)
def test_through_the_loader(target: str, tmp_path: Path, need_back_end, need_tool) -> None:
    need_back_end(target)
    need_tool("cmake")
    onnx.save(block(), tmp_path / "block.onnx")
    words = ("compile", tmp_path / "block.onnx", "-t", target, "--precision", "int8-dynamic")
    assert infc(*words, "-o", tmp_path, "--loader", "cpp").status == 0
    done = infc("verify", tmp_path / f"block-{target}", "--through", "cpp", "--json")
    assert done.status == 0, done.err
    assert all(row["sqnr_db"] > 20 for row in done.document["outputs"])


def test_layers_are_debugged(tmp_path: Path) -> None:
    onnx.save(block(), tmp_path / "block.onnx")
    words = ("compile", tmp_path / "block.onnx", "-t", "onnxruntime", "-o", tmp_path)
    extra = ("--precision", "int8-dynamic", "--keep-float", "n0", "--loader", "none")
    assert infc(*words, *extra).status == 0
    bundle = tmp_path / "block-onnxruntime"
    assert open_bundle(bundle).manifest["conversion"]["converted"] == 5
    done = infc("debug-accuracy", bundle, "--source", tmp_path / "block.onnx", "--json")
    assert done.status == 0, done.err
    assert done.document["identical"] is True


def test_the_ir_says_how_openvino_rounds(tmp_path: Path, need_back_end) -> None:
    need_back_end("openvino")
    onnx.save(block(), tmp_path / "block.onnx")
    words = ("compile", tmp_path / "block.onnx", "-t", "openvino", "-o", tmp_path)
    assert infc(*words, "--precision", "int8-dynamic", "--loader", "none").status == 0
    text = (tmp_path / "block-openvino" / "model" / "model.xml").read_text()
    assert '<DYNAMIC_QUANTIZATION_GROUP_SIZE value="128" />' in text


def test_nothing_to_quantise(tmp_path: Path) -> None:
    model = write_model(tmp_path / "conv.onnx")
    done = infc("compile", model, "-o", tmp_path / "out", "--precision", "int8-dynamic")
    assert done.status == 1
    assert "E425" in done.err
    assert not (tmp_path / "out" / "conv-cpu").exists()


def test_a_back_end_without_it(tmp_path: Path) -> None:
    model = write_model(tmp_path / "conv.onnx")
    done = infc("compile", model, "-t", "mindspore-lite", "--precision", "int8-dynamic")
    assert done.status == 2
    assert "error[E205]" in done.err


@pytest.mark.models
@pytest.mark.parametrize("target", TARGETS)
def test_a_recurrent_model(target: str, models: Path, tmp_path: Path, need_back_end) -> None:
    need_back_end(target)
    words = ("compile", models / "dtln" / "model_2.onnx", "-t", target, "-o", tmp_path)
    done = infc(*words, "--precision", "int8-dynamic", "--loader", "none")
    assert done.status == 0, done.err
    document = json.loads((tmp_path / f"model_2-{target}" / "manifest.json").read_text())
    # Two LSTM cells of two matrices each, and a dense layer.
    assert document["conversion"]["converted"] == 5
    assert all(r["sqnr_db"] > 30 for r in document["verification"]["artifact"]["outputs"])


def test_who_has_it_says_how() -> None:
    for name in targets.BACK_ENDS:
        end = targets.back_end(name)
        assert (Precision.INT8_DYNAMIC in end.PRECISIONS) == (dynamic_of(end) is not None)

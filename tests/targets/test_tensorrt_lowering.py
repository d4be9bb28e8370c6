"""The graph as TensorRT takes it: the same answers in ONNX Runtime, and no node is refused.

The table of each release is asked, and the parser of TensorRT for RTX where that is installed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from infc.targets import tensorrt_builder
from infc.targets.tensorrt_lowering import lower
from infc.targets.tensorrt_operators import (
    CONDITIONS,
    LATEST,
    OPERATORS,
    RELEASES,
    taken,
)
from infc.targets.tensorrt_support import unsupported

RNG = np.random.default_rng(0)


def text(opset: int, signature: str, body: str, constants: str = "") -> onnx.ModelProto:
    head = f'<ir_version: 8, opset_import: ["": {opset}]>\ng {signature}'
    return onnx.parser.parse_model(f"{head} {f'<{constants}>' if constants else ''} {{{body}}}")


def with_weights(proto: onnx.ModelProto, **weights: Any) -> onnx.ModelProto:
    for name, array in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return proto


def byte(*shape: int) -> Any:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def real(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def dynamically_quantized() -> onnx.ModelProto:
    """What onnxruntime.quantization.quantize_dynamic makes of a MatMul."""
    proto = text(
        17,
        "(float[2, 8] x) => (float[2, 4] y)",
        """q, s, z = DynamicQuantizeLinear (x)
        p = MatMulInteger (q, w, z, wz)
        f = Cast <to = 1> (p)
        scale = Mul (s, ws)
        y = Mul (f, scale)""",
    )
    columns = np.array([3, 0, 128, 255], np.uint8)
    return with_weights(proto, w=byte(8, 4), wz=columns, ws=np.float32(0.01))


def asymmetric() -> onnx.ModelProto:
    """What quantize_static makes of Conv, with a MaxPool after it in integers."""
    proto = text(
        17,
        "(float[1, 2, 6, 6] x) => (float[1, 3, 4, 4] y)",
        """q = QuantizeLinear (x, s, z)
        d = DequantizeLinear (q, s, z)
        k = DequantizeLinear <axis = 0> (w, ws, wz)
        b = DequantizeLinear <axis = 0> (bias, bs)
        c = Conv (d, k, b)
        cq = QuantizeLinear (c, s, z)
        moved = Reshape (cq, shape)
        y = DequantizeLinear (moved, s, z)""",
    )
    return with_weights(
        proto,
        s=np.float32(0.03),
        z=np.uint8(117),
        w=RNG.integers(-127, 128, (3, 2, 3, 3)).astype(np.int8),
        ws=np.array([0.01, 0.02, 0.03], np.float32),
        wz=np.zeros(3, np.int8),
        bias=np.array([100, -100, 7], np.int32),
        bs=np.array([0.0003, 0.0006, 0.0009], np.float32),
        shape=np.array([1, 3, 4, 4], np.int64),
    )


def integer_convolution() -> onnx.ModelProto:
    proto = text(
        17,
        "(uint8[1, 2, 5, 5] x) => (int32[1, 3, 5, 5] y)",
        "y = ConvInteger <pads = [1, 1, 1, 1]> (x, w, z, wz)",
    )
    return with_weights(proto, w=byte(3, 2, 3, 3), z=np.uint8(9), wz=np.uint8(200))


def quantized_operators() -> onnx.ModelProto:
    proto = text(
        17,
        "(float[1, 2, 5, 5] x) => (float[1, 3, 3, 3] y)",
        """q = QuantizeLinear (x, s, z)
        c = QLinearConv (q, s, z, w, ws, wz, s, z, bias)
        y = DequantizeLinear (c, s, z)""",
    )
    return with_weights(
        proto,
        s=np.float32(0.05),
        z=np.uint8(128),
        w=RNG.integers(-127, 128, (3, 2, 3, 3)).astype(np.int8),
        ws=np.array([0.01, 0.02, 0.03], np.float32),
        wz=np.zeros(3, np.int8),
        bias=np.array([30, 0, -30], np.int32),
    )


def moved_bytes() -> onnx.ModelProto:
    """A camera's image: transposed and cropped as it is, then made real."""
    return with_weights(
        text(
            17,
            "(uint8[1, 6, 6, 3] x) => (float[1, 3, 4, 4] y, uint8[1, 3, 4, 4] z)",
            """t = Transpose <perm = [0, 3, 1, 2]> (x)
            c = Slice (t, start, end, axes)
            y = Cast <to = 1> (c)
            z = Identity (c)""",
        ),
        start=np.array([1, 1], np.int64),
        end=np.array([5, 5], np.int64),
        axes=np.array([2, 3], np.int64),
    )


def doubles() -> onnx.ModelProto:
    proto = text(
        17,
        "(float[2, 3] x) => (float[2, 3] y)",
        """d = Cast <to = 11> (x)
        m = Mul (d, half)
        y = Cast <to = 1> (m)""",
    )
    return with_weights(proto, half=np.float64(0.5))


def recurrent(kind: str, gates: int, states: str) -> onnx.ModelProto:
    outputs = "y, h, c" if kind == "LSTM" else "y, h"
    proto = text(
        17,
        f"(float[1, 2, 3] x, float[1, 2, 4] h0, float[1, 2, 4] c0) => "
        f"(float[1, 1, 2, 4] y, float[1, 2, 4] h{', float[1, 2, 4] c' if kind == 'LSTM' else ''})",
        f'{outputs} = {kind} <hidden_size = 4> (x, w, r, b, "", {states})',
    )
    return with_weights(
        proto, w=real(1, gates * 4, 3), r=real(1, gates * 4, 4), b=real(1, gates * 8)
    )


def attention() -> onnx.ModelProto:
    shape = "float[1, 2, 4, 8]"
    return text(23, f"({shape} q, {shape} k, {shape} v) => ({shape} y)", "y = Attention (q, k, v)")


CASES = {
    "dynamically-quantized": dynamically_quantized,
    "asymmetric": asymmetric,
    "integer-convolution": integer_convolution,
    "quantized-operators": quantized_operators,
    "moved-bytes": moved_bytes,
    "doubles": doubles,
    "lstm": lambda: recurrent("LSTM", 4, "h0, c0"),
    "gru": lambda: recurrent("GRU", 3, "h0"),
    "rnn": lambda: recurrent("RNN", 1, "h0"),
    "attention": attention,
}


def answers(proto: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return list(session.run(None, feeds))


def feeds_of(proto: onnx.ModelProto) -> dict[str, Any]:
    makers = {onnx.TensorProto.UINT8: byte, onnx.TensorProto.FLOAT: real}
    return {
        v.name: makers[v.type.tensor_type.elem_type](
            *(d.dim_value for d in v.type.tensor_type.shape.dim)
        )
        for v in proto.graph.input
    }


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("case", CASES)
def test_what_is_lacking_is_said_otherwise(case: str, release: str, tmp_path: Path) -> None:
    proto = CASES[case]()
    before = ir.from_proto(proto)
    assert unsupported(before, release) or case in ("doubles", "lstm", "gru", "rnn", "attention")
    model = ir.from_proto(proto)
    lower(model, release)
    lowered = ir.to_proto(model)
    feeds = feeds_of(proto)
    for expected, found in zip(answers(proto, feeds), answers(lowered, feeds), strict=True):
        # Sums in another order; a value that is half a step from two integers may go either way.
        steps = 0.05 if case in ("asymmetric", "quantized-operators") else 0
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 + steps)
    assert unsupported(ir.from_proto(lowered), release) == []
    assert model.opset_imports[""] <= RELEASES[release].opset
    onnx.checker.check_model(lowered, full_check=True)
    if find_spec("tensorrt_rtx") is not None and release == LATEST:
        import tensorrt_rtx

        onnx.save(lowered, tmp_path / "m.onnx")
        assert tensorrt_builder.unsupported(tensorrt_rtx, str(tmp_path / "m.onnx")) == []
        told = {"inputs": [], "outputs": [], "precision": "fp32", "compute_capabilities": []}
        engine = tmp_path / "m.engine"
        assert tensorrt_builder.build(tensorrt_rtx, told, str(tmp_path / "m.onnx"), str(engine))


def symmetric() -> onnx.ModelProto:
    """What infc's own quantiser writes: TensorRT has integers for it."""
    proto = text(
        17,
        "(float[1, 2, 6, 6] x) => (float[1, 3, 4, 4] y)",
        """q = QuantizeLinear (x, s, z)
        d = DequantizeLinear (q, s, z)
        k = DequantizeLinear <axis = 0> (w, ws, wz)
        y = Conv (d, k)""",
    )
    return with_weights(
        proto,
        s=np.float32(0.03),
        z=np.int8(0),
        w=RNG.integers(-127, 128, (3, 2, 3, 3)).astype(np.int8),
        ws=np.array([0.01, 0.02, 0.03], np.float32),
        wz=np.zeros(3, np.int8),
    )


@pytest.mark.parametrize("release", RELEASES)
def test_symmetric_int8_stays_as_it_is(release: str) -> None:
    model = ir.from_proto(symmetric())
    assert unsupported(model, release) == []
    lower(model, release)
    assert [n.op_type for n in model.graph] == [
        "QuantizeLinear",
        "DequantizeLinear",
        "DequantizeLinear",
        "Conv",
    ]


def test_int64_stays(tmp_path: Path) -> None:
    proto = text(17, "(int64[4] x) => (int64[4] y)", "y = Add (x, x)")
    model = ir.from_proto(proto)
    lower(model, "10.3")
    assert model.graph.outputs[0].dtype == ir.DataType.INT64
    assert unsupported(model, "10.3") == []


def test_longer_sequences_keep_their_loop() -> None:
    proto = text(
        17,
        "(float[5, 2, 3] x) => (float[5, 1, 2, 4] y)",
        "y = LSTM <hidden_size = 4> (x, w, r)",
    )
    model = ir.from_proto(with_weights(proto, w=real(1, 16, 3), r=real(1, 16, 4)))
    lower(model, LATEST)
    assert [n.op_type for n in model.graph] == ["LSTM"]


def refused(proto: onnx.ModelProto, release: str) -> list[tuple[str, str]]:
    model = ir.from_proto(proto)
    lower(model, release)
    return [(op_type, reason) for _, op_type, _, reason in unsupported(model, release)]


def test_the_opset_of_a_release() -> None:
    later = text(24, "(float[2, 3] x) => (float[2, 3] y)", "y = Relu (x)")
    model = ir.from_proto(later)
    lower(model, "10.3")
    assert model.opset_imports[""] == 20
    # Without another meaning in the older opset: named, with what the release knows.
    grouped = with_weights(
        text(
            21,
            "(float[1, 4, 2] x) => (float[1, 4, 2] y)",
            "y = GroupNormalization <num_groups = 2> (x, s, b)",
        ),
        s=np.ones(4, np.float32),
        b=np.zeros(4, np.float32),
    )
    ((op_type, reason),) = refused(grouped, "10.3")
    assert op_type == "GroupNormalization"
    assert reason == "it is of opset 21; TensorRT 10.3 knows opsets up to 20"
    assert refused(grouped, "10.16") == []


def test_what_a_release_lacks_is_made_of_what_it_has_or_named() -> None:
    normalized = with_weights(
        text(23, "(float[2, 8] x) => (float[2, 8] y)", "y = RMSNormalization (x, s)"),
        s=np.ones(8, np.float32),
    )
    assert refused(normalized, "10.3") == []
    determinant = text(17, "(float[3, 3] x) => (float y)", "y = Det (x)")
    assert refused(determinant, LATEST) == [
        ("Det", f"the parser of TensorRT {LATEST} has no such operator")
    ]


@pytest.mark.parametrize(
    ("signature", "body", "said"),
    [
        ("(float[1, 4] x) => (float[1, 4] y)", 'y = Foreign.Op (x)', "no operators of the domain"),
        ("(double[4] x) => (double[4] y)", "y = Relu (x)", "is float64, which no engine takes"),
        ("(int16[4] x) => (int16[4] y)", "y = Identity (x)", "is int16, which no engine takes"),
        (
            "(float[1, 1, 4, 4] x) => (float[1, 1, 8, 8] y)",
            'y = Resize <mode = "cubic"> (x, "", scales)',
            "`nearest` and `linear` only",
        ),
        (
            "(float[1, 1, 4, 4] x) => (float[1, 1, 2, 2] y)",
            "y = MaxPool <kernel_shape = [2, 2], dilations = [2, 2]> (x)",
            "without dilations only",
        ),
        (
            "(float[8] x) => (float[8] y, int64[8] i)",
            "y, i = TopK <sorted = 0> (x, k)",
            "sorted only",
        ),
        ("(int32[4] x) => (int32[4] y)", "y = Sin (x)", "of int32; TensorRT 11.4 takes float32"),
    ],
)  # fmt: skip
def test_a_restriction_is_said(signature: str, body: str, said: str) -> None:
    proto = text(17, signature, body)
    proto.opset_import.append(onnx.helper.make_opsetid("Foreign", 1))
    proto = with_weights(
        proto,
        scales=np.array([1, 1, 2, 2], np.float32),
        k=np.array([8], np.int64),
    )
    reasons = [row[3] for row in unsupported(ir.from_proto(proto), LATEST)]
    assert reasons
    assert said in reasons[0]


PLUGINS = frozenset(("DeformConv",))
"""In a library of plugins that TensorRT for RTX comes without."""


def test_the_table_is_what_the_parser_says_of_itself(need_module: Any) -> None:
    need_module("tensorrt_rtx")
    import tensorrt_rtx as trt

    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    names = {s.name for s in onnx.defs.get_all_schemas() if s.domain == ""}
    says = {name for name in names if parser.supports_operator(name)}
    ours = taken(LATEST) & names
    assert ours - says <= PLUGINS
    # Of later opsets than any release knows, or only in the vendor's plugins.
    assert says - ours <= {"CausalConvWithState", "LinearAttention", "Scatter", "Upsample"}


def test_the_tables_are_whole() -> None:
    assert set(CONDITIONS) <= set(OPERATORS)
    for release in RELEASES.values():
        assert release.lacks <= set(OPERATORS)
        assert set(release.conditions) <= set(OPERATORS)
    assert taken("10.3") < taken("10.16") < taken("11.4")
    known = {s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
    assert set(OPERATORS) <= known

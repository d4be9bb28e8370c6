"""Conversion to float16 and bfloat16: typed, guarded, and no cast too many."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper
from random_graphs import random_graph

from infc import frontends, pipeline
from infc.passes.precision import PrecisionRecord, convert
from infc.passes.precision.store import store
from infc.passes.rewriting import LAZY_BYTES
from infc.quantization import Range
from infc.request import PassOptions

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT


def parsed(text: str, **weights: Any) -> ir.Model:
    """The model, with `weights` as further initializers."""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in weights.items())
    return ir.from_proto(proto)


def checked(model: ir.Model) -> onnx.ModelProto:
    """The model as protobuf: valid, every type inferred anew and the same, no cast too many."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    casts: Counter[Any] = Counter()
    for node in model.graph:
        if node.op_type != "Cast":
            continue
        source = node.inputs[0]
        assert source is not None
        to = node.attributes["to"].as_int()
        casts[source, to] += 1
        assert source.dtype != to, f"`{node.name}` casts nothing"
        before = source.producer()
        if before is not None and before.op_type == "Cast" and before.inputs[0] is not None:
            assert before.inputs[0].dtype != to, f"`{node.name}` casts back"
    assert not [v for v, count in casts.items() if count > 1]
    return proto


def session(proto: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, ["CPUExecutionProvider"]
    )


def run(model: ir.Model, feeds: dict[str, Any]) -> list[Any]:
    return list(session(ir.to_proto(model)).run(None, feeds))


def measured(model: ir.Model, feeds: dict[str, Any]) -> dict[str, Range]:
    """The ranges of all float32 values on `feeds`."""
    probe = model.clone()
    outputs = set(probe.graph.outputs)
    for node in probe.graph:
        new = (v for v in node.outputs if v.dtype == FLOAT and v not in outputs)
        probe.graph.outputs.extend(new)
    names = [str(v.name) for v in probe.graph.outputs]
    answers = dict(zip(names, run(probe, feeds), strict=True)) | feeds
    return {
        name: Range(float(a.min()), float(a.max()))
        for name, a in answers.items()
        if a.dtype == np.float32 and a.size
    }


def operators(model: ir.Model) -> list[str]:
    return [n.op_type for n in model.graph]


def why(record: PrecisionRecord) -> dict[str, str]:
    return dict(record.kept)


def test_a_chain_is_converted_whole_between_two_casts() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1,3,8,8] x) => (float[1,4,8,8] y)
        <float[4,3,1,1] w = {0.5,-1,2, 1,1,1, -0.25,0.75,0.1, 0,1,-1}, float[4] b = {0,1,-1,0.5}>
        { c = Conv(x, w, b)
          y = Relu(c) }
    """)
    record = convert(model, "float16")
    checked(model)
    assert operators(model) == ["Cast", "Conv", "Relu", "Cast"]
    assert record == PrecisionRecord(2, (), ())
    assert [v.dtype for v in model.graph.initializers.values()] == [HALF, HALF]
    assert model.graph.inputs[0].dtype == FLOAT
    assert (model.graph.outputs[0].name, model.graph.outputs[0].dtype) == ("y", FLOAT)


def test_inputs_and_outputs_are_converted_too_where_asked_for() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2,3] x) => (float[2,2] y)
        <float[3,2] w = {1,2,3,4,5,6}>
        { y = MatMul(x, w) }
    """)
    convert(model, "float16", keep_io=False)
    checked(model)
    assert operators(model) == ["MatMul"]
    assert model.graph.inputs[0].dtype == model.graph.outputs[0].dtype == HALF


def test_a_value_that_both_kinds_read_is_cast_once() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z)
        <float[2,2,1,1] w = {1,2,3,4}, float[2] s = {1,2}, float[2] b = {0,1}>
        { y = Conv(x, w)
          i = InstanceNormalization(y, s, b)
          j = InstanceNormalization(y, b, s)
          k = Add(i, j)
          z = Conv(k, w) }
    """)
    record = convert(model, "float16")
    checked(model)
    # x down, y up (an output, and read twice), k down, z up.
    assert operators(model).count("Cast") == 4
    assert set(why(record)) == {"InstanceNormalization(i)", "InstanceNormalization(j)", "Add(k)"}


def test_a_weight_that_both_kinds_read_is_there_in_both_types() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2,2] x) => (float[2,2] y, float[2,2] z)
        <float[2,2] w = {1,2,3,4}>
        { y = MatMul(x, w)
          p = Sin(w)
          z = MatMul(x, p) }
    """)
    convert(model, "float16")
    checked(model)
    assert {k: v.dtype for k, v in model.graph.initializers.items()} == {
        "w": FLOAT,
        "w_float16": HALF,
    }


def test_bodies_stay_in_float32_and_what_they_capture_is_cast_once() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2,2] x, bool c) => (float[2,2] y)
        <float[2,2] w = {1,2,3,4}>
        { a = MatMul(x, w)
          b = If(c) <
            then_branch = t () => (float[2,2] p) { p = Add(a, w) },
            else_branch = e () => (float[2,2] q) { q = Mul(a, a) }
          >
          y = MatMul(b, w) }
    """)
    record = convert(model, "float16")
    checked(model)
    assert operators(model) == ["Cast", "MatMul", "Cast", "If", "Cast", "MatMul", "Cast"]
    assert why(record) == {"If(b)": "its bodies stay in float32 as a whole"}
    x = np.array([[1, 2], [3, 4]], np.float32)
    for c in (True, False):
        (y,) = run(model, {"x": x, "c": np.array(c)})
        a = x @ np.array([[1, 2], [3, 4]], np.float32)
        inner = a + np.array([[1, 2], [3, 4]]) if c else a * a
        assert np.array_equal(y, inner @ np.array([[1, 2], [3, 4]], np.float32))


def test_casts_of_the_source_are_not_doubled() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float16[2,2] x) => (float[2,2] y)
        <float[2,2] w = {1,2,3,4}>
        { f = Cast<to = 1>(x)
          m = MatMul(f, w)
          h = Cast<to = 10>(m)
          r = Relu(h)
          y = Cast<to = 1>(r) }
    """)
    convert(model, "float16")
    checked(model)
    assert operators(model) == ["MatMul", "Relu", "Cast"]


OVERFLOWING = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2,3] x) => (float[2,2] y)
    <float[3,3] w = {300,0,0, 0,300,0, 0,0,300}, float[3,2] v = {1,0,0,1,1,1}>
    { a = MatMul(x, w)
      b = MatMul(a, w)
      c = Relu(b)
      d = Sigmoid(c)
      y = MatMul(d, v) }
"""


def test_an_activation_above_65504_stays_in_float32_and_is_named() -> None:
    feeds = {"x": np.array([[1, -1, 0.5], [0.1, 2, 1]], np.float32)}
    model = parsed(OVERFLOWING)
    expected = run(model, feeds)
    pipeline.run(model, PassOptions())
    ranges = measured(model, feeds)
    unguarded = model.clone()
    convert(unguarded, "float16")
    assert np.isinf(run_all(unguarded, feeds)).any(), "the model does not overflow: no case"
    record = convert(model, "float16", ranges=ranges)
    checked(model)
    assert [name for name, _, _ in record.overflow] == ["b", "c"]
    assert why(record)["MatMul(b)"] == "`b` reaches 1.8e+05"
    assert np.isfinite(run_all(model, feeds)).all()
    assert np.abs(run(model, feeds)[0] - expected[0]).max() < 2e-3
    assert record.converted == 2, "the first and the last product are converted"


def run_all(model: ir.Model, feeds: dict[str, Any]) -> Any:
    """All float values of the model, flat."""
    probe = model.clone()
    known = set(probe.graph.outputs)
    for node in probe.graph:
        probe.graph.outputs.extend(v for v in node.outputs if v not in known)
    return np.concatenate([a.reshape(-1).astype(np.float64) for a in run(probe, feeds)])


def test_half_of_the_range_is_kept_free() -> None:
    """What was measured are samples: 40,000 is too near to 65,504."""
    model = parsed(OVERFLOWING)
    record = convert(model, "float16", ranges={"a": Range(0, 40000)})
    assert "`a` reaches 4e+04" in why(record).values()


def test_what_is_too_small_for_the_type_stays() -> None:
    """A network with random weights may fade away layer by layer: 1e-22 is 0 in float16."""
    record = convert(parsed(OVERFLOWING), "float16", ranges={"a": Range(-1e-6, 3e-5)})
    assert why(record)["MatMul(a)"] == "`a` is less than 6.1e-05"


def test_bfloat16_does_not_overflow() -> None:
    model = parsed(OVERFLOWING.replace('"" : 17', '"" : 22'))
    record = convert(model, "bfloat16", ranges={"b": Range(-1e5, 1e30)})
    checked(model)
    assert (record.converted, record.kept, record.overflow) == (5, (), ())


def test_a_weight_that_overflows_stays_and_is_named() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2,2] x) => (float[2,2] y)
        <float[2,2] w = {1e5,0,0,1}, float[2,2] v = {1,0,0,1}>
        { a = MatMul(x, w)
          s = Sigmoid(a)
          y = MatMul(s, v) }
    """)
    record = convert(model, "float16")
    checked(model)
    assert why(record)["MatMul(a)"] == "constant `w` overflows"
    assert np.array_equal(model.graph.initializers["w"].const_value.numpy(), [[1e5, 0], [0, 1]])
    # Nothing was measured: what the product gives may overflow too, a sigmoid of it does not.
    assert why(record)["Sigmoid(s)"].startswith("`a` may overflow")
    assert record.converted == 1


def test_a_variance_whose_epsilon_underflows_stays_up_to_the_division() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[2,8] x) => (float[2,8] y)
        <float eps = {1e-12}>
        { m = MatMul(x, w)
          q = Mul(m, m)
          v = ReduceMean<axes = [1]>(q)
          e = Add(v, eps)
          r = Sqrt(e)
          n = Div(m, r)
          y = MatMul(n, w) }
    """
    model = parsed(text, w=np.eye(8, dtype=np.float32))
    record = convert(model, "float16")
    checked(model)
    assert why(record)["Add(e)"] == "constant `eps` underflows"
    assert {"Sqrt(r)", "Div(n)"} <= set(why(record))
    (y,) = run(model, {"x": np.zeros((2, 8), np.float32)})
    assert np.array_equal(y, np.zeros((2, 8))), "0 / sqrt(0) is NaN"


MASKED = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2,4] x, bool[2,4] keep) => (float[2,4] y)
    <float[4,4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}, float one = {1}, float low = {-3.4e38}>
    { s = MatMul(x, w)
      k = Cast<to = 1>(keep)
      i = Sub(one, k)
      m = Mul(i, low)
      a = Add(s, m)
      p = Softmax(a)
      y = MatMul(p, w) }
"""


def test_an_additive_mask_is_converted_and_masks_all_the_same() -> None:
    model = parsed(MASKED)
    feeds = {
        "x": np.array([[1, 2, 3, 4], [4, 3, 2, 1]], np.float32),
        "keep": np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool),
    }
    (expected,) = run(model, feeds)
    record = convert(model, "float16", ranges=measured(model, feeds))
    checked(model)
    assert record.kept == ()
    assert record.overflow == ()
    (y,) = run(model, feeds)
    assert np.abs(y[0] - expected[0]).max() < 1e-3
    assert np.array_equal(y[0, 2:], [0, 0])
    assert np.isfinite(y).all(), "a row that is masked throughout is not NaN"


def test_a_low_constant_that_is_no_mask_stays() -> None:
    """The same graph, whose masked sum is an output too: somebody may read -3.4e38 off it."""
    model = parsed(MASKED.replace("(float[2,4] y)", "(float[2,4] y, float[2,4] a)"))
    record = convert(model, "float16")
    checked(model)
    assert why(record)["Mul(m)"] == "constant `low` overflows"
    assert "Add(a)" in why(record)
    feeds = {"x": np.ones((2, 4), np.float32), "keep": np.zeros((2, 4), bool)}
    assert run(model, feeds)[1].min() < -3.3e38


def test_bounds_beyond_the_type_bound_as_before() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2,2] x) => (float[2,2] y)
        <float[2,2] w = {1,2,3,4}, float zero = {0}, float top = {3.4e38}>
        { a = MatMul(x, w)
          y = Clip(a, zero, top) }
    """)
    record = convert(model, "float16")
    checked(model)
    assert record.kept == ()
    assert float(model.graph.initializers["top_float16"].const_value.numpy()) == 65504


def test_coordinates_and_phases_stay() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1,1,4,4] x, int64[4] t) => (float[1,1,4,4] y, int64[1,1,4,4] n)
        <float[1,1,1,1] w = {2}, float scale = {0.7}>
        { a = Conv(x, w)
          f = Cast<to = 1>(t)
          g1 = Mul(f, scale)
          h = Sin(g1)
          y = Add(a, h)
          b = Mul(a, scale)
          c = Floor(b)
          n = Cast<to = 7>(c) }
    """)
    record = convert(model, "float16")
    checked(model)
    reasons = why(record)
    assert reasons["Cast(f)"] == "float16 holds integers up to 2048 only"
    assert reasons["Sin(h)"] == "a rounded phase is another phase"
    assert reasons["Mul(g1)"] == reasons["Mul(b)"] == reasons["Floor(c)"]
    assert record.converted >= 1


@pytest.mark.parametrize(
    ("shape", "ranges", "kept"),
    [
        ([1, 4, 8, 8], None, False),
        ([1, 4, 64, 64], None, True),
        ([1, 4, 8, 8], {"a": Range(0, 1000)}, True),
        ([1, 4, 0, 8], None, True),
    ],
    ids=["few", "many", "large", "unknown"],
)
def test_a_sum_stays_where_its_total_may_overflow(shape: Any, ranges: Any, kept: bool) -> None:
    dims = ",".join(str(d) if d else "n" for d in shape)
    model = parsed(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[{dims}] x) => (float[1,4,1,1] y)
        <float[4,4,1,1] w = {{1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}}>
        {{ a = Conv(x, w)
           s = GlobalAveragePool(a)
           y = Conv(s, w) }}
    """)
    record = convert(model, "float16", ranges=ranges)
    checked(model)
    assert ("GlobalAveragePool(s)" in why(record)) is kept


def test_what_the_back_end_and_the_user_keep_stays() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2,2] x) => (float[2,2] y)
        <float[2,2] w = {1,2,3,4}>
        { a = MatMul(x, w)
          b = Softmax(a)
          c = MatMul(b, w)
          y = MatMul(c, w) }
    """
    model = parsed(text)
    record = convert(model, "float16", blocked=frozenset({"Softmax"}), keep_float=frozenset({"c"}))
    checked(model)
    assert why(record) == {
        "Softmax(b)": "the back end computes it in float32",
        "MatMul(c)": "as asked for",
    }


def test_what_only_moves_data_or_costs_more_casts_than_it_saves_stays() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2,4] x) => (float[4,2] y, float[2,2] p, float[2,2] q)
        <float[4,4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}>
        { y = Transpose(x)
          m = MatMul(x, w)
          p, q = Split<axis = 1>(m) }
    """)
    record = convert(model, "float16")
    checked(model)
    assert set(why(record)) == {"Transpose(y)", "Split(p)"}
    assert operators(model).count("Cast") == 2


def test_quantised_operators_are_left_alone() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2,2] x) => (float[2,2] y)
        <float s = {0.1}, uint8 z = {128}, float[2,2] w = {1,2,3,4}>
        { q = QuantizeLinear(x, s, z)
          d = DequantizeLinear(q, s, z)
          m = MatMul(d, w)
          r = QuantizeLinear(m, s, z)
          e = DequantizeLinear(r, s, z)
          y = MatMul(e, w) }
    """)
    assert convert(model, "float16").converted == 0
    checked(model)


def test_big_weights_are_converted_when_they_are_read() -> None:
    side = math.isqrt(LAZY_BYTES // 4) + 8
    weights = np.random.default_rng(0).standard_normal((side, side)).astype(np.float32)
    text = f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1,{side}] x) => (float[1,{side}] y)
        {{ y = MatMul(x, w) }}
    """
    model = parsed(text, w=weights)
    convert(model, "float16")
    tensor = model.graph.initializers["w_float16"].const_value
    assert isinstance(tensor, ir.LazyTensor)
    assert np.array_equal(tensor.numpy(), weights.astype(np.float16))


def test_stored_weights_are_widened_once_and_the_rest_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    fine = rng.standard_normal((64, 64)).astype(np.float32)
    tiny, huge = fine * np.float32(1e-9), fine * np.float32(1e5)
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1,64] x) => (float[1,64] y)
        { a = MatMul(x, fine)
          b = MatMul(a, tiny)
          c = MatMul(b, huge)
          d = MatMul(c, fine)
          y = Add(d, bias) }
    """
    model = parsed(text, fine=fine, tiny=tiny, huge=huge, bias=fine[0])
    feeds = {"x": fine[:1]}
    (expected,) = run(model, feeds)
    kept = store(model, "float16")
    checked(model)
    assert kept == (("tiny", "underflows"), ("huge", "overflows"))
    assert operators(model) == ["Cast", *["MatMul"] * 4, "Add"]
    assert model.graph.initializers["fine_float16"].dtype == HALF
    (found,) = run(model, feeds)
    assert np.abs(found - expected).max() < 2e-3 * np.abs(expected).max()


COUNT = 300


@pytest.mark.parametrize("part", range(2))
def test_random_graphs_keep_their_outputs(part: int) -> None:
    """float16 within 2 % of the peak, as in comparison.THRESHOLDS."""
    wrong, compared, converted = [], 0, 0
    for seed in range(part * COUNT, (part + 1) * COUNT):
        proto, feeds = random_graph(seed)
        model = ir.from_proto(proto)
        pipeline.run(model, PassOptions())
        expected = run(model, feeds)
        if not all(np.isfinite(a).all() for a in expected):
            continue
        try:
            record = convert(model, "float16", ranges=measured(model, feeds))
            checked(model)
            found = run(model, feeds)
            worst = max(_difference(a, b) for a, b in zip(expected, found, strict=True))
        except Exception as error:
            wrong.append(f"seed {seed}: {type(error).__name__}: {error}"[:300])
            continue
        if not worst < 2e-2:
            wrong.append(f"seed {seed}: off by {worst:.2g}")
        compared += 1
        converted += record.converted > 0
    assert not wrong
    assert compared > 0.8 * COUNT
    assert converted > 0.4 * COUNT


def _difference(expected: Any, found: Any) -> float:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return math.inf
    peak = max(1.0, float(np.abs(expected).max(initial=0)))
    return float(np.abs(expected - found).max(initial=0)) / peak


def test_random_graphs_are_typed_in_bfloat16() -> None:
    converted = 0
    for seed in range(2 * COUNT):
        proto, _ = random_graph(seed)
        model = ir.from_proto(proto)
        if model.opset_imports[""] < 22:
            continue
        pipeline.run(model, PassOptions())
        converted += convert(model, "bfloat16").converted > 0
        checked(model)
    assert converted > 0.05 * COUNT


REAL = (
    ("ultraface/version-RFB-320.onnx", 45.0),
    ("ultraface/version-slim-320.onnx", 45.0),
    ("fastestdet/FastestDet.onnx", 40.0),
    ("dtln/model_1.onnx", 50.0),
    ("dtln/model_2.onnx", 50.0),
)


@pytest.mark.models
@pytest.mark.parametrize(("file", "sqnr_db"), REAL, ids=[Path(f).stem for f, _ in REAL])
def test_real_models(models: Path, file: str, sqnr_db: float) -> None:
    if not (models / file).is_file():
        pytest.skip(f"missing: {file}")
    _require_close(models / file, sqnr_db)


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    (
        *("bvlc_alexnet", "densenet121", "inception_v1", "inception_v2"),
        *("resnet50", "shufflenet", "squeezenet", "zfnet512"),
    ),
)
def test_light_models(name: str) -> None:
    _require_close(LIGHT / f"light_{name}.onnx", 40.0)


def _require_close(path: Path, sqnr_db: float) -> None:
    source = frontends.load(path)
    model = source.model
    pipeline.run(model, PassOptions())
    rng = np.random.default_rng(0)
    feeds: dict[str, Any] = {
        str(v.name): rng.standard_normal([int(d) for d in v.shape or ()]).astype(np.float32)
        for v in model.graph.inputs
    }
    expected = run(model, feeds)
    record = convert(model, "float16", ranges=measured(model, feeds))
    found = session(checked(model)).run(None, feeds)
    assert record.converted > 5
    for a, b in zip(expected, found, strict=True):
        noise = float(np.square(a.astype(np.float64) - b).sum())
        signal = float(np.square(a.astype(np.float64)).sum())
        assert noise == 0 or 10 * math.log10(signal / noise) > sqnr_db

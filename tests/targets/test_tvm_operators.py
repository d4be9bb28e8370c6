"""The TVM back end, operator by operator: what TVM's importer gets wrong, and what is refused.

Answers are held to ONNX's own evaluator. Several operators go into one model, each with outputs of
its own: a model costs some seconds, an operator in it none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from infc.signature import TensorSpec
from infc.targets import BuildJob, RunJob, Target, tvm

HEAD = '<ir_version: 10, opset_import: ["": 23]>\n'
THREADS = (1, 3)
TOLERANCE = 3e-6
"""Of the largest answer, as in test_tvm.py."""
TARGET = Target("tvm", "tvm", "")
Arrays = dict[str, "np.ndarray[Any, Any]"]


@pytest.fixture(autouse=True)
def tvm_is_there(need_module: Callable[[str], None], need_tool: Callable[[str], str]) -> None:
    need_module("tvm")
    need_tool("cc")


def lowered(model: onnx.ModelProto, folder: Path) -> Path:
    """The file that the worker is given."""
    graph = ir.from_proto(model)
    tvm.legalize(graph, TARGET)
    ir.save(graph, folder / "in.onnx")
    return folder / "in.onnx"


def specs(values: Any) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            v.name,
            helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type).name,
            tuple(d.dim_value for d in v.type.tensor_type.shape.dim),
        )
        for v in values
    )


def built(model: onnx.ModelProto, folder: Path) -> RunJob:
    path = lowered(model, folder)
    assert tvm.check(path, TARGET) == []
    output = folder / "model"
    output.mkdir()
    inputs, outputs = specs(model.graph.input), specs(model.graph.output)
    artifact = tvm.build(BuildJob(path, output, TARGET, inputs, outputs))
    names = tuple(s.name for s in outputs), tuple(s.name for s in inputs)
    return RunJob(output / artifact.entry, TARGET, *names)


def require_right(model: onnx.ModelProto, feeds: Arrays, folder: Path, of: float = 1) -> None:
    """Build `model` and hold it to ONNX's evaluator, `of` times as tolerant as float32 is."""
    job = built(model, folder)
    expected = dict(zip(job.outputs, ReferenceEvaluator(model).run(None, feeds), strict=True))
    for threads in THREADS:
        answers = tvm.open(replace(job, threads=threads))(feeds)
        for name, right in expected.items():
            require_close(name, answers[name], np.asarray(right), of)


def require_close(name: str, answer: Any, right: Any, of: float) -> None:
    assert (answer.dtype, answer.shape) == (right.dtype, right.shape), name
    if right.dtype.kind in "biu" or not right.size:
        np.testing.assert_array_equal(answer, right, err_msg=name)
        return
    right, answer = right.astype(np.float64), answer.astype(np.float64)
    most = max([1.0, *np.abs(right[np.isfinite(right)])])
    np.testing.assert_allclose(answer, right, rtol=0, atol=TOLERANCE * most * of, err_msg=name)


def parsed(text: str) -> onnx.ModelProto:
    return parser.parse_model(HEAD + text)


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_what_the_importer_reads_a_part_of(tmp_path: Path) -> None:
    model = parsed("""agraph (float[2, 8, 4, 6] x, float[3, 5, 4] n, float[6] f, float[3, 4] m) => (
            float[2, 2, 8, 12] crd, float[2, 32, 2, 3] s, float[3, 5, 4] y, float[3, 5, 1] mean,
            float[3, 5, 1] inverse, bool[6] below, bool[6] above, bool[6] neither,
            float[3] greatest, float[1, 4] least, float[3, 5, 4] unit,
            float[3, 5, 4] dropped, bool[3, 5, 4] mask) {
        crd = DepthToSpace<blocksize = 2, mode = "CRD">(x)
        s = SpaceToDepth<blocksize = 2>(x)
        scale = Constant<value = float[4] {1.0, 2.0, -1.0, 0.5}>()
        y, mean, inverse = LayerNormalization<axis = -1>(n, scale)
        below = IsInf<detect_positive = 0>(f)
        above = IsInf<detect_negative = 0>(f)
        neither = IsInf<detect_negative = 0, detect_positive = 0>(f)
        last = Constant<value = int64[1] {1}>()
        first = Constant<value = int64[1] {0}>()
        greatest = ReduceMax<keepdims = 0>(m, last)
        least = ReduceMin(m, first)
        unit = LpNormalization<axis = 1>(n)
        dropped, mask = Dropout(n)
    }""")
    rows = random(3, 4)
    rows[1] = -np.inf
    rows[2, 1] = np.inf
    feeds = {
        "x": random(2, 8, 4, 6),
        "n": random(3, 5, 4, seed=1),
        "f": np.array([1, np.inf, -np.inf, np.nan, 0, -2], np.float32),
        "m": rows,
    }
    require_right(model, feeds, tmp_path)


def test_remainders_shifts_and_powers(tmp_path: Path) -> None:
    model = parsed("""agraph (int32[6] a, int32[6] b, uint8[6] u, uint8[6] by, float[6] x,
                            float[6] y, int64[3] base, int64[3] exponent, float[3] root) => (
            int32[6] floored, int32[6] truncated, float[6] rest, float[6] like_c,
            uint8[6] left, uint8[6] right, int64[3] power, float[3] mixed) {
        floored = Mod(a, b)
        truncated = Mod<fmod = 1>(a, b)
        rest = Mod<fmod = 0>(x, y)
        like_c = Mod<fmod = 1>(x, y)
        left = BitShift<direction = "LEFT">(u, by)
        right = BitShift<direction = "RIGHT">(u, by)
        power = Pow(base, exponent)
        mixed = Pow(root, exponent)
    }""")
    feeds = {
        "a": np.array([7, -7, 7, -7, 6, 0], np.int32),
        "b": np.array([3, 3, -3, -3, 3, 5], np.int32),
        "u": np.array([1, 255, 129, 16, 7, 200], np.uint8),
        "by": np.array([0, 7, 1, 3, 2, 6], np.uint8),
        "x": np.array([5.5, -5.5, 5.5, -5.5, 1.0, 0.0], np.float32),
        "y": np.array([2, 2, -2, -2, np.inf, 3], np.float32),
        "base": np.array([3, -2, 10], np.int64),
        "exponent": np.array([4, 3, 0], np.int64),
        "root": np.array([0.5, -1.5, 2.0], np.float32),
    }
    require_right(model, feeds, tmp_path)


def test_what_is_computed_step_by_step(tmp_path: Path) -> None:
    model = parsed("""agraph (float[3, 7] x, int64[2, 7] i, float[2, 7] u, int64[2, 2] p,
                            float[2] v, int64[3] lengths, float[4, 3, 2] t, int64[3] hot) => (
            float[3, 4] most, int64[3, 4] where_most,
            float[2, 7] least, int64[2, 7] where_least,
            float[3, 7] sums, float[3, 7] after, float[3, 7] put, float[3, 7] added,
            float[3, 7] at, float[3, 7] highest, float[4, 3, 2] turned, float[3, 5] onehot) {
        four = Constant<value = int64[1] {4}>()
        two = Constant<value = int64[1] {2}>()
        most, where_most = TopK<axis = 1>(x, four)
        least, where_least = TopK<axis = 0, largest = 0>(x, two)
        one = Constant<value = int64 {1}>()
        sums = CumSum(x, one)
        after = CumSum<exclusive = 1, reverse = 1>(x, one)
        put = ScatterElements<axis = 0>(x, i, u)
        added = ScatterElements<axis = 0, reduction = "add">(x, i, u)
        at = ScatterND(x, p, v)
        highest = ScatterND<reduction = "max">(x, p, v)
        turned = ReverseSequence<time_axis = 0, batch_axis = 1>(t, lengths)
        five = Constant<value = int64 {5}>()
        values = Constant<value = float[2] {-1.0, 3.0}>()
        onehot = OneHot(hot, five, values)
    }""")
    x = random(3, 7)
    x[0, 2] = x[0, 5]
    feeds = {
        "x": x,
        "i": np.array([[0, 1, 2, -1, 0, 1, 2], [1, 2, 0, 0, -2, 0, 1]], np.int64),
        "u": random(2, 7, seed=1),
        "p": np.array([[0, 6], [-1, -7]], np.int64),
        "v": np.array([9, 0.5], np.float32),
        "lengths": np.array([4, 1, 3], np.int64),
        "t": random(4, 3, 2, seed=2),
        "hot": np.array([1, -1, 7], np.int64),
    }
    require_right(model, feeds, tmp_path)


RESIZES = [
    {"mode": "nearest", "nearest_mode": "ceil"},
    {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    {"mode": "linear", "antialias": 1},
    {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
]


@pytest.mark.parametrize("size", [(9, 5), (3, 4)])
def test_resize(tmp_path: Path, size: tuple[int, int]) -> None:
    nodes = [
        helper.make_node("Resize", ["x", "", "", "s"], [f"y{i}"], **case)
        for i, case in enumerate(RESIZES)
    ]
    shape = [1, 2, *size]
    outputs = [helper.make_tensor_value_info(f"y{i}", 1, shape) for i in range(len(RESIZES))]
    inputs = [helper.make_tensor_value_info("x", 1, [1, 2, 6, 7])]
    sizes = numpy_helper.from_array(np.array(shape, np.int64), "s")
    graph = helper.make_graph(nodes, "g", inputs, outputs, [sizes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    require_right(model, {"x": random(1, 2, 6, 7)}, tmp_path)


def test_an_index_outside_of_its_operand_reads_and_writes_nothing_else(tmp_path: Path) -> None:
    model = parsed("""agraph (float[4, 3] x, int64[2] i, int64[4, 3] e, float[4, 3] u) => (
            float[2, 3] rows, float[4, 3] picked, float[4, 3] put) {
        rows = Gather(x, i)
        picked = GatherElements<axis = 1>(x, e)
        put = ScatterElements<axis = 0>(x, e, u)
    }""")
    run = tvm.open(built(model, tmp_path))
    x = random(4, 3)
    far = np.full((4, 3), 1 << 40, np.int64)
    answers = run({"x": x, "i": np.array([1 << 40, -(1 << 40)]), "e": far, "u": random(4, 3)})
    np.testing.assert_array_equal(answers["rows"], x[[3, 0]])
    np.testing.assert_array_equal(answers["picked"], np.repeat(x[:, 2:], 3, axis=1))
    np.testing.assert_array_equal(answers["put"], x)


def test_tensors_without_elements(tmp_path: Path) -> None:
    model = parsed("""agraph (float[0, 3] x, float[2, 3] y) => (
            float[2, 3] joined, float[0, 3] nothing, float[1, 3] sums, float[1, 3] least) {
        joined = Concat<axis = 0>(x, y)
        nothing = Relu(x)
        axes = Constant<value = int64[1] {0}>()
        sums = ReduceSum(x, axes)
        least = ReduceMax(x, axes)
    }""")
    require_right(model, {"x": np.zeros((0, 3), np.float32), "y": random(2, 3)}, tmp_path)


def test_bfloat16_is_computed_in_float32(tmp_path: Path) -> None:
    model = parsed("""agraph (bfloat16[4, 32] x, bfloat16[32, 8] w) => (bfloat16[4, 8] y) {
        p = MatMul(x, w)
        s = Softmax(p)
        y = Mul(s, p)
    }""")
    bfloat16 = helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
    x, w = random(4, 32).astype(bfloat16), random(32, 8, seed=1).astype(bfloat16)
    answer = tvm.open(built(model, tmp_path))({"x": x, "w": w})["y"]
    p = x.astype(np.float64) @ w.astype(np.float64)
    share = np.exp(p - p.max(1, keepdims=True))
    right = share / share.sum(1, keepdims=True) * p
    np.testing.assert_allclose(answer.astype(np.float64), right, rtol=2**-8, atol=1e-6)


def test_exp_between_casts_of_bfloat16_is_not_infinite(tmp_path: Path) -> None:
    model = parsed("agraph (bfloat16[5] x) => (bfloat16[5] y) { y = Exp(x) }")
    x = np.array([-3, -0.5, 0, 0.5, 3]).astype(helper.tensor_dtype_to_np_dtype(16))
    answer = tvm.open(built(model, tmp_path))({"x": x})["y"].astype(np.float64)
    np.testing.assert_allclose(answer, np.exp(x.astype(np.float64)), rtol=2**-8)


def test_attention_in_the_standard_domain(tmp_path: Path) -> None:
    model = parsed("""agraph (float[1, 5, 16] q, float[1, 5, 8] k, float[1, 5, 8] v)
                            => (float[1, 5, 16] y) {
        y = Attention<q_num_heads = 4, kv_num_heads = 2, is_causal = 1>(q, k, v)
    }""")
    feeds = {"q": random(1, 5, 16), "k": random(1, 5, 8, seed=1), "v": random(1, 5, 8, seed=2)}
    require_right(model, feeds, tmp_path)


def test_an_operand_that_has_to_be_a_constant(tmp_path: Path) -> None:
    model = parsed("""agraph (float[2, 3] x, float filling) => (float[4, 5] y) {
        pads = Constant<value = int64[4] {1, 1, 1, 1}>()
        [wider] y = Pad(x, pads, filling)
    }""")
    (row,) = tvm.check(lowered(model, tmp_path), TARGET)
    assert row.node == "wider"
    assert row.reason == "an operand that TVM takes as a constant is computed when the model runs"


def test_every_node_that_is_refused_is_named_with_its_reason(tmp_path: Path) -> None:
    model = parsed("""agraph (float[1, 2, 6, 6] x, float[1, 4] rois, int64[1] batch, int64[1] k)
                            => (float[1, 2, 2, 2] a, float[1, 2, 6, 6] b, int64[4, n] c) {
        [pooled] a = RoiAlign<mode = "max", output_height = 2, output_width = 2>(x, rois, batch)
        top, places = TopK(x, k)
        [drawn] b = RandomNormalLike(x)
        [which] c = NonZero(x)
        [strange] d = Det(x)
    }""")
    rows = {r.op_type: r for r in tvm.check(lowered(model, tmp_path), TARGET)}
    assert rows["RoiAlign"].node == "pooled"
    assert "`mode` is `max`" in rows["RoiAlign"].reason
    assert "random numbers" in rows["RandomNormalLike"].reason
    assert (rows["NonZero"].node, rows["NonZero"].reason) == (
        "which",
        "how much it gives depends on values",
    )

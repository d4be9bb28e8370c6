"""INT8 through TVM: sums of integers to the last bit, what follows them within a step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from infc.passes.quantization import observed, quantize
from infc.quantization import Range
from infc.signature import TensorSpec
from infc.targets import BuildJob, RunJob, Target, schemes, tvm
from infc.targets.tvm_compiler.cpus import CPUS
from infc.targets.tvm_compiler.integers.dot_products import dot_product_of
from infc.targets.tvm_compiler.integers.schedules import tile

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]
HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
THREADS = (1, 3)
TYPES = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8}


@pytest.fixture
def tvm_is_there(need_module: Callable[[str], None], need_tool: Callable[[str], str]) -> None:
    need_module("tvm")
    need_tool("cc")


def build(model: onnx.ModelProto, folder: Path, **options: str) -> tuple[ir.Model, RunJob]:
    """Lower, check and build `model`, as a worker does; the lowered graph, and the job."""
    folder.mkdir(parents=True, exist_ok=True)
    target = Target("tvm", "tvm", "", options=options)
    lowered = ir.from_proto(model)
    tvm.legalize(lowered, target)
    ir.save(lowered, folder / "in.onnx")
    assert tvm.check(folder / "in.onnx", target) == []
    sides = [[spec(v) for v in values] for values in (model.graph.input, model.graph.output)]
    (folder / "model").mkdir()
    inputs, outputs = (tuple(side) for side in sides)
    artifact = tvm.build(BuildJob(folder / "in.onnx", folder / "model", target, inputs, outputs))
    names = [tuple(s.name for s in side) for side in (outputs, inputs)]
    return lowered, RunJob(folder / "model" / artifact.entry, target, *names)


def spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    return TensorSpec(value.name, dtype, tuple(d.dim_value for d in kind.shape.dim))


def answers(job: RunJob, feeds: Feeds) -> Feeds:
    """The same on one thread and on several."""
    found = [tvm.open(replace(job, threads=threads))(feeds) for threads in THREADS]
    for name in job.outputs:
        np.testing.assert_array_equal(found[0][name], found[1][name])
    return found[0]


def expected(model: onnx.ModelProto, feeds: Feeds) -> Feeds:
    """ONNX Runtime's answers, its optimisations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def operators(model: ir.Model) -> set[str]:
    return {node.op_type for node in model.graph}


CONVOLUTIONS: list[dict[str, Any]] = [
    {"size": [12, 12], "channels": 3, "out": 32, "kernel": [3, 3], "pads": [1, 1, 1, 1]},
    {"size": [13, 17], "channels": 5, "out": 7, "kernel": [3, 3], "strides": [2, 2]},
    {"size": [9, 9], "channels": 16, "out": 16, "kernel": [1, 1], "x": "int8"},
    {"size": [7, 7], "channels": 24, "out": 24, "kernel": [3, 3], "group": 24, "pads": [1] * 4},
    {"size": [7, 7], "channels": 5, "out": 5, "kernel": [3, 3], "group": 5, "pads": [2, 0, 1, 1]},
    {"size": [8, 8], "channels": 12, "out": 48, "kernel": [3, 3], "group": 3, "pads": [2] * 4},
    {"size": [8, 8], "channels": 12, "out": 24, "kernel": [3, 3], "group": 4, "x": "int8"},
    {"size": [11, 5], "channels": 8, "out": 48, "kernel": [5, 3], "dilations": [2, 1]},
    {"size": [11, 9], "channels": 6, "out": 72, "kernel": [3, 3], "dilations": [2, 2]},
    {"size": [6, 6], "channels": 4, "out": 1, "kernel": [6, 6], "w": "uint8"},
    {"size": [1, 1], "channels": 20, "out": 10, "kernel": [1, 1], "w": "uint8", "wz": 128},
    {"size": [10, 10], "channels": 6, "out": 12, "kernel": [2, 2], "pads": [0, 0, 1, 1]},
    {"size": [31], "channels": 9, "out": 20, "kernel": [5], "strides": [3], "pads": [2, 1]},
    {"size": [5, 6, 7], "channels": 3, "out": 8, "kernel": [2, 3, 2], "pads": [1, 0, 1, 0, 1, 0]},
    {"size": [8, 8], "channels": 16, "out": 40, "kernel": [3, 3], "batch": 3, "pads": [1] * 4},
    {"size": [8, 8], "channels": 6, "out": 12, "kernel": [3, 3], "group": 6, "strides": [2, 1]},
    {"size": [4, 4], "channels": 65, "out": 33, "kernel": [3, 3], "pads": [1] * 4, "full": True},
    {"size": [4, 4], "channels": 64, "out": 64, "kernel": [1, 1], "full": True, "x": "int8"},
    {"size": [4, 4], "channels": 8, "out": 8, "kernel": [1, 1], "w": "uint8", "wz": 3},
]
"""`x`, `w`: types; `wz`: the weights' zero point; `full`: nothing but the extremes."""


def integers(rng: np.random.Generator, shape: list[int], dtype: str, *, full: bool) -> Array:
    """Numbers of the whole range of `dtype`, or its least and greatest alone."""
    info = np.iinfo(dtype)
    if full:
        return rng.choice([info.min, info.max], shape).astype(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def many_sums(cases: list[dict[str, Any]]) -> tuple[onnx.ModelProto, Feeds]:
    """A model with a ConvInteger for each case, and inputs for it."""
    rng = np.random.default_rng(4)
    nodes, inputs, outputs, constants, feeds = [], [], [], [], {}
    for i, case in enumerate(cases):
        x_type, w_type = case.get("x", "uint8"), case.get("w", "int8")
        group, full = case.get("group", 1), case.get("full", False)
        shape = [case.get("batch", 1), case["channels"], *case["size"]]
        kernel = [case["out"], case["channels"] // group, *case["kernel"]]
        feeds[f"x{i}"] = integers(rng, shape, x_type, full=full)
        w = integers(rng, kernel, w_type, full=full)
        zero = np.asarray(rng.integers(0, 100), x_type)
        constants += [numpy_helper.from_array(w, f"w{i}"), numpy_helper.from_array(zero, f"z{i}")]
        operands = [f"x{i}", f"w{i}", f"z{i}"]
        if "wz" in case:
            constants.append(numpy_helper.from_array(np.asarray(case["wz"], w_type), f"wz{i}"))
            operands.append(f"wz{i}")
        given = {k: case[k] for k in ("strides", "pads", "dilations") if k in case}
        given |= {"kernel_shape": case["kernel"], "group": group}
        nodes.append(helper.make_node("ConvInteger", operands, [f"y{i}"], **given))
        inputs.append(helper.make_tensor_value_info(f"x{i}", TYPES[x_type], shape))
        outputs.append(helper.make_tensor_value_info(f"y{i}", TensorProto.INT32, None))
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return onnx.shape_inference.infer_shapes(model), feeds


def exact_sums(model: onnx.ModelProto, cases: list[dict[str, Any]], feeds: Feeds) -> list[Array]:
    """What each ConvInteger gives, in int64."""
    constants = {t.name: numpy_helper.to_array(t).astype(np.int64) for t in model.graph.initializer}
    found = []
    for i, case in enumerate(cases):
        rank = len(case["size"])
        pads = case.get("pads", [0] * 2 * rank)
        around = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
        x = np.pad(feeds[f"x{i}"].astype(np.int64) - constants[f"z{i}"], around)
        w = constants[f"w{i}"] - constants.get(f"wz{i}", 0)
        found.append(convolved(x, w, case))
    return found


def convolved(x: Array, w: Array, case: dict[str, Any]) -> Array:
    """The convolution of padded `x`, (N, C, spatial...), by `w`, (O, C / group, k...)."""
    rank, group = w.ndim - 2, case.get("group", 1)
    strides, dilations = (case.get(k, [1] * rank) for k in ("strides", "dilations"))
    kernel = w.shape[2:]
    rows = list(zip(x.shape[2:], kernel, strides, dilations, strict=True))
    sizes = [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in rows]
    y = np.zeros((x.shape[0], w.shape[0], *sizes), np.int64)
    ins, outs = x.shape[1] // group, w.shape[0] // group
    for tap in np.ndindex(*kernel):
        moves = zip(tap, sizes, strides, dilations, strict=True)
        window = tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, n, s, d in moves)
        for g in range(group):
            part = x[(slice(None), slice(g * ins, (g + 1) * ins), *window)]
            factors = w[(slice(g * outs, (g + 1) * outs), slice(None), *tap)]
            y[:, g * outs : (g + 1) * outs] += np.einsum("nc...,oc->no...", part, factors)
    return y


def require_exact(cases: list[dict[str, Any]], folder: Path, cpu: str) -> None:
    model, feeds = many_sums(cases)
    lowered, job = build(model, folder, cpu=cpu)
    wide = [c for c in cases if c.get("w") == "uint8" and c.get("wz") != 128]
    assert [n.op_type for n in lowered.graph].count("IntegerConv") == len(cases) - len(wide)
    found, right = answers(job, feeds), exact_sums(model, cases, feeds)
    for name, case, sums in zip(job.outputs, cases, right, strict=True):
        np.testing.assert_array_equal(found[name], sums, err_msg=str(case))


@pytest.mark.parametrize("cpu", ["host", "x86-64-v3"])
def test_sums_are_exact(tvm_is_there: None, tmp_path: Path, cpu: str) -> None:
    require_exact(CONVOLUTIONS, tmp_path, cpu)


@pytest.mark.parametrize(
    ("cpu", "instruction"), [("cortex-a76", "sdot"), ("cortex-a72", "smlal"), ("riscv64", "")]
)
def test_sums_are_exact_on_other_machines(
    tvm_is_there: None,
    tmp_path: Path,
    need_tool: Callable[[str], str],
    cpu: str,
    instruction: str,
) -> None:
    need_tool("qemu-riscv64" if cpu == "riscv64" else "qemu-aarch64")
    assert dot_product_of(CPUS[cpu]).name == (instruction or "multiply-add")
    narrow = [c for c in CONVOLUTIONS if c["channels"] in (3, 12, 24, 64)]
    require_exact(narrow, tmp_path, cpu)


QUANTIZED_OPERATORS = """agraph (uint8[2, 6, 7, 5] x, uint8[9, 20] a, float[4, 20] f) => (
        uint8[2, 8, 4, 3] conv, uint8[9, 7] product, int32[9, 7] sums, float[4, 7] dynamic)
    <float xs = {0.03}, uint8 xz = {117}, int8 wz = {0}, float ys = {0.2}, uint8 yz = {121},
     float as = {0.02}, uint8 az = {3}, float bs = {0.01}, uint8 bz = {120}, float ps = {0.08},
     uint8 pz = {130}> {
    conv = QLinearConv<pads = [1, 1, 1, 1], strides = [2, 2]>(
        x, xs, xz, w, ws, wz, ys, yz, bias)
    product = QLinearMatMul(a, as, az, b, bs, bz, ps, pz)
    sums = MatMulInteger(a, b, az, bz)
    q, qs, qz = DynamicQuantizeLinear(f)
    whole = MatMulInteger(q, b, qz, bz)
    real = Cast<to = 1>(whole)
    scale = Mul(qs, bs)
    dynamic = Mul(real, scale)
}
"""


def quantized_operators() -> onnx.ModelProto:
    rng = np.random.default_rng(5)
    model = parser.parse_model(HEAD + QUANTIZED_OPERATORS)
    arrays = {
        "w": rng.integers(-127, 128, (8, 6, 3, 3)).astype(np.int8),
        "ws": rng.uniform(0.002, 0.01, 8).astype(np.float32),
        "bias": rng.integers(-3000, 3000, 8).astype(np.int32),
        "b": rng.integers(0, 240, (20, 7)).astype(np.uint8),
    }
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in arrays.items())
    return model


@pytest.mark.parametrize("cpu", ["host", "cortex-a72"])
def test_operators_that_came_quantised(
    tvm_is_there: None, tmp_path: Path, need_tool: Callable[[str], str], cpu: str
) -> None:
    if cpu != "host":
        need_tool("qemu-aarch64")
    model = quantized_operators()
    rng = np.random.default_rng(6)
    feeds = {
        "x": rng.integers(0, 256, (2, 6, 7, 5)).astype(np.uint8),
        "a": rng.integers(0, 256, (9, 20)).astype(np.uint8),
        "f": rng.standard_normal((4, 20)).astype(np.float32),
    }
    lowered, job = build(model, tmp_path, cpu=cpu)
    assert {"IntegerConv", "IntegerMatMul"} <= operators(lowered)
    assert not {"Conv", "MatMul", "MatMulInteger", "ChannelsLastConv"} & operators(lowered)
    found, right = answers(job, feeds), expected(model, feeds)
    np.testing.assert_array_equal(found["sums"], right["sums"])
    for name in ("conv", "product"):
        steps = np.abs(found[name].astype(int) - right[name].astype(int))
        assert steps.max() <= 1
        assert (steps > 0).mean() < 0.01
    np.testing.assert_allclose(found["dynamic"], right["dynamic"], rtol=0, atol=0.03)


NETWORK = """agraph (float[1, 3, 18, 14] x) => (float[1, 10] y, float[1, 24, 9, 7] h) {
    a0 = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, w0, b0)
    a1 = Relu(a0)
    d0 = Conv<pads = [1, 1, 1, 1], group = 16>(a1, w1, b1)
    d1 = HardSwish(d0)
    p0 = Conv(d1, w2, b2)
    r0 = Add(a1, p0)
    r1 = Relu(r0)
    c0 = Conv<pads = [1, 1, 1, 1]>(r1, w3, b3)
    c1 = Concat<axis = 1>(r1, c0)
    m0 = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(c1)
    h = Conv(m0, w4, b4)
    g0 = GlobalAveragePool(h)
    g1 = Flatten(g0)
    y = Gemm<transB = 1>(g1, w5, b5)
}
"""
KERNELS = [(16, 3, 3, 3), (16, 1, 3, 3), (16, 16, 1, 1), (8, 16, 3, 3), (24, 24, 1, 1), (10, 24)]


def network() -> onnx.ModelProto:
    rng = np.random.default_rng(7)
    model = parser.parse_model(HEAD + NETWORK)
    for i, shape in enumerate(KERNELS):
        spread = 1.5 / np.sqrt(np.prod(shape[1:]))
        w = (rng.standard_normal(shape) * spread).astype(np.float32)
        b = (rng.standard_normal(shape[0]) * 0.2).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(w, f"w{i}"))
        model.graph.initializer.append(numpy_helper.from_array(b, f"b{i}"))
    return onnx.shape_inference.infer_shapes(model)


def with_pairs(model: onnx.ModelProto, scheme: Any, feeds: Feeds) -> onnx.ModelProto:
    """`model` with Q/DQ as `scheme` wants them, its ranges those of `feeds`."""
    subject = ir.from_proto(model)
    names = observed(subject, scheme)
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    shown = {o.name for o in model.graph.output}
    open_model.graph.output.extend(
        v for v in model.graph.value_info if v.name in names and v.name not in shown
    )
    values = {**expected(open_model, feeds), **feeds}
    ranges = {n: Range(float(values[n].min()), float(values[n].max())) for n in names}
    quantize(subject, ranges, scheme)
    return ir.to_proto(subject)


def photo() -> Array:
    return np.random.default_rng(8).standard_normal((1, 3, 18, 14)).astype(np.float32)


def decibels(right: Array, found: Array) -> float:
    noise = ((right.astype(np.float64) - found) ** 2).sum()
    return float(10 * np.log10((right.astype(np.float64) ** 2).sum() / max(noise, 1e-30)))


SCHEMES = (schemes.TVM, schemes.ONNXRUNTIME, schemes.OPENVINO, schemes.TENSORRT)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_a_network_of_pairs(tvm_is_there: None, tmp_path: Path, scheme: Any) -> None:
    """As ONNX Runtime computes the same graph, and as far from float32 as that is."""
    model = network()
    feeds = {"x": photo()}
    quantized = with_pairs(model, scheme, feeds)
    lowered, job = build(quantized, tmp_path)
    kinds = [n.op_type for n in lowered.graph]
    assert kinds.count("IntegerConv") == 5
    assert kinds.count("IntegerMatMul") == 1
    assert not {"Conv", "Gemm", "ChannelsLastConv"} & set(kinds)
    # Of the input; all others have met.
    assert kinds.count("Transpose") <= 2
    found, same, exact = answers(job, feeds), expected(quantized, feeds), expected(model, feeds)
    for name in job.outputs:
        assert decibels(same[name], found[name]) > 45
        assert decibels(exact[name], found[name]) > decibels(exact[name], same[name]) - 1


def test_an_open_batch(tvm_is_there: None) -> None:
    """The integer kernels take it; only what a convolution moves over has to be fixed."""
    model = with_pairs(network(), schemes.TVM, {"x": photo()})
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    model = onnx.shape_inference.infer_shapes(model)
    subject = ir.from_proto(model)
    tvm.legalize(subject, Target("tvm", "tvm", "", options={"form": "vm"}))
    kinds = [n.op_type for n in subject.graph]
    assert kinds.count("IntegerConv") == 5
    assert not {"Conv", "ChannelsLastConv"} & set(kinds)


BYTES_IN = """
<ir_version: 8, opset_import: ["" : 17]>
net (int8[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y)
<float s = {0.02}, int8 z = {3}, float t = {0.01}, int8 zero = {0}>
{
  real = DequantizeLinear(x, s, z)
  weights = DequantizeLinear(w, t, zero)
  y = Conv<pads = [1, 1, 1, 1]>(real, weights)
}
"""


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_an_open_batch_of_bytes(tvm_is_there: None, kind: str) -> None:
    """Of either type: the kernels take one of them, and the other is moved."""
    text = BYTES_IN.replace("int8[N", f"{kind}[N").replace("int8 z =", f"{kind} z =")
    model = onnx.parser.parse_model(text)
    w = np.random.default_rng(0).integers(-128, 128, (4, 3, 3, 3)).astype(np.int8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    subject = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    tvm.legalize(subject, Target("tvm", "tvm", "", options={"form": "vm"}))
    assert [n.op_type for n in subject.graph].count("IntegerConv") == 1


def test_weights_are_bytes_in_the_library(tvm_is_there: None, tmp_path: Path) -> None:
    model = network()
    feeds = {"x": photo()}
    sizes = []
    for name, graph in (("f", model), ("q", with_pairs(model, schemes.TVM, feeds))):
        target = Target("tvm", "tvm", "")
        folder = tmp_path / name
        (folder / "model").mkdir(parents=True)
        subject = ir.from_proto(graph)
        tvm.legalize(subject, target)
        ir.save(subject, folder / "in.onnx")
        specs = [tuple(spec(v) for v in side) for side in (graph.graph.input, graph.graph.output)]
        artifact = tvm.build(BuildJob(folder / "in.onnx", folder / "model", target, *specs))
        sizes.append((artifact.notes["weight_bytes"], artifact.notes["arena_bytes"]))
    # Beside them: biases, scales, lanes that are not used.
    assert sizes[1][0] < 0.45 * sizes[0][0]
    assert sizes[1][1] < 0.5 * sizes[0][1]


def test_the_same_bytes_twice(tvm_is_there: None, tmp_path: Path) -> None:
    model = network()
    feeds = {"x": photo()}
    graph = with_pairs(model, schemes.TVM, feeds)
    digests = {
        hashlib.sha256(build(graph, tmp_path / name)[1].entry.read_bytes()).hexdigest()
        for name in ("a", "another-folder")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("cpu", CPUS.values(), ids=CPUS)
@pytest.mark.parametrize("blocks", [1, 2, 3, 5, 8])
def test_a_tile_fits_the_registers(cpu: Any, blocks: int) -> None:
    lanes = max(1, cpu.vector_bytes // 4)
    for height in (1, 2, 7, 13, 56, 112, 160):
        rows, across = tile(height, blocks, lanes, cpu)
        assert blocks % across == 0
        assert 1 <= rows <= height
        assert rows * across + across < cpu.registers
        even, _ = tile(height, blocks, lanes, cpu, exact=True)
        assert height % even == 0 or not any(
            height % r == 0 for r in range(-(-even // 2), even + 1)
        )

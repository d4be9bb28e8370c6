"""The TVM back end: kernels by rule against ONNX Runtime, and the library they end up in."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from conftest import ROOT
from onnx import parser

from infc import building
from infc.diagnostics import InfcError
from infc.signature import TensorSpec
from infc.targets import BuildJob, RunJob, Target, configure, cross, look_up, tvm
from infc.targets.tvm_compiler import cpus
from infc.targets.tvm_compiler.cpus import CPUS, Cpu, UnknownCpuError
from infc.targets.tvm_compiler.scheduling.tiles import Tile, Work, tile_for

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
THREADS = (1, 3)
TOLERANCE = 3e-6
"""Of the largest answer: float32 sums of a few thousand terms, added up in another order."""


@pytest.fixture
def tvm_is_there(need_module: Callable[[str], None], need_tool: Callable[[str], str]) -> None:
    need_module("tvm")
    need_tool("cc")


def build(
    model: onnx.ModelProto,
    folder: Path,
    report: Callable[..., None] | None = None,
    **options: str,
) -> tuple[Path, RunJob]:
    """Lower, check and build `model`, as a worker does; the artifact and the job that opens it."""
    folder.mkdir(parents=True, exist_ok=True)
    target = Target("tvm", "tvm", "", options=options)
    lowered = ir.from_proto(model)
    tvm.legalize(lowered, target)
    ir.save(lowered, folder / "in.onnx")
    assert tvm.check(folder / "in.onnx", target) == []
    specs = [
        tuple(
            TensorSpec(
                v.name,
                onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type).name,
                tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim),
            )
            for v in values
        )
        for values in (model.graph.input, model.graph.output)
    ]
    output = folder / "model"
    output.mkdir()
    artifact = tvm.build(BuildJob(folder / "in.onnx", output, target, *specs, report=report))
    inputs, outputs = (tuple(s.name for s in side) for side in specs)
    return output / artifact.entry, RunJob(output / artifact.entry, target, outputs, inputs)


def feeds_of(model: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    out = {}
    for value in model.graph.input:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        out[value.name] = rng.standard_normal(shape).astype(np.float32)
    return out


def require_right(model: onnx.ModelProto, folder: Path, **options: str) -> Path:
    """Build `model` and hold it to ONNX Runtime's answers, on one thread and on several."""
    entry, job = build(model, folder, **options)
    feeds = feeds_of(model)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, feeds)
    for threads in THREADS:
        answers = tvm.open(replace(job, threads=threads))(feeds)
        for name, right in zip(job.outputs, expected, strict=True):
            most = max(1.0, float(np.abs(right).max()))
            np.testing.assert_allclose(answers[name], right, rtol=0, atol=TOLERANCE * most)
    return entry


def many_convolutions(cases: list[dict[str, Any]]) -> onnx.ModelProto:
    """A model with an input and a Conv, with what may follow one, for each of `cases`."""
    rng = np.random.default_rng(1)
    nodes, inputs, outputs, weights = [], [], [], []
    for i, case in enumerate(cases):
        spatial, channels, kernel = case["size"], case["channels"], case["kernel"]
        group = case.get("group", 1)
        w = rng.standard_normal((case["out"], channels // group, *kernel)).astype(np.float32)
        b = rng.standard_normal(case["out"]).astype(np.float32)
        weights += [
            onnx.numpy_helper.from_array(w, f"w{i}"),
            onnx.numpy_helper.from_array(b, f"b{i}"),
        ]
        attributes = {
            "kernel_shape": kernel,
            "group": group,
            **{k: case[k] for k in ("strides", "pads", "dilations", "auto_pad") if k in case},
        }
        nodes.append(
            onnx.helper.make_node("Conv", [f"x{i}", f"w{i}", f"b{i}"], [f"c{i}"], **attributes)
        )
        nodes.append(onnx.helper.make_node(case.get("then", "Relu"), [f"c{i}"], [f"y{i}"]))
        shape = [case.get("batch", 1), channels, *spatial]
        inputs.append(onnx.helper.make_tensor_value_info(f"x{i}", 1, shape))
        outputs.append(onnx.helper.make_tensor_value_info(f"y{i}", 1, None))
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    return onnx.shape_inference.infer_shapes(model)


CONVOLUTIONS = [
    {"size": [12, 12], "channels": 3, "out": 32, "kernel": [3, 3], "pads": [1, 1, 1, 1]},
    {"size": [13, 17], "channels": 5, "out": 7, "kernel": [3, 3], "strides": [2, 2]},
    {"size": [9, 9], "channels": 16, "out": 16, "kernel": [1, 1], "then": "Sigmoid"},
    {"size": [7, 7], "channels": 24, "out": 24, "kernel": [3, 3], "group": 24, "pads": [1] * 4},
    {"size": [8, 8], "channels": 12, "out": 24, "kernel": [3, 3], "group": 4, "pads": [2] * 4},
    {"size": [11, 5], "channels": 8, "out": 48, "kernel": [5, 3], "dilations": [2, 1]},
    {"size": [6, 6], "channels": 4, "out": 1, "kernel": [6, 6], "then": "Tanh"},
    {"size": [1, 1], "channels": 20, "out": 10, "kernel": [1, 1]},
    {"size": [10, 10], "channels": 6, "out": 12, "kernel": [2, 2], "auto_pad": "SAME_UPPER"},
    {"size": [10, 10], "channels": 6, "out": 12, "kernel": [2, 2], "auto_pad": "SAME_LOWER"},
    {"size": [31], "channels": 9, "out": 20, "kernel": [5], "strides": [3], "pads": [2, 1]},
    {"size": [5, 6, 7], "channels": 3, "out": 8, "kernel": [2, 3, 2], "pads": [1, 0, 1, 0, 1, 0]},
    {"size": [8, 8], "channels": 16, "out": 32, "kernel": [3, 3], "batch": 3, "pads": [1] * 4},
    {"size": [8, 8], "channels": 6, "out": 12, "kernel": [3, 3], "group": 6, "then": "Softplus"},
]


@pytest.mark.parametrize("cpu", ["host", "x86-64-v2"])
def test_convolutions(tvm_is_there: None, tmp_path: Path, cpu: str) -> None:
    require_right(many_convolutions(CONVOLUTIONS), tmp_path, cpu=cpu)


MIXED = """agraph (float[2, 4, 14, 10] x, float[3, 5, 33] s) => (
        float[2, 4, 7, 5] m, float[2, 4, 7, 5] a, float[2, 4, 1, 1] g, float[3, 5, 33] p,
        float[3, 5, 33] n, float[3, 5, 7] t, float[5, 3, 33] r, float[3, 5] z,
        float[2, 8, 14, 10] k) {
    m = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(x)
    a = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(x)
    g = GlobalAveragePool(x)
    p = Softmax<axis = -1>(s)
    mean = ReduceMean<axes = [-1]>(s)
    centred = Sub(s, mean)
    square = Mul(centred, centred)
    variance = ReduceMean<axes = [-1]>(square)
    deviation = Sqrt(variance)
    n = Div(centred, deviation)
    w = Constant<value = float[33, 7] {0.1}>()
    t = MatMul(s, w)
    r = Transpose<perm = [1, 0, 2]>(s)
    z = ReduceMax<axes = [-1], keepdims = 0>(s)
    k = Concat<axis = 1>(x, x)
}
"""


def test_pools_reductions_and_moves(tvm_is_there: None, tmp_path: Path) -> None:
    text = MIXED.replace("float[33, 7] {0.1}", "float[33, 7] {" + ", ".join(["0.1"] * 231) + "}")
    require_right(parser.parse_model(HEAD + text), tmp_path)


RECURRENT = """agraph (float[6, 2, 3] x) => (float[6, 1, 2, 4] y, float[1, 2, 4] h)
    <float[1, 16, 3] w, float[1, 16, 4] r> {
    y, h = LSTM<hidden_size = 4>(x, w, r)
}
"""


def test_recurrences_are_written_out(tvm_is_there: None, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    model = parser.parse_model(
        HEAD + RECURRENT.replace("<float[1, 16, 3] w, float[1, 16, 4] r> ", "")
    )
    for name, shape in (("w", (1, 16, 3)), ("r", (1, 16, 4))):
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    require_right(model, tmp_path)


ECHO = """agraph (float[4] x, float[4] z) => (
        float[4] same, float[4] twice, float[4] sum, float[2] c) {
    same = Identity(x)
    sum = Add(x, z)
    twice = Identity(sum)
    c = Constant<value = float[2] {1.5, -2.0}>()
}
"""


def test_outputs_that_are_inputs_constants_and_each_other(
    tvm_is_there: None, tmp_path: Path
) -> None:
    require_right(parser.parse_model(HEAD + ECHO), tmp_path)


def test_threads_end_with_the_model(tvm_is_there: None, tmp_path: Path) -> None:
    """One process may open many libraries, and let go of them."""
    _, job = build(small_model(), tmp_path)
    tasks = Path("/proc/self/task")
    runners = [tvm.open(replace(job, threads=3)) for _ in range(2)]
    before = {task.name for task in tasks.iterdir()}
    runners.append(tvm.open(replace(job, threads=3)))
    started = {task.name for task in tasks.iterdir()} - before
    assert len(started) == 2
    feeds = feeds_of(small_model())
    first, *rest = [run(feeds)["y"] for run in runners]
    assert all((first == answer).all() for answer in rest)
    runners.clear()
    # A thread that was joined is still listed for a moment.
    deadline = time.monotonic() + 60
    while started & {task.name for task in tasks.iterdir()}:
        assert time.monotonic() < deadline
        time.sleep(0.01)


SMALL = (
    HEAD
    + """agraph (float[1, 3, 9, 9] x) => (float[1, 8, 9, 9] y) <float[8, 3, 3, 3] w> {
    c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w)
    y = Relu(c)
}
"""
)


def small_model() -> onnx.ModelProto:
    model = parser.parse_model(SMALL.replace(" <float[8, 3, 3, 3] w>", ""))
    w = np.random.default_rng(3).standard_normal((8, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    return model


def test_the_same_bytes_twice(tvm_is_there: None, tmp_path: Path) -> None:
    digests = {
        hashlib.sha256(build(small_model(), tmp_path / name)[0].read_bytes()).hexdigest()
        for name in ("a", "another-folder")
    }
    assert len(digests) == 1


def test_a_build_tells_how_far_it_is(tvm_is_there: None, tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    lines: list[str] = []
    build(small_model(), tmp_path, report=lambda **values: told.append(values))
    tell = building.teller(lines.append, "building")
    for values in told:
        tell(values)
        tell(values)  # as the driver does that looks twice
    *scheduling, last = lines
    count = len(scheduling)
    assert scheduling == [f"building: scheduling kernels, {i} of {count}" for i in range(count)]
    assert last == f"building: compiling {count} kernels"


def test_the_library_needs_no_more_than_libc(
    tvm_is_there: None, tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    entry, _ = build(small_model(), tmp_path)
    readelf = need_tool("readelf")
    said = subprocess.run([readelf, "-dW", entry], capture_output=True, text=True, check=True)
    needed = {
        line.split("[")[1].rstrip("]") for line in said.stdout.splitlines() if "NEEDED" in line
    }
    assert needed <= {"libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2"}
    said = subprocess.run(
        [readelf, "--dyn-syms", "-W", entry], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in said.stdout.splitlines() if " GLOBAL " in line]
    given = {row[7] for row in rows if row[6] != "UND"}
    assert given and all(name.startswith("infc_model_") for name in given)


@pytest.mark.parametrize("threads", THREADS)
def test_a_c_program(
    tvm_is_there: None, tmp_path: Path, need_tool: Callable[[str], str], threads: int
) -> None:
    entry, _ = build(small_model(), tmp_path)
    program = tmp_path / "misuse"
    sources = [ROOT / "tests" / "targets" / "programs" / "tvm_misuse.c"]
    include = f"-I{ROOT / 'templates' / 'tvm'}"
    flags = ["-std=gnu99", "-Wall", "-Wextra", "-Werror", "-g", include]
    subprocess.run([need_tool("cc"), *flags, *sources, "-ldl", "-o", program], check=True)
    said = subprocess.run(
        [program, entry, str(threads)], capture_output=True, text=True, check=True, timeout=60
    )
    assert dict(line.rsplit(" ", 1) for line in said.stdout.splitlines()) == {
        "create": "0",
        "no third input": "-1",
        "run": "0",
        "again": "0",
        "allocated": "0",
        "same": "1",
        "too small": "2",
        "not aligned": "2",
        "place": "0",
        "run there": "0",
        "near": "1",
    }


def test_the_runtime_is_plain_c99(tmp_path: Path, need_tool: Callable[[str], str]) -> None:
    cc = need_tool("cc")
    folder = ROOT / "templates" / "tvm"
    flags = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2", f"-I{folder}", "-c"]
    for more in ([], ["-DINFC_NO_THREADS"], ["-DINFC_NO_THREADS", "-DINFC_NO_MALLOC"]):
        subprocess.run(
            [cc, *flags, *more, folder / "runtime.c", "-o", tmp_path / "r.o"], check=True
        )


def test_a_dimension_that_is_not_fixed(tvm_is_there: None, tmp_path: Path) -> None:
    text = "agraph (float[batch, 3] x) => (float[batch, 3] y) { y = Relu(x) }"
    with pytest.raises(InfcError, match="`batch` of `x` has to be fixed") as caught:
        build(parser.parse_model(HEAD + text), tmp_path, form="library")
    assert caught.value.diagnostics[0].code == "E207"
    help_ = "for example `--input x=1x3`, or keep it open with `-X form=vm`"
    assert caught.value.diagnostics[0].help == help_


def test_what_is_not_converted_is_named(tvm_is_there: None, tmp_path: Path) -> None:
    text = "agraph (float[4] x) => (int64[1, n] y) { y = NonZero(x) }"
    model = ir.from_proto(parser.parse_model(HEAD + text))
    model.graph.node(0).name = "which"
    ir.save(model, tmp_path / "m.onnx")
    (row,) = tvm.check(tmp_path / "m.onnx", Target("tvm", "tvm", ""))
    assert (row.node, row.op_type) == ("which", "NonZero")


def test_an_unknown_processor_is_refused_before_anything_is_read() -> None:
    with pytest.raises(InfcError, match="no such processor") as caught:
        configure(look_up("tvm"), None, {"cpu": "cortex-a72x"})
    assert caught.value.diagnostics[0].code == "E205"
    assert "did you mean `cortex-a72`" in caught.value.diagnostics[0].help
    with pytest.raises(InfcError, match="cores"):
        configure(look_up("tvm"), None, {"cores": "many"})


def test_a_missing_compiler(
    tvm_is_there: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cross, "zig_program", lambda: None)
    with pytest.raises(InfcError, match=r"a C compiler for \S+ was not found") as caught:
        build(small_model(), tmp_path)
    assert caught.value.diagnostics[0].code == "E501"


V3 = "avx avx2 bmi1 bmi2 f16c fma movbe cx16 popcnt sse4_1 sse4_2 ssse3"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    ("machine", "flags", "mcpu", "features", "vector_bytes"),
    [
        ("x86_64", f"{V4} avx512_vnni", "x86-64-v4", ("+avx512vnni",), 64),
        ("x86_64", V4, "x86-64-v4", (), 64),
        ("x86_64", f"{V4} avx512_vnni avx_vnni", "x86-64-v4", ("+avx512vnni",), 64),
        ("x86_64", V3, "x86-64-v3", (), 32),
        ("x86_64", f"{V3} avx_vnni", "x86-64-v3", ("+avxvnni",), 32),
        ("x86_64", f"{V3} avx512f", "x86-64-v3", (), 32),
        ("x86_64", "cx16 popcnt sse4_1 sse4_2 ssse3", "x86-64-v2", (), 16),
        ("x86_64", "sse2", "x86-64", (), 16),
        ("aarch64", "fp asimd asimddp", "generic", ("+dotprod",), 16),
    ],
)
def test_the_processor_of_a_machine(
    machine: str, flags: str, mcpu: str, features: tuple[str, ...], vector_bytes: int
) -> None:
    found = cpus.cpu_of(machine, flags.split(), 6)
    assert (found.mcpu, found.features, found.vector_bytes) == (mcpu, features, vector_bytes)
    assert found.cores == 6


def test_a_machine_of_another_kind() -> None:
    with pytest.raises(UnknownCpuError, match="s390x"):
        cpus.cpu_of("s390x", (), 1)


@pytest.mark.parametrize("cpu", CPUS.values(), ids=CPUS)
@pytest.mark.parametrize("columns", [1, 3, 8, 21, 24, 64, 100, 1000])
def test_a_tile_divides_the_columns_and_fits_the_registers(cpu: Cpu, columns: int) -> None:
    for rows in (1, 2, 7, 13, 56, 112, 113):
        tile = tile_for(Work(rows, columns), cpu)
        assert columns % tile.columns == 0
        assert 1 <= tile.rows <= rows
        vectors = -(-tile.columns * 4 // cpu.vector_bytes)
        assert tile.rows * vectors <= cpu.registers


def test_rows_are_not_wasted() -> None:
    cpu = CPUS["x86-64-v4"]
    assert tile_for(Work(56, 64), cpu) == Tile(7, 32)
    # 5 x 48 would compute 15 rows, and 2 x 48 wait for its sums.
    assert tile_for(Work(14, 96), cpu) == Tile(7, 32)
    assert tile_for(Work(5, 32), cpu) == Tile(5, 32)
    # Cropping 161 rows is cheap beside a long reduction alone.
    assert tile_for(Work(160, 32, 16, cropped=True), cpu) == Tile(5, 32)
    assert tile_for(Work(160, 32, 4608, cropped=True), cpu) == Tile(7, 32)

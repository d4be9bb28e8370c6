"""The TorchScript back end: what it builds, that it repeats itself, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from infc import driver
from infc.diagnostics import InfcError
from infc.request import Request
from infc.signature import TensorSpec, numpy_dtype
from infc.targets import BuildJob, RunJob, Target, configure, look_up, torchscript

pytestmark = pytest.mark.usefixtures("torch_is_there")


@pytest.fixture
def torch_is_there(need_module: Callable[[str], None]) -> None:
    need_module("torch")


def build(text: str, folder: Path, **options: str) -> tuple[Path, RunJob]:
    """Check and build the model in `text`; return the artifact and the job that opens it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = parser.parse_model(text)
    onnx.save(model, folder / "in.onnx")
    target = Target("torchscript", "torchscript", "", options=options)
    assert torchscript.check(folder / "in.onnx", target) == []
    specs = [
        tuple(TensorSpec(v.name, "float32", None) for v in values)
        for values in (model.graph.input, model.graph.output)
    ]
    artifact = torchscript.build(BuildJob(folder / "in.onnx", folder, target, *specs))
    entry = folder / artifact.entry
    inputs, outputs = (tuple(s.name for s in side) for side in specs)
    return entry, RunJob(entry, target, outputs, inputs)


HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
BRANCH = (
    HEAD
    + """main (float[n, m] x, bool c) => (float[k, j] y, int64 rows) {
    shape = Shape(x)
    zero = Constant<value_int = 0>()
    rows = Gather(shape, zero)
    y = If(c) <
        then_branch = t () => (float[a, b] u) { u = Transpose(x) },
        else_branch = e () => (float[a, b] v) { v = Concat<axis = 1>(x, x) }
    >
}"""
)
LOOP = (
    HEAD
    + """main (int64 trips, float[n] x) => (float[n] total, float[t, n] steps) {
    yes = Constant<value = bool {1}>()
    total, steps = Loop(trips, yes, x) <
        body = b (int64 i, bool going, float[n] a) => (bool on, float[n] next, float[n] scan) {
            on = Identity(going)
            j = CastLike(i, a)
            next = Add(a, j)
            scan = Mul(next, next)
        }
    >
}"""
)


def test_branches_and_shapes_stay_dynamic(tmp_path: Path) -> None:
    _, job = build(BRANCH, tmp_path)
    run = torchscript.open(job)
    for shape in ((2, 3), (5, 1)):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        for flag in (True, False):
            answer = run({"x": x, "c": np.array(flag)})
            assert np.array_equal(answer["y"], x.T if flag else np.concatenate([x, x], 1))
            assert (answer["rows"].dtype, answer["rows"].shape) == (np.dtype(np.int64), ())
            assert answer["rows"] == shape[0]


def test_loops_run_as_often_as_the_data_say(tmp_path: Path) -> None:
    _, job = build(LOOP, tmp_path)
    run = torchscript.open(job)
    x = np.array([1.0, -2.0], np.float32)
    for trips in (0, 1, 4):
        answer = run({"trips": np.array(trips), "x": x})
        sums = [x + sum(range(i + 1)) for i in range(trips)]
        assert np.array_equal(answer["total"], sums[-1] if sums else x)
        # Without any iteration nothing says how long a row is; ONNX Runtime has 0 there too.
        assert answer["steps"].shape == (trips, 2 if trips else 0)
        assert all(np.array_equal(a, b * b) for a, b in zip(answer["steps"], sums, strict=True))


@pytest.mark.parametrize(
    "dtype",
    ["float32", "float64", "float16", "bfloat16", "int8", "int32", "int64", "uint8", "bool"],
)
def test_every_element_type_crosses(dtype: str, tmp_path: Path) -> None:
    onnx_name = {"float32": "float", "float64": "double"}.get(dtype, dtype)
    model = f"{HEAD} main ({onnx_name}[n] x) => ({onnx_name}[m] y) {{ y = Concat<axis = 0>(x, x) }}"
    _, job = build(model, tmp_path)
    x = np.array([0, 1, 1], np.float32).astype(numpy_dtype(dtype))
    x.setflags(write=False)
    answer = torchscript.open(job)({"x": x})["y"]
    assert answer.dtype == x.dtype
    assert np.array_equal(answer, np.concatenate([x, x]))


def test_names_that_are_no_identifiers(tmp_path: Path) -> None:
    _, job = _renamed(tmp_path)
    feeds = {n: np.array([i], np.float32) for i, n in enumerate(job.inputs)}
    assert torchscript.open(job)(feeds)["1"] == sum(range(len(feeds)))


def _renamed(folder: Path) -> tuple[Path, RunJob]:
    names = ["a/b:0", "a_b_0", "self", "ints", "v1", "lambda", "torch", "0"]
    kind = onnx.helper.make_tensor_value_info
    inputs = [kind(n, onnx.TensorProto.FLOAT, [1]) for n in names]
    node = onnx.helper.make_node("Sum", names, ["1"])
    graph = onnx.helper.make_graph([node], "g", inputs, [kind("1", onnx.TensorProto.FLOAT, [1])])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "in.onnx")
    target = Target("torchscript", "torchscript", "")
    specs = tuple(TensorSpec(n, "float32", (1,)) for n in names)
    job = BuildJob(folder / "in.onnx", folder, target, specs, (TensorSpec("1", "float32", (1,)),))
    entry = folder / torchscript.build(job).entry
    return entry, RunJob(entry, target, ("1",), tuple(names))


BUILD = """
import sys
from pathlib import Path
from infc.targets import BuildJob, Target, torchscript
job = BuildJob(Path("in.onnx").resolve(), Path.cwd(), Target("t", "torchscript", ""), (), ())
torchscript.build(job)
"""


def test_builds_in_other_folders_and_processes_are_identical(tmp_path: Path) -> None:
    sums = set()
    for i, folder in enumerate((tmp_path / "here", tmp_path / "a longer path" / "there")):
        folder.mkdir(parents=True)
        onnx.save(parser.parse_model(BRANCH), folder / "in.onnx")
        environment = {"PYTHONHASHSEED": str(i), "PATH": ""}
        subprocess.run([sys.executable, "-c", BUILD], cwd=folder, check=True, env=environment)
        data = (folder / "model.pt").read_bytes()
        assert str(tmp_path).encode() not in data
        sums.add(hashlib.sha256(data).hexdigest())
    assert len(sums) == 1


def test_a_frozen_module_has_its_weights_in_the_graph(tmp_path: Path) -> None:
    model = (
        HEAD
        + """main (float[1, 1, h, w] x) => (float[1, 1, p, q] y)
        <float[1, 1, 1, 1] w = {2.0}, float[1] b = {1.0}> { y = Conv(x, w, b) }"""
    )
    frozen, job = build(model, tmp_path / "frozen")
    loose, _ = build(model, tmp_path / "loose", freeze="off")
    code = {
        entry: "".join(archive.read(n).decode() for n in archive.namelist() if n.endswith(".py"))
        for entry in (frozen, loose)
        for archive in [zipfile.ZipFile(entry)]
    }
    assert "CONSTANTS.c0" in code[frozen]
    assert "self.c0" in code[loose]
    x = np.ones((1, 1, 2, 2), np.float32)
    assert np.array_equal(torchscript.open(job)({"x": x})["y"], 2 * x + 1)


def test_optimizing_for_inference_changes_no_answer(tmp_path: Path) -> None:
    model = (
        HEAD
        + """main (float[n, 1, h, w] x) => (float[n, 1, p, q] y)
        <float[1, 1, 1, 1] w = {2.0}, float[1] b = {1.0}> { c = Conv(x, w, b) y = Relu(c) }"""
    )
    _, job = build(model, tmp_path, **{"optimize-for-inference": "on"})
    run = torchscript.open(job)
    for shape in ((1, 1, 2, 2), (3, 1, 4, 5)):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        np.testing.assert_allclose(run({"x": x})["y"], np.maximum(2 * x + 1, 0), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Lite Interpreter:DeprecationWarning")
def test_the_lite_interpreter_answers_alike(tmp_path: Path) -> None:
    from torch.jit.mobile import _load_for_lite_interpreter

    entry, job = build(BRANCH, tmp_path, mobile="on")
    assert entry.name == "model.ptl"
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = torchscript.open(job)({"x": x, "c": np.array(True)})["y"]
    module = _load_for_lite_interpreter(str(entry))
    y, _ = module(*(torchscript._tensor(a) for a in (x, np.array(True))))
    assert np.array_equal(y.numpy(), expected)


def test_nothing_warns_of_deprecation(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        _, job = build(BRANCH, tmp_path)
        torchscript.open(job)({"x": np.ones((1, 1), np.float32), "c": np.array(False)})


@pytest.mark.parametrize("option", list(torchscript.OPTIONS))
def test_a_bad_value_of_an_option_is_refused(option: str) -> None:
    with pytest.raises(InfcError, match=f"`-X {option}=maybe`: no such value") as caught:
        configure(look_up("torchscript"), None, {option: "maybe"})
    (diagnostic,) = caught.value.diagnostics
    values = "`auto`, `ir`, `direct`" if option == "path" else "`on`, `off`"
    assert (diagnostic.code, diagnostic.help) == ("E205", f"its values: {values}")


def test_every_unsupported_node_is_listed(tmp_path: Path) -> None:
    model = (
        HEAD
        + """main (float[2] x, bool c) => (float[2] y) {
        a = Bernoulli(x)
        b = If(c) <
            then_branch = t () => (float[2] u) { u = RandomNormalLike(a) },
            else_branch = e () => (float[2] v) { v = RandomUniformLike(x) }
        >
        y = Add(a, b)
    }"""
    )
    onnx.save(parser.parse_model(model), tmp_path / "random.onnx")
    request = Request(tmp_path / "random.onnx", ("torchscript",), tmp_path / "out", loaders=())
    (result,) = driver.compile(request).results
    assert result.bundle is None
    codes = [(d.code, d.where.split("(")[-1]) for d in result.diagnostics]
    assert codes == [
        ("E203", "Bernoulli-17)"),
        ("E203", "RandomNormalLike-17)"),
        ("E203", "RandomUniformLike-17)"),
    ]
    assert all("no TorchScript lowering" in d.notes[0] for d in result.diagnostics)


def test_libtorch_is_found_without_importing_torch() -> None:
    program = (
        "import sys, json\n"
        "from infc.targets import torchscript\n"
        "print(json.dumps([torchscript.LOADER.sdk(), "
        "[str(p) for p in torchscript.LOADER.library_path()], 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    entries, folders, imported = json.loads(done.stdout)
    assert (Path(entries["Torch_DIR"]) / "TorchConfig.cmake").is_file()
    assert any(f.name.startswith("libtorch") for folder in folders for f in Path(folder).iterdir())
    assert not imported


def test_a_missing_libtorch_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InfcError) as caught:
        torchscript.LOADER.sdk()
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E501"
    assert diagnostic.help == "pip install torch"


@pytest.mark.models
@pytest.mark.parametrize(
    "path", ["ultraface/version-RFB-320.onnx", "fastestdet/FastestDet.onnx", "dtln/model_1.onnx"]
)
def test_a_real_model_is_verified(path: str, models: Path, tmp_path: Path) -> None:
    (result,) = driver.compile(
        Request(models / path, ("torchscript",), tmp_path, loaders=())
    ).results
    assert result.bundle is not None, [d.render() for d in result.diagnostics]
    rows: list[dict[str, Any]] = result.verification["artifact"]["outputs"]
    assert all(row["sqnr_db"] is None or row["sqnr_db"] > 100 for row in rows)

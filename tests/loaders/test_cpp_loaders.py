"""The C and C++ loaders, compiled and run: answers, dtypes, shapes, and every way to fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnxruntime
import pytest
from conftest import ROOT

import infc
from infc import loaders
from infc.bundle import Bundle, open_bundle
from infc.diagnostics import InfcError
from infc.loaders import cpp, programs
from infc.loaders.compiling import BuildOptions
from infc.request import WorkerLimits
from infc.signature import load_tensors, save_tensors
from infc.targets import BACK_ENDS, back_end, look_up
from infc.workers.versions import versions

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
PROGRAMS = Path(__file__).parent / "programs"
LIMITS = WorkerLimits(timeout_s=400)
EVERY_WARNING = BuildOptions(warnings=True)

pytestmark = pytest.mark.xdist_group("cpp")

FINDER = """<ir_version: 8, opset_import: ["" : 17]>
finder (float[n, 4] x) => (int64[2, found] places, float[k] values)
{ y = Relu(x)  places = NonZero(y)  t = Transpose(places)  values = GatherND(y, t) }"""

GROWER = """<ir_version: 8, opset_import: ["" : 17]>
grower (float[n, 4] x, int64[n] places) => (float[twice, 4] y, int64[twice] again)
{ y = Concat<axis = 0>(x, x)  again = Concat<axis = 0>(places, places) }"""

SHARED_DIMS = """<ir_version: 8, opset_import: ["" : 17]>
shared (float[batch, length] x, int64[length] index, bool[batch, 1] mask, float scale)
=> (float[batch, length] y, int64[length, 1] column, bool[batch, 1] no, float total)
{
  a = Gather<axis = 1>(x, index)
  b = Mul(a, scale)
  y = Where(mask, b, x)
  one = Constant<value_ints = [1]>()
  column = Unsqueeze(index, one)
  no = Not(mask)
  total = ReduceSum<keepdims = 0>(y)
}"""

DTYPES = {
    # what the back end's CPU computes an Add or Not of
    "onnxruntime": ("float", "double", "float16", "int8", "int32", "int64", "uint8", "bool"),
    "openvino": ("float", "double", "float16", "int8", "int32", "int64", "uint8", "bool"),
    "torchscript": ("float", "double", "float16", "int8", "int32", "int64", "uint8", "bool"),
    "mindspore-lite": ("float", "int32", "int64", "bool"),
    "tensorrt": ("float", "float16", "int32", "int64", "bool"),
    "tensorrt-rtx": ("float", "float16", "int32", "int64", "bool"),
    "tvm": ("float", "double", "float16", "int8", "int32", "int64", "uint8", "bool"),
}
WITHOUT_NONZERO = ("mindspore-lite", "tvm")


@pytest.fixture(params=BACK_ENDS)
def end(request: pytest.FixtureRequest, need_running: Callable[[str], None]) -> str:
    """Each back end that is installed, and whose artifacts run here."""
    name = str(request.param)
    need_running(name)
    return name


@pytest.fixture(scope="session", autouse=True)
def tools(need_tool: Callable[[str], str]) -> None:
    for tool in ("cmake", "g++", "gcc"):
        need_tool(tool)


def make(model: Path, target: str, folder: Path, **options: Any) -> Bundle:
    result = infc.compile(
        model, target, folder, verify=options.pop("verify", False), loaders=["cpp"], **options
    )
    path = result.results[0].bundle
    assert path is not None
    return open_bundle(path)


def written(text: str, folder: Path, name: str) -> Path:
    path = folder / f"{name}.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def expected(model: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    """ONNX Runtime's answers with graph optimisation off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def run(command: list[object], status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def answers(
    bundle: Bundle, feeds: list[dict[str, Any]], scratch: Path, threads: int = 1
) -> list[dict[str, Any]]:
    """What the loader answers, in one process, the outputs read back."""
    program = cpp.build(bundle, scratch / "built", LIMITS, EVERY_WARNING)
    arguments = []
    for i, tensors in enumerate(feeds):
        save_tensors(scratch / f"in-{i}", tensors)
        arguments += ["--inputs", str(scratch / f"in-{i}")]
        arguments += ["--outputs", str(scratch / f"out-{i}")]
    cpp.run(program, bundle, ["--threads", str(threads), *arguments], LIMITS)
    return [load_tensors(scratch / f"out-{i}") for i in range(len(feeds))]


def check(
    model: Path, bundle: Bundle, feeds: list[dict[str, Any]], scratch: Path, threads: int = 1
) -> None:
    for given, got in zip(feeds, answers(bundle, feeds, scratch, threads), strict=True):
        want = expected(model, given)
        assert list(got) == list(want)
        for name, value in want.items():
            assert got[name].shape == value.shape, name
            assert got[name].dtype == value.dtype, name
            # another order of summation: 1e-5 of the peak at these sizes
            peak = float(np.abs(value.astype(np.float64)).max(initial=1.0))
            assert np.allclose(
                got[name].astype(np.float64), value.astype(np.float64), rtol=0, atol=1e-5 * peak
            ), name


def test_digits_at_several_batch_sizes(end: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    feeds = [{"image": rng.random((n, 1, 8, 8), dtype=np.float32)} for n in (1, 5, 2)]
    check(DIGITS, make(DIGITS, end, tmp_path), feeds, tmp_path)


def test_shapes_that_change_from_run_to_run_on_several_threads(end: str, tmp_path: Path) -> None:
    """MindSpore Lite 2.0.0 answered wrongly for the later ones."""
    rng = np.random.default_rng(0)
    sizes = (5, 3, 5, 2, 4, 5, 1, 8)
    feeds = [{"image": rng.random((n, 1, 8, 8), dtype=np.float32)} for n in sizes]
    check(DIGITS, make(DIGITS, end, tmp_path), feeds, tmp_path, threads=2)


def test_dimensions_of_several_inputs(end: str, tmp_path: Path) -> None:
    """Shared dimensions, integer and boolean tensors, a scalar in and out."""
    model = written(SHARED_DIMS, tmp_path, "shared")
    rng = np.random.default_rng(0)
    feeds = [
        {
            "x": rng.standard_normal((batch, length), dtype=np.float32),
            "index": rng.integers(0, length, length),
            "mask": rng.integers(0, 2, (batch, 1)).astype(np.bool_),
            "scale": np.asarray(1.5, np.float32),
        }
        for batch, length in ((2, 3), (1, 7))
    ]
    bundle = make(model, end, tmp_path)
    check(model, bundle, feeds, tmp_path)
    header = (bundle.path / "loader" / "cpp" / "shared.h").read_text()
    assert "int shared_run(shared_model* model, int64_t batch, int64_t length, const float* x," in (
        " ".join(header.split())
    )


def test_outputs_whose_size_is_computed(end: str, tmp_path: Path) -> None:
    model = written(GROWER, tmp_path, "grower")
    rng = np.random.default_rng(0)
    feeds = [
        {
            "x": rng.standard_normal((n, 4), dtype=np.float32),
            "places": rng.integers(-(2**31), 2**31 - 1, n),
        }
        for n in (2, 30, 3)
    ]
    check(model, make(model, end, tmp_path), feeds, tmp_path)


def test_outputs_that_only_the_run_tells(end: str, tmp_path: Path) -> None:
    model = written(FINDER, tmp_path, "finder")
    if end in WITHOUT_NONZERO:
        with pytest.raises(InfcError) as caught:
            make(model, end, tmp_path)
        assert {d.code for d in caught.value.diagnostics} == {"E203"}
        assert "`NonZero`" in caught.value.diagnostics[0].message
        return
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((n, 4), dtype=np.float32)} for n in (2, 30, 3)]
    feeds.append({"x": -np.ones((2, 4), np.float32)})
    bundle = make(model, end, tmp_path)
    check(model, bundle, feeds, tmp_path)
    done = run_c("capacity.c", bundle, tmp_path / "built" / "build", tmp_path)
    assert done.stdout.splitlines() == [
        "2 output `places` has 8 elements, and room for 3, needs 2 x 4",
        "0: 0 0 1 1 1 3 0 3 1 2 3 4",
        "1 no room was given for the shape of output `places`",
    ]


@pytest.mark.parametrize("name", BACK_ENDS)
def test_element_types(name: str, need_running: Callable[[str], None], tmp_path: Path) -> None:
    need_running(name)
    kinds = DTYPES[name]
    inputs = ", ".join(f"{k}[2, 3] x_{k}" for k in kinds)
    outputs = ", ".join(f"{k}[2, 3] y_{k}" for k in kinds)
    body = "\n".join(
        f"y_{k} = Not(x_{k})" if k == "bool" else f"y_{k} = Add(x_{k}, x_{k})" for k in kinds
    )
    text = f'<ir_version: 8, opset_import: ["" : 17]>\nm ({inputs}) => ({outputs}) {{\n{body}\n}}'
    model = written(text, tmp_path, "every_dtype")
    rng = np.random.default_rng(0)
    numpy_names = {"float": "float32", "double": "float64"}
    feeds = {
        f"x_{k}": rng.integers(0, 2 if k == "bool" else 50, (2, 3)).astype(numpy_names.get(k, k))
        for k in kinds
    }
    check(model, make(model, name, tmp_path), [feeds], tmp_path)


def run_c(
    name: str, bundle: Bundle, built: Path, scratch: Path, *arguments: object
) -> subprocess.CompletedProcess[str]:
    """Compile a C99 program over the loader's header, and run it on the bundle."""
    program = scratch / Path(name).stem
    library = bundle.name
    strict = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-D_POSIX_C_SOURCE=200809L"]
    links = ["-L", built, f"-l{library}", f"-Wl,-rpath,{built}", "-Wl,--allow-shlib-undefined"]
    include = ["-I", bundle.path / "loader" / "cpp"]
    run(["gcc", *strict, *include, PROGRAMS / name, "-o", program, *links])
    return run([program, bundle.path, *arguments])


def test_misuse_from_c(end: str, tmp_path: Path) -> None:
    """Each misuse is refused with a message, and the model still answers afterwards."""
    bundle = make(DIGITS, end, tmp_path, inputs={"image": "1..8x1x8x8"})
    program = cpp.build(bundle, tmp_path / "built", LIMITS, EVERY_WARNING)
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle.path, damaged)
    first = bundle.manifest["artifact"]["entry"]
    if end == "torchscript":
        with (damaged / first).open("ab") as stream:  # a zip file's end is looked for
            stream.write(b"\0")
    else:
        extra = {
            "onnxruntime": b"\x9a\x06\x00",
            "openvino": b"\n<!-- -->\n",
            "mindspore-lite": b"\0",
            "tensorrt": b"\0",
            "tensorrt-rtx": b"\0",
            "tvm": b"\0",
        }[end]
        (damaged / first).write_bytes((damaged / first).read_bytes() + extra)
    done = run_c("misuse.c", bundle, program.parent, tmp_path, damaged)
    lines = done.stdout.replace(str(tmp_path), "TMP").splitlines()
    told = dict(line.split(": ", 1) for line in lines if ": " in line)
    entry = Path(first).name
    assert lines[-1] == "version"
    assert told["shape"] == "-1 1 8 8, count of 3: 192"
    assert told["no path"] == told["empty path"] == "1 the path of the bundle is empty"
    assert told["no folder"] == "1 `/there/is/nothing` does not exist"
    assert told["another folder"] == (
        f"1 `/` holds no artifact of `digits`: there is neither `model/{entry}` nor `{entry}`"
    )
    assert told["damaged"].startswith(f"1 `TMP/damaged/model/{entry}` is damaged, or is not the ")
    assert told["damaged, unchecked"] == "0 "
    assert told["threads"] == "1 the number of threads is negative"
    assert told["device"].startswith("1 ")
    assert "TOASTER" in told["device"].upper()
    assert told["no place"].startswith("1 there is nowhere to put the model")
    assert told["a file"].endswith("manifest.json` is not a folder")
    assert told["no model"] == "1 the model is NULL"
    assert told["no input"] == "1 input `image` is NULL"
    assert told["no output"] == "1 output `logits` is NULL"
    for what, size in {"too many": 9, "none": 0, "negative": -1}.items():
        assert told[what] == f"1 dimension `batch` is {size}: it may be 1 to 8"
    assert told["build nowhere"] == "1 `/there/is/nothing` does not exist"
    for what in ("model folder", "build", "load", "run", "run again"):
        assert told[what] == "0 "


def test_runtime_that_is_too_old(end: str, tmp_path: Path) -> None:
    if end == "tvm":
        return  # The artifact itself says which tvm_ffi it is for: test_tvm_vm.py changes that.
    bundle = make(DIGITS, end, tmp_path)
    info = bundle.path / "loader" / "cpp" / "bundle_info.h"
    built = versions(back_end(end), look_up(end))[back_end(end).DISTRIBUTIONS[0]]
    major = int(built.partition(".")[0])
    info.write_text(info.read_text().replace(f'"{built}"', f'"{major}.999.0"'))
    program = cpp.build(bundle, tmp_path / "built", LIMITS, EVERY_WARNING)
    with pytest.raises(InfcError) as caught:
        cpp.run(program, bundle, ["--dim", "batch=1"], LIMITS)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E705"
    assert "the artifact of `digits` was built with " in diagnostic.notes[0]
    assert f" {major}.999.0, and this program runs {built.partition('+')[0]}" in diagnostic.notes[0]
    # Engines do not move between releases.
    later = "" if end.startswith("tensorrt") else " or "
    assert f"it needs {major}.999{later}" in diagnostic.notes[0]


def test_sanitizers_find_nothing(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Address, leak and undefined-behaviour sanitizers, over a run with each kind of output."""
    monkeypatch.setenv("TBB_ENABLE_SANITIZERS", "1")
    model = written(GROWER if end in WITHOUT_NONZERO else FINDER, tmp_path, "finder")
    bundle = make(model, end, tmp_path)
    sanitized = BuildOptions(sanitize="address,undefined", warnings=True)
    program = cpp.build(bundle, tmp_path / "built", LIMITS, sanitized)
    cpp.run(program, bundle, ["--dim", "n=3", "--threads", "1", "--runs", "5"], LIMITS)
    with pytest.raises(InfcError) as caught:
        cpp.run(program, bundle, ["--dim", "n=3", "--device", "TOASTER"], LIMITS)
    assert caught.value.diagnostics[0].code == "E705"
    assert "Sanitizer" not in caught.value.diagnostics[0].notes[0]
    # The leak checker itself works here: a program that leaks is found.
    leak = tmp_path / "leak.cpp"
    leak.write_text("int main() { volatile char* p = new char[64]; p = nullptr; return p != 0; }\n")
    run(["g++", "-fsanitize=address", leak, "-o", tmp_path / "leak"])
    done = subprocess.run([tmp_path / "leak"], capture_output=True, text=True, check=False)
    assert "LeakSanitizer" in done.stderr


def test_every_back_end_in_one_process(
    need_back_end: Callable[[str], None], tmp_path: Path
) -> None:
    """Nothing but the C interface leaves a loader's library, so that they do not meet."""
    # In the program's order; TVM's is a library where shapes are fixed, else for TVM's runtime.
    made = {
        "digits_onnxruntime": ("onnxruntime", {}),
        "digits_openvino": ("openvino", {}),
        "digits_torchscript": ("torchscript", {}),
        "digits_mindspore_lite": ("mindspore-lite", {}),
        "digits_tvm": ("tvm", {"image": "2x1x8x8"}),
        "digits_tvm_open": ("tvm", {}),
    }
    built, folders = {}, []
    for name, (end, inputs) in made.items():
        need_back_end(end)
        bundle = make(DIGITS, end, tmp_path, name=name, inputs=inputs)
        folders.append(bundle.path)
        built[name] = cpp.build(bundle, tmp_path / name, LIMITS, EVERY_WARNING).parent
        symbols = run(["nm", "-D", "--defined-only", built[name] / f"lib{name}.so"])
        exported = {line.split()[-1] for line in symbols.stdout.splitlines()}
        calls = ("build", "free", "last_error", "load", "run", "version")
        assert exported == {f"{name}_{call}" for call in calls}
    command: list[object] = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    for folder in folders:
        command += ["-I", folder / "loader" / "cpp"]
    command += [PROGRAMS / "together.cpp", "-o", tmp_path / "together", "-pthread"]
    for name, folder in built.items():
        command += ["-L", folder, f"-l{name}", f"-Wl,-rpath,{folder}"]
    run([*command, "-Wl,--allow-shlib-undefined"])
    done = run([tmp_path / "together", *folders])
    *rows, last = done.stdout.splitlines()
    pixels = (np.arange(128) % 17 / 16).astype(np.float32).reshape(2, 1, 8, 8)
    want = expected(DIGITS, {"image": pixels})["logits"].ravel()
    assert len(rows) == 8
    for row in rows:
        assert np.allclose([float(v) for v in row.split()], want, rtol=1e-4, atol=1e-4)
    assert last == "`image` has 63 elements, and must have 64"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make(DIGITS, "onnxruntime", tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def program(digits: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cpp.build(digits, tmp_path_factory.mktemp("built") / "b", LIMITS, EVERY_WARNING)


def test_main_prints_a_table(digits: Bundle, program: Path) -> None:
    text = run([program, digits.path, "--dim", "batch=2", "--runs", "4", "--warmup", "1"]).stdout
    assert text.startswith("digits: 4 runs, ms: min ")
    assert "  logits  float32  [2, 10]" in text
    assert run([program, "--version"]).stdout.startswith("digits, generated by infc")
    again = run([program, digits.path, "--dim", "batch=2", "--seed", "0"]).stdout
    assert again.splitlines()[1] == text.splitlines()[1]
    other = run([program, digits.path, "--dim", "batch=2", "--seed", "1"]).stdout
    assert other.splitlines()[1] != text.splitlines()[1]


def test_main_for_machines(digits: Bundle, program: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).standard_normal((3, 1, 8, 8), dtype=np.float32)
    save_tensors(tmp_path / "in", {"image": image})
    files = ["--inputs", tmp_path / "in", "--outputs", tmp_path / "out"]
    answer = json.loads(run([program, digits.path, "--threads", 1, "--json", *files]).stdout)
    logits = load_tensors(tmp_path / "out")["logits"]
    assert (answer["model"], answer["runs"], answer["threads"]) == ("digits", 1, 1)
    assert 0 < answer["min_ms"] <= answer["median_ms"] <= answer["max_ms"]
    (row,) = answer["outputs"]
    assert (row["name"], row["dtype"], row["shape"]) == ("logits", "float32", [3, 10])
    assert np.allclose(row["first"], logits.ravel()[:5], rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the bundle's folder is missing"),
        (["B", "--frob"], "there is no option --frob"),
        (["B", "--runs"], "--runs needs a value"),
        (["B", "--runs", "0"], "--runs must be at least 1"),
        (["B", "--runs", "1x"], "`1x` after --runs is not a number of that kind"),
        (["B", "C"], "`C` is one argument too many"),
        (["B", "--outputs", "D"], "--outputs comes after its --inputs"),
        (["B"], "dimension `batch` is not fixed: add --dim batch=N"),
        (["B", "--dim", "n=1"], "`n=1` after --dim is not NAME=N; the model's dynamic dimensions"),
    ],
)
def test_main_refuses(program: Path, arguments: list[str], message: str) -> None:
    done = run([program, *arguments], status=2)
    assert done.stderr.startswith(f"error: {message}")
    assert "usage: main BUNDLE [options]" in done.stderr


def test_inputs_that_do_not_fit(digits: Bundle, program: Path, tmp_path: Path) -> None:
    save_tensors(tmp_path / "in", {"image": np.zeros((3, 1, 8, 7), np.float32)})
    done = run([program, digits.path, "--inputs", tmp_path / "in"], status=1)
    assert "has shape [3, 1, 8, 7], which does not fit the model" in done.stderr
    save_tensors(tmp_path / "short", {"image": np.zeros((3, 1, 8, 8), np.float32)})
    (tmp_path / "short" / "0.bin").write_bytes(b"1234")
    done = run([program, digits.path, "--inputs", tmp_path / "short"], status=1)
    assert "0.bin` is missing or has the wrong size" in done.stderr
    done = run([program, digits.path, "--inputs", tmp_path / "none"], status=1)
    assert "tensors.json` cannot be read" in done.stderr


def test_missing_tools(digits: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diagnostic() -> tuple[str, str, str]:
        with pytest.raises(InfcError) as caught:
            cpp.build(digits, tmp_path / "b", LIMITS)
        (found,) = caught.value.diagnostics
        return found.code, found.message, found.help

    monkeypatch.setenv("CXX", "no-such-compiler")
    assert diagnostic() == (
        "E501",
        "the C++ compiler `no-such-compiler` (CXX) was not found",
        "apt install g++, or set CXX to a compiler for C++17",
    )
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert diagnostic() == ("E501", "`cmake` was not found", "apt install cmake")


def test_loader_that_does_not_compile(digits: Bundle, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(digits.path, broken)
    source = broken / "loader" / "cpp" / "digits.cpp"
    source.write_text(source.read_text() + "such_a_type x;\n")
    with pytest.raises(InfcError) as caught:
        cpp.build(Bundle(broken, digits.manifest), tmp_path / "b", LIMITS)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E703"
    assert "digits.cpp" in diagnostic.notes[0]
    assert "such_a_type" in diagnostic.notes[0]


def test_bundle_without_a_loader(digits: Bundle, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(InfcError) as caught:
        cpp.build(Bundle(bare, digits.manifest), tmp_path / "b", LIMITS)
    assert caught.value.diagnostics[0].code == "E702"
    with pytest.raises(InfcError) as caught:
        loaders.run_through(digits, "rust", [], [], tmp_path, LIMITS)
    assert caught.value.diagnostics[0].code == "E110"


def test_objects_are_compiled_once(
    digits: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layer under the typed one is the same for all models: its objects are kept."""
    monkeypatch.setenv("INFC_HOME", str(tmp_path / "home"))
    cpp.build(digits, tmp_path / "first", LIMITS)
    (kept,) = (tmp_path / "home" / "cache" / "objects").iterdir()
    assert sorted(p.name for p in kept.iterdir()) == [
        "adaptor.o",
        "harness.o",
        "runtime.o",
        "sha256.json",
        "sha256.o",
    ]
    cpp.build(digits, tmp_path / "second", LIMITS)
    assert not (tmp_path / "second" / "build" / "CMakeFiles" / "infc_adaptor.dir").exists()
    whole = (kept / "runtime.o").read_bytes()
    (kept / "runtime.o").write_bytes(whole[:100])  # as a full disk leaves it
    assert os.access(cpp.build(digits, tmp_path / "damaged", LIMITS), os.X_OK)
    assert (kept / "runtime.o").read_bytes() == whole
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").write_text("not a folder: nothing can be kept, and the build goes on")
    assert os.access(cpp.build(digits, tmp_path / "third", LIMITS), os.X_OK)


def test_program_that_does_not_end(digits: Bundle, program: Path) -> None:
    arguments = ["--dim", "batch=64", "--runs", "100000000"]
    with pytest.raises(InfcError) as caught:
        cpp.run(program, digits, arguments, WorkerLimits(timeout_s=1))
    assert caught.value.diagnostics[0].code == "E503"


def test_verify_and_bench_through_cpp(digits: Bundle, tmp_path: Path) -> None:
    with_proof = make(DIGITS, "onnxruntime", tmp_path, verify=True)
    result = infc.verify(with_proof.path, through="cpp")
    assert [(e.name, e.ok) for e in result.errors] == [("logits", True)]
    figures = infc.bench(digits.path, through="cpp", runs=3, warmup=1)
    assert figures["runs"] == 3
    assert 0 < figures["min_ms"] <= figures["median_ms"] <= figures["max_ms"]


def test_what_a_program_started_in_groups_of_their_own_ends_with_it(tmp_path: Path) -> None:
    """As ninja starts its compilers; like ninja, this ends them when it is asked to end."""
    text = (
        "import os, signal, subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '60'], process_group=0)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "def end(*_): child.kill(); child.wait(); os._exit(1)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(InfcError) as caught:
        programs.call([sys.executable, "-IS", "-c", text], WorkerLimits(timeout_s=5), "a program")
    assert caught.value.diagnostics[0].code == "E503"
    assert not Path("/proc", (tmp_path / "pid").read_text()).exists()

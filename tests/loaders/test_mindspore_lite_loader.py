"""What is MindSpore Lite's own in its loader: devices, files, element types, an archive."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import ROOT

import infc
from infc.bundle import Bundle, open_bundle
from infc.diagnostics import InfcError
from infc.loaders import cpp
from infc.loaders.compiling import BuildOptions
from infc.request import WorkerLimits
from infc.signature import load_tensors, save_tensors
from infc.targets import back_end

NAME = "mindspore-lite"
DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
LIMITS = WorkerLimits(timeout_s=300)

pytestmark = pytest.mark.xdist_group("cpp")

CALLS = Path(__file__).parent / "programs" / "call_digits.py"

Step = tuple[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def digits(
    need_back_end: Callable[[str], None],
    need_tool: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    need_back_end(NAME)
    for tool in ("cmake", "g++"):
        need_tool(tool)
    return compiled(DIGITS, tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def library(digits: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = cpp.build(digits, tmp_path_factory.mktemp("built") / "b", LIMITS)
    return program.with_name("libdigits.so")


def compiled(model: Path, folder: Path, **options: Any) -> Bundle:
    result = infc.compile(model, NAME, folder, loaders=["cpp"], **options)
    path = result.results[0].bundle
    assert path is not None
    return open_bundle(path)


def called(library: Path, bundle: Path, *steps: Step) -> tuple[list[Any], str]:
    """What each step said: the error, or the first two logits; and standard error."""
    command = [sys.executable, "-I", CALLS, library, bundle, json.dumps(steps)]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_devices(digits: Bundle, library: Path) -> None:
    """A device stands alone, unless the CPU is named behind it for what that cannot run."""
    steps: list[Step] = []
    for device in ("cpu", "GPU,CPU", "GPU", "NPU", "NPU,CPU", "ASCEND", "CPU,TOASTER"):
        steps += [("load", {"device": device}), ("run", {"batch": 1})]
    said, log = called(library, digits.path, *steps)
    answer = said[1]
    assert len(answer) == 2
    assert said[3] == answer
    for i, device in ((4, "GPU"), (6, "NPU"), (8, "NPU,CPU"), (10, "ASCEND")):
        beginning = f"MindSpore Lite: the model cannot be loaded on device `{device}`, its log on "
        assert said[i].startswith(beginning), said[i]
        assert said[i + 1] == "the model is NULL"
    assert said[12] == "MindSpore Lite has no device `TOASTER`: CPU, GPU, NPU or ASCEND"
    assert "NPU is not supported" in log


def test_nothing_is_logged_where_all_is_well(
    digits: Bundle, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime looks for libnuma, and warns where there is none; GLOG_v brings that back."""
    steps = [("load", {"threads": 2}), ("run", {"batch": 3}), ("run", {"batch": 2})]
    assert called(library, digits.path, *steps)[1] == ""
    monkeypatch.setenv("GLOG_v", "1")
    assert "[INFO]" in called(library, digits.path, *steps)[1]


def test_files_that_are_no_model(
    digits: Bundle, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the check of their hash."""
    monkeypatch.delenv("INFC_MODEL_KEY", raising=False)
    monkeypatch.delenv("INFC_MODEL_KEY_FILE", raising=False)
    whole = digits.entry.read_bytes()
    files = {
        "three bytes": whole[:3],
        "another flatbuffer": whole[:4] + b"ORTM" + whole[8:],
        "head": whole[:8],
        "half": whole[: len(whole) // 2],
        "encrypted": b"\xd8\x5e\x3a\x7f" + whole[8:],
    }
    steps: list[Step] = []
    for name, content in files.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / digits.entry.name).write_bytes(content)
        steps.append(("load", {"file": str(tmp_path / name)}))
    said, _ = called(library, digits.path, *steps)
    told = dict(zip(files, said, strict=True))
    for name in ("three bytes", "another flatbuffer"):
        assert told[name].endswith("/model.ms` is no MindSpore Lite model")
    for name in ("head", "half"):
        assert told[name].startswith("MindSpore Lite: the model cannot be loaded on device `CPU`, ")
    assert "is encrypted" in told["encrypted"]


def test_an_empty_file(digits: Bundle, library: Path, tmp_path: Path) -> None:
    (tmp_path / "model.ms").touch()
    said, _ = called(library, digits.path, ("load", {"file": str(tmp_path)}))
    assert said == [f"`{tmp_path / 'model.ms'}` cannot be read"]


def test_an_empty_input_is_refused(digits: Bundle, library: Path) -> None:
    """Kernels of the runtime divide by the number of elements."""
    steps = [("load", {}), ("run", {"batch": 0}), ("run", {"batch": 2})]
    said, _ = called(library, digits.path, *steps)
    assert said[1] == "input `image` is empty, which MindSpore Lite does not take"
    assert len(said[2]) == 2


def test_the_file_may_go_once_the_model_is_open(
    digits: Bundle, library: Path, tmp_path: Path
) -> None:
    """On several threads the model is loaded anew for other shapes: from memory."""
    copy = tmp_path / "model.ms"
    copy.write_bytes(digits.entry.read_bytes())
    said, _ = called(
        library,
        digits.path,
        ("load", {"file": str(tmp_path), "threads": 2}),
        ("run", {"batch": 5}),
        ("unlink", {"path": str(copy)}),
        ("run", {"batch": 2}),
    )
    assert said[3] == said[1]


def test_integers_beyond_32_bits_are_refused(digits: Bundle, tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    m (int64[3] x, int64[3] z) => (int64[3] y) { y = Add(x, z) }"""
    model = tmp_path / "wide.onnx"
    onnx.save(onnx.parser.parse_model(text), model)
    bundle = compiled(model, tmp_path)
    program = cpp.build(bundle, tmp_path / "built", LIMITS, BuildOptions(warnings=True))

    def add(x: list[int], z: list[int]) -> list[int]:
        given, answered = (Path(tempfile.mkdtemp(dir=tmp_path)) / "tensors" for _ in range(2))
        save_tensors(given, {"x": np.array(x), "z": np.array(z)})
        cpp.run(program, bundle, ["--inputs", str(given), "--outputs", str(answered)], LIMITS)
        got: list[int] = load_tensors(answered)["y"].tolist()
        return got

    low, high = -(2**31), 2**31 - 1
    assert add([1, low, high], [-2, 1, -1]) == [-1, low + 1, high - 1]
    with pytest.raises(InfcError) as caught:
        add([1, low, high + 1], [1, 1, 1])
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E705"
    expected = "input `x` holds 2147483648: MindSpore Lite computes in 32 bits"
    assert expected in diagnostic.notes[0]


def archive(folder: Path, need_tool: Callable[[str], str]) -> Path:
    """The layout of a vendor's archive, its runtime standing on the wheel's."""
    wheel = Path(back_end(NAME).LOADER.sdk()["MINDSPORE_LITE_ROOT"])
    runtime = folder / "mindspore-lite-2.0.0-linux-x64" / "runtime"
    (runtime / "lib").mkdir(parents=True)
    (runtime / "third_party" / "glog").mkdir(parents=True)
    (runtime / "include").symlink_to(wheel / "include")
    glog = "libmindspore_glog.so.0"
    (runtime / "third_party" / "glog" / glog).symlink_to(wheel / "lib" / glog)
    library = runtime / "lib" / "libmindspore-lite.so"
    empty = folder / "empty.cpp"
    empty.touch()
    names = ("mindspore_c*", "mslite_converter_plugin", "opencv_*", "mindspore_glog")
    found = [path for name in names for path in (wheel / "lib").glob(f"lib{name}.so*")]
    links = [f"-L{wheel / 'lib'}", *(f"-l:{path.name}" for path in sorted(found))]
    run_path = f"-Wl,--no-as-needed,--disable-new-dtags,-rpath,{wheel / 'lib'}"
    command = [need_tool("g++"), "-shared", empty, "-o", library, run_path, *links]
    name = "-Wl,-soname,libmindspore-lite.so"
    subprocess.run([str(word) for word in (*command, name)], check=True)
    return runtime.parent


@pytest.mark.parametrize("how", ["MSLITE_HOME", "MINDSPORE_LITE_ROOT"])
def test_a_vendor_archive(
    how: str,
    digits: Bundle,
    library: Path,
    need_tool: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other layout that sdk.cmake knows; infc finds it by the vendor's own variable."""
    root = archive(tmp_path, need_tool)
    if how == "MSLITE_HOME":
        monkeypatch.setenv("MSLITE_HOME", str(root))
        other = cpp.build(digits, tmp_path / "b", LIMITS).with_name("libdigits.so")
    else:
        loader = digits.path / "loader" / "cpp"
        configure = ["cmake", "-S", loader, "-B", tmp_path / "b", f"-DMINDSPORE_LITE_ROOT={root}"]
        for command in (configure, ["cmake", "--build", tmp_path / "b"]):
            subprocess.run([str(word) for word in command], check=True, capture_output=True)
        other = tmp_path / "b" / "libdigits.so"
    needed = subprocess.run(
        ["readelf", "-d", other], check=True, capture_output=True, text=True
    ).stdout
    assert "[libmindspore-lite.so]" in needed
    assert "libmindspore_converter" not in needed
    assert f"{root / 'runtime' / 'lib'}" in needed
    steps = [("load", {}), ("run", {"batch": 3})]
    assert called(other, digits.path, *steps) == called(library, digits.path, *steps)


def test_no_sdk(digits: Bundle, tmp_path: Path) -> None:
    loader = digits.path / "loader" / "cpp"
    command = ["cmake", "-S", loader, "-B", tmp_path / "b", f"-DMINDSPORE_LITE_ROOT={tmp_path}"]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "MindSpore Lite was not found: set MINDSPORE_LITE_ROOT" in done.stderr


def test_exactly_as_the_worker(digits: Bundle) -> None:
    """The loader and the worker run one library: the same bits."""
    result = infc.verify(digits.path, through="cpp")
    worker = infc.verify(digits.path)
    assert [e.max_abs_error for e in result.errors] == [e.max_abs_error for e in worker.errors]

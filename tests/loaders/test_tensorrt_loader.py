"""The loader of TensorRT: what it says without a GPU, and what can be done without one.

The headers are in no package. TENSORRT_ROOT names a folder of them, INFC_TENSORRT_HEADERS several,
of releases to compile against, with a colon between them. Where there are none the tests are
skipped, also under INFC_REQUIRE_ALL=1.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

import infc
from infc import loaders
from infc.bundle import Bundle, open_bundle, sha256_of
from infc.diagnostics import InfcError
from infc.loaders import cpp, java
from infc.loaders.compiling import BuildOptions
from infc.loaders.recipe import recipe_of
from infc.request import WorkerLimits
from infc.targets import Artifact, Target, tensorrt_builder, tensorrt_sdk
from infc.targets.tensorrt_spec import spec_of

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
PROGRAMS = Path(__file__).parent / "programs"
TEMPLATES = ROOT / "templates" / "cpp"
LIMITS = WorkerLimits(timeout_s=400)
NO_HEADERS = "missing: the C++ headers of TensorRT (TENSORRT_ROOT); no package has them"
NO_DRIVER = "there is no NVIDIA driver here: libcuda.so.1: cannot open shared object file"
STRICT = ("-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror")

pytestmark = pytest.mark.xdist_group("tensorrt")


def release_of(headers: Path) -> tuple[int, int]:
    """Of the headers in a folder, as NvInferVersion.h says it, by whichever names."""
    text = (headers / "NvInferVersion.h").read_text()
    found = dict(
        re.findall(r"#define (?:NV_TENSORRT|TRT)_(MAJOR|MINOR)(?:_ENTERPRISE)? (\d+)", text)
    )
    return int(found["MAJOR"]), int(found["MINOR"])


def header_folders() -> list[Path]:
    """Every folder of headers that there is on this machine to compile against."""
    listed = os.environ.get("INFC_TENSORRT_HEADERS", "")
    named = [Path(folder) for folder in listed.split(":") if folder]
    with contextlib.suppress(InfcError):
        named.append(Path(tensorrt_sdk.rtx_entries()["TENSORRT_INCLUDE_DIR"]))
    found = [f / "include" if (f / "include").is_dir() else f for f in named]
    return list(dict.fromkeys(f for f in found if (f / "NvInfer.h").is_file()))


def headers_of(major: int) -> Path:
    """The latest headers of a major version."""
    found = [f for f in header_folders() if release_of(f)[0] == major]
    if not found:
        pytest.skip(f"{NO_HEADERS}; these would be of {major}.x (INFC_TENSORRT_HEADERS)")
    return max(found, key=release_of)


@pytest.fixture(scope="module")
def eleven(need_back_end: Callable[[str], None]) -> Path:
    """Headers whose interface TensorRT for RTX 1.7 has."""
    need_back_end("tensorrt-rtx")
    return headers_of(11)


@pytest.fixture(scope="module")
def digits(
    eleven: Path, need_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    for tool in ("cmake", "g++"):
        need_tool(tool)
    folder = tmp_path_factory.mktemp("digits")
    result = infc.compile(DIGITS, "tensorrt-rtx", folder, verify=False)
    path = result.results[0].bundle
    assert path is not None
    return open_bundle(path)


@pytest.fixture(scope="module")
def program(digits: Bundle, eleven: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The loader's `main`, compiled without a warning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORRT_ROOT", str(eleven))
        patch.delenv("TENSORRT_RTX_ROOT", raising=False)
        scratch = tmp_path_factory.mktemp("built")
        return cpp.build(digits, scratch / "b", LIMITS, BuildOptions(warnings=True))


def deferred(digits: Bundle, folder: Path) -> tuple[Bundle, dict[str, Any]]:
    """A copy of the bundle without its engine, which its loader can build; and the spec."""
    shutil.copytree(digits.path, folder)
    shutil.rmtree(folder / "loader")
    (folder / "model" / "model.engine").unlink()
    shutil.copyfile(DIGITS, folder / "model" / "model.onnx")
    target = Target.from_json(digits.manifest["target"])
    spec = spec_of(target, digits.inputs, digits.outputs)
    graph, weights = "model/model.onnx", b"weights"
    (folder / f"{graph}.data").write_bytes(weights)
    loaders.render(
        folder,
        "digits",
        target,
        Artifact("model.engine", ("model.engine",)),
        digits.inputs,
        digits.outputs,
        ["cpp"],
        recipe_of(
            spec,
            graph,
            sha256_of(folder / graph),
            (f"{graph}.data", hashlib.sha256(weights).hexdigest()),
        ),
    )
    return Bundle(folder, digits.manifest), spec


def called(library: Path, bundle: Path, *steps: tuple[str, dict[str, Any]]) -> list[Any]:
    """What each step said: the error, or the first two logits."""
    command = [sys.executable, "-I", PROGRAMS / "call_digits.py", library, bundle]
    done = subprocess.run(
        [*map(str, command), json.dumps(steps)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def need_no_driver() -> None:
    """Skip what is about a machine without one."""
    import ctypes

    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return
    pytest.skip("there is an NVIDIA driver here: the other tests run the loader")


@pytest.mark.parametrize("headers", header_folders() or [None], ids=str)
def test_compiles_against(
    headers: Path | None, need_tool: Callable[[str], str], tmp_path: Path
) -> None:
    if headers is None:
        pytest.skip(NO_HEADERS)
    sources = tmp_path / "sources"
    shutil.copytree(TEMPLATES / "runtime", sources / "runtime")
    shutil.copytree(TEMPLATES / "adaptors" / "tensorrt", sources / "adaptor")
    cuda = tensorrt_sdk.rtx_entries()["CUDA_INCLUDE_DIR"]
    folders = ["-I", sources, "-isystem", headers, "-isystem", cuda]
    adaptor = TEMPLATES / "adaptors" / "tensorrt.cpp"
    command = [need_tool("g++"), *STRICT, *folders, "-fsyntax-only", adaptor]
    done = subprocess.run([str(w) for w in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_driver(digits: Bundle, program: Path) -> None:
    need_no_driver()
    with pytest.raises(InfcError) as caught:
        cpp.run(program, digits, ["--dim", "batch=1"], LIMITS)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E705"
    assert diagnostic.notes[0].startswith(f"error: {NO_DRIVER}")
    library = program.with_name("libdigits.so")
    said = called(library, digits.path, ("load", {}), ("run", {"batch": 1}), ("build", {}))
    assert said[0].startswith(NO_DRIVER)
    assert said[1] == "the model is NULL"
    assert said[2] == [0.0, 0.0], "the engine is there: there is nothing to build"


def test_no_driver_in_java(
    digits: Bundle, need_tool: Callable[[str], str], eleven: Path, tmp_path: Path
) -> None:
    need_no_driver()
    need_tool("javac")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORRT_ROOT", str(eleven))
        main = java.build(digits, tmp_path / "b", LIMITS)
    with pytest.raises(InfcError) as caught:
        java.run(main, digits, ["--dim", "batch=1"], LIMITS)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E705"
    assert diagnostic.notes[0].startswith(f"error: {NO_DRIVER}")


def test_version_is_that_of_the_library(program: Path) -> None:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert "for TensorRT for RTX 1.7" in done.stdout
    assert "running on 1.7" in done.stdout


def test_headers_of_another_release(
    digits: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Virtual tables differ between 10 and 11: what calls the wrong one crashes."""
    headers = headers_of(10)
    monkeypatch.setenv("TENSORRT_ROOT", str(headers))
    library = cpp.build(digits, tmp_path / "b", LIMITS).with_name("libdigits.so")
    major, minor = release_of(headers)
    (said,) = called(library, digits.path, ("load", {}))
    assert said.startswith(
        f"this loader was compiled with the headers of TensorRT {major}.{minor}, and "
        "libtensorrt_rtx.so.1 is TensorRT for RTX 1.7"
    )
    assert said.endswith("compile it with the headers of that release, or of TensorRT 11")


def test_library_that_is_not_there(digits: Bundle, eleven: Path, tmp_path: Path) -> None:
    """It is looked for when a model is loaded, under the name that fits the headers."""
    loader = digits.path / "loader" / "cpp"
    cuda = tensorrt_sdk.rtx_entries()["CUDA_INCLUDE_DIR"]
    given = [f"-DTENSORRT_INCLUDE_DIR={eleven}", f"-DCUDA_INCLUDE_DIR={cuda}"]
    for command in (
        ["cmake", "-S", loader, "-B", tmp_path / "b", *given],
        ["cmake", "--build", tmp_path / "b", "--target", "digits"],
    ):
        subprocess.run([str(w) for w in command], check=True, capture_output=True)
    (said,) = called(tmp_path / "b" / "libdigits.so", digits.path, ("load", {}))
    assert said.startswith("TensorRT cannot be loaded (its folder must be in the loader's run path")
    assert "libnvinfer.so.11" in said


def test_no_headers(digits: Bundle, tmp_path: Path) -> None:
    loader = digits.path / "loader" / "cpp"
    given = [f"-DTENSORRT_INCLUDE_DIR={tmp_path}/NOTFOUND", "-DCUDA_INCLUDE_DIR=/nowhere"]
    command = ["cmake", "-S", loader, "-B", tmp_path / "b", *given]
    done = subprocess.run([str(w) for w in command], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "CUDA was not found: set CUDA_INCLUDE_DIR" in done.stderr


def test_engine_is_built_by_the_loader(digits: Bundle, eleven: Path, tmp_path: Path) -> None:
    """The bytes of the Python builder, from the same spec; and what is not built again."""
    import tensorrt_rtx

    bundle, spec = deferred(digits, tmp_path / "digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORRT_ROOT", str(eleven))
        library = cpp.build(bundle, tmp_path / "b", LIMITS, BuildOptions(warnings=True))
    library = library.with_name("libdigits.so")
    graph, engine = bundle.path / "model" / "model.onnx", bundle.path / "model" / "model.engine"

    (said,) = called(library, bundle.path, ("load", {}))
    assert said == (
        "the artifact of `digits` is still to be built on this device: call digits_build, or run "
        "./finish in the bundle"
    )
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1] + b"\0")
    (said,) = called(library, bundle.path, ("build", {}))
    assert "is damaged, or is not what this loader of `digits` was generated for" in said
    graph.write_bytes(whole)
    weights = graph.with_name("model.onnx.data")
    weights.write_bytes(b"other")
    (said,) = called(library, bundle.path, ("build", {}))
    assert f"`{weights}` is damaged" in said
    weights.write_bytes(b"weights")

    said = called(library, bundle.path, ("build", {}))
    assert said == [[0.0, 0.0]]
    other = tmp_path / "other.engine"
    tensorrt_builder.build(tensorrt_rtx, spec, str(graph), str(other))
    assert engine.read_bytes() == other.read_bytes()
    assert not list(engine.parent.glob("*.partial"))

    digest = hashlib.sha256(engine.read_bytes()).hexdigest()
    assert (engine.parent / "model.engine.sha256").read_text() == f"{digest}  model.engine\n"
    before = engine.stat().st_mtime_ns
    assert called(library, bundle.path, ("build", {})) == [[0.0, 0.0]]
    assert engine.stat().st_mtime_ns == before
    engine.write_bytes(engine.read_bytes()[:-1] + b"\0")
    (said,) = called(library, bundle.path, ("load", {}))
    assert "model.engine` is damaged" in said


def test_graph_that_cannot_be_built(digits: Bundle, eleven: Path, tmp_path: Path) -> None:
    """TensorRT's own words, from the parser; nothing is left."""
    import onnx.parser

    bundle, spec = deferred(digits, tmp_path / "digits")
    graph = bundle.path / "model" / "model.onnx"
    text = """<ir_version: 8, opset_import: ["" : 17]>
    m (float[batch, 1, 8, 8] image) => (float[batch, 10] logits) { logits = Det(image) }"""
    onnx.save(onnx.parser.parse_model(text), graph)
    shutil.rmtree(bundle.path / "loader")
    loaders.render(
        bundle.path,
        "digits",
        Target.from_json(digits.manifest["target"]),
        Artifact("model.engine", ("model.engine",)),
        digits.inputs,
        digits.outputs,
        ["cpp"],
        recipe_of(spec, "model/model.onnx", sha256_of(graph)),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORRT_ROOT", str(eleven))
        library = cpp.build(bundle, tmp_path / "b", LIMITS).with_name("libdigits.so")
    (said,) = called(library, bundle.path, ("build", {}))
    assert said.startswith("TensorRT for RTX cannot read the graph: node 0 (Det): "), said
    assert not list((bundle.path / "model").glob("model.engine*"))


def test_profile_is_the_nearest_that_takes_the_shapes(
    eleven: Path, need_tool: Callable[[str], str], tmp_path: Path
) -> None:
    shutil.copytree(TEMPLATES / "runtime", tmp_path / "runtime")
    shutil.copytree(TEMPLATES / "adaptors" / "tensorrt", tmp_path / "adaptor")
    cuda = tensorrt_sdk.rtx_entries()["CUDA_INCLUDE_DIR"]
    command = [need_tool("g++"), *STRICT, "-I", tmp_path, "-isystem", eleven, "-isystem", cuda]
    command += [PROGRAMS / "profiles.cpp", "-o", tmp_path / "profiles"]
    subprocess.run([str(w) for w in command], check=True)
    done = subprocess.run([tmp_path / "profiles"], capture_output=True, text=True, check=True)
    chosen = dict(map(int, line.split()) for line in done.stdout.splitlines())
    taken = {32: 0, 64: 0, 127: 0, 128: 0, 150: 1, 224: 1, 256: 1, 512: 2}
    assert chosen == taken | {31: -1, 257: -1, 511: -1, 513: -1}


def test_recipe() -> None:
    """What the loader is told: constants, in the words of the builder's spec."""
    spec = {
        "inputs": [
            {
                "name": "x",
                "dtype": "float32",
                "shape": [-1, 3],
                "profiles": [[[1, 3], [2, 3], [4, 3]], [[8, 3], [8, 3], [8, 3]]],
            },
            {"name": "size", "dtype": "int64", "shape": [2], "values": [[[1, 1], [8, 8], [9, 9]]]},
            {"name": "fixed", "dtype": "float32", "shape": [1]},
        ],
        "outputs": [],
        "tf32": False,
        "version_compatible": True,
        "hardware_compatible": "ampere+",
        "workspace_bytes": 1 << 30,
        "dla_core": None,
    }
    recipe = recipe_of(spec, "model/model.onnx", "00")
    assert dict(recipe.settings) == {
        "tf32": "0",
        "version_compatible": "1",
        "hardware_compatible": "ampere+",
        "workspace_bytes": "1073741824",
    }
    assert recipe.profile_count == 2
    rows = [(r.input, r.profile, r.of_contents, r.count, r.high) for r in recipe.ranges]
    assert rows == [
        ("x", 0, 0, 2, "4, 3"),
        ("x", 1, 0, 2, "8, 3"),
        ("size", 0, 1, 2, "9, 9"),
    ]

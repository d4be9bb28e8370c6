"""Every name of the API that the engine builder touches is in the releases that it is for.

Full TensorRT cannot be installed here, but its Python bindings can: they are on PyPI, and import
once the libraries that they are linked with exist. Shared objects without contents stand in.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import missing
from tensorrt_contract import names

from infc.places import cache_folder
from infc.targets import tensorrt_builder

WHEELS = {
    "10.3": ("tensorrt_cu12_bindings==10.3.0", 10),
    "10.16": ("tensorrt_cu13_bindings==10.16.1.11", 10),
    "11.4": ("tensorrt_cu13_bindings==11.4.0.106", 11),
}
"""JetPack 6's release, the last of 10.x and the one of JetPack 7.2: the wheel, the libraries'."""
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
LOOK = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
missing = []
for name in json.load(sys.stdin):
    found = module
    for part in name.split("."):
        # What only a class in Python has is in no class of theirs, but in its documentation.
        documented = f"def {part}(self" in (getattr(found, "__doc__", None) or "")
        found = getattr(found, part, documented or missing)
    if found is missing:
        missing.append(name)
print(json.dumps(missing))
"""


def bindings(release: str) -> Path:
    """The folder of the unpacked wheel of `release`, downloaded once."""
    requirement, _ = WHEELS[release]
    folder = cache_folder() / "tests" / requirement.replace("==", "-")
    if not (folder / "tensorrt_bindings").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        wheel = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
        command = [*wheel, "-d", str(folder), requirement]
        done = subprocess.run(command, capture_output=True, check=False)
        wheels = list(folder.glob("*.whl"))
        if done.returncode or not wheels:
            missing(f"the wheel {requirement} (pip download)")
        with zipfile.ZipFile(wheels[0]) as archive:
            archive.extractall(folder)
    return folder


def stubs(major: int, compiler: str, folder: Path) -> Path:
    """Libraries that the bindings of a major version are linked with, empty."""
    folder.mkdir()
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in SYMBOLS))
    for library in LIBRARIES:
        name = f"lib{library}.so.{major}"
        link = [f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)]
        subprocess.run([compiler, "-shared", "-fPIC", *link], check=True)
    return folder


def lacking(module: str, wanted: list[str], environment: dict[str, str]) -> list[str]:
    """The names that the module does not have; it is imported in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, module],
        input=json.dumps(wanted),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def used_in(library: str) -> list[str]:
    """What the builder touches, but for what only others than `library` have."""
    foreign = {
        function
        for function, only in tensorrt_builder.ONLY_IN.items()
        if not any(library.startswith(name) for name in only)
    }
    return sorted({name for function, name in names() if function not in foreign})


@pytest.mark.parametrize("release", WHEELS)
def test_the_builder_uses_what_the_release_has(
    release: str, tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    wanted = used_in(f"tensorrt {release}")
    assert len(wanted) > 60
    libraries = stubs(WHEELS[release][1], need_tool("cc"), tmp_path / "stubs")
    environment = {"LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(bindings(release))}
    assert lacking("tensorrt_bindings", wanted, environment) == []
    # The check sees what is not there.
    assert lacking("tensorrt_bindings", ["Builder.no_such"], environment) == ["Builder.no_such"]
    members = [f"ProfilingVerbosity.{name}" for name in tensorrt_builder.PROFILING.values()]
    members += [f"DataType.{name}" for name in tensorrt_builder.DTYPES]
    if release != "10.3":  # whose lack of one of them is refused: `tensorrt.require_options`
        names_of = tensorrt_builder.HARDWARE.values()
        members += [f"HardwareCompatibilityLevel.{name}" for name in names_of]
    assert lacking("tensorrt_bindings", members, environment) == []


def test_the_builder_uses_what_tensorrt_for_rtx_has(need_module: Callable[[str], None]) -> None:
    need_module("tensorrt_rtx")
    assert lacking("tensorrt_rtx", used_in("tensorrt_rtx"), {}) == []


def test_what_only_some_releases_have_is_said_to_be_so(
    tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    libraries = stubs(11, need_tool("cc"), tmp_path / "stubs")
    environment = {"LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(bindings("11.4"))}
    everything = sorted({name for _, name in names()})
    found = lacking("tensorrt_bindings", everything, environment)
    assert "ComputeCapability" in found
    assert "BuilderFlag.FP16" in found


def test_the_builder_is_python_3_8_and_the_standard_library() -> None:
    source = Path(tensorrt_builder.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 8))
    imported = {
        name.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for name in node.names
    }
    imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert imported <= set(sys.stdlib_module_names)

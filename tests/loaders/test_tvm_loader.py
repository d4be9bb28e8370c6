"""TVM's library behind the C++ and Java loaders: shapes are fixed, and there is no runtime."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
from conftest import ROOT

import infc
from infc.bundle import Bundle, open_bundle
from infc.diagnostics import InfcError
from infc.loaders import cpp, java
from infc.loaders.compiling import BuildOptions
from infc.request import WorkerLimits
from infc.signature import load_tensors, save_tensors

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
LIMITS = WorkerLimits(timeout_s=400)
EVERY_WARNING = BuildOptions(warnings=True)
KINDS = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    **{name: name for name in ("int8", "int16", "int32", "int64")},
    **{name: name for name in ("uint8", "uint16", "uint32", "uint64", "bool")},
}

pytestmark = pytest.mark.xdist_group("cpp")


@pytest.fixture(scope="module", autouse=True)
def tools(need_tool: Callable[[str], str]) -> None:
    for tool in ("cmake", "g++", "gcc"):
        need_tool(tool)


@pytest.fixture(autouse=True)
def installed(need_back_end: Callable[[str], None]) -> None:
    need_back_end("tvm")


@pytest.fixture(scope="module")
def jdk(need_tool: Callable[[str], str]) -> Path:
    need_tool("javac")
    return java.find_jdk()


def make(model: Path, folder: Path, **options: Any) -> Bundle:
    result = infc.compile(model, "tvm", folder, **{"verify": False, **options})
    path = result.results[0].bundle
    assert path is not None
    return open_bundle(path)


def make_digits(folder: Path, **options: Any) -> Bundle:
    return make(DIGITS, folder, inputs={"image": "2x1x8x8"}, **{"loaders": ["cpp"], **options})


def answers(
    program: Path, bundle: Bundle, feeds: dict[str, Any], scratch: Path, threads: int
) -> dict[str, Any]:
    given = scratch / f"in-{threads}"
    save_tensors(given, feeds)
    places = ["--inputs", str(given), "--outputs", str(scratch / f"out-{threads}")]
    cpp.run(program, bundle, ["--threads", str(threads), *places], LIMITS)
    return dict(load_tensors(scratch / f"out-{threads}"))


def test_element_types(tmp_path: Path) -> None:
    inputs = ", ".join(f"{k}[2, 37] x_{k}" for k in KINDS)
    outputs = ", ".join(f"{k}[37, 2] y_{k}" for k in KINDS)
    body = "\n".join(f"y_{k} = Transpose(x_{k})" for k in KINDS)
    text = f'<ir_version: 8, opset_import: ["" : 17]>\nm ({inputs}) => ({outputs}) {{\n{body}\n}}'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "every_dtype.onnx")
    bundle = make(tmp_path / "every_dtype.onnx", tmp_path, loaders=["cpp"])
    program = cpp.build(bundle, tmp_path / "built", LIMITS, EVERY_WARNING)
    rng = np.random.default_rng(0)
    feeds = {
        f"x_{k}": rng.integers(0, 2 if k == "bool" else 100, (2, 37)).astype(name)
        for k, name in KINDS.items()
    }
    for threads in (1, 3):
        found = answers(program, bundle, feeds, tmp_path, threads)
        for k in KINDS:
            assert found[f"y_{k}"].dtype == feeds[f"x_{k}"].dtype
            np.testing.assert_array_equal(found[f"y_{k}"], feeds[f"x_{k}"].T)


def refusal(program: Path, bundle: Bundle, *arguments: str) -> str:
    """The note of the one diagnostic that a run ends with."""
    with pytest.raises(InfcError) as caught:
        cpp.run(program, bundle, list(arguments), LIMITS)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E705"
    assert "Sanitizer" not in diagnostic.notes[0]
    return diagnostic.notes[0]


def test_sanitizers_find_nothing_in_use_and_misuse(tmp_path: Path) -> None:
    bundle = make_digits(tmp_path)
    sanitized = BuildOptions(sanitize="address,undefined", warnings=True)
    program = cpp.build(bundle, tmp_path / "built", LIMITS, sanitized)
    cpp.run(program, bundle, ["--threads", "3", "--runs", "5"], LIMITS)
    assert "TOASTER" in refusal(program, bundle, "--device", "TOASTER").upper()
    entry = bundle.entry
    whole = entry.read_bytes()
    entry.write_bytes(whole + b"\0")
    assert "is damaged, or is not the " in refusal(program, bundle)
    entry.write_bytes(whole)
    cpp.run(program, bundle, ["--runs", "1"], LIMITS)


def test_a_library_with_another_interface(tmp_path: Path) -> None:
    """What takes the place of a runtime's version: the library's own number is asked."""
    bundle = make_digits(tmp_path)
    source = tmp_path / "other.c"
    source.write_text("int infc_model_abi(void) { return 999; }\n")
    before = sha256_of(bundle.entry)
    command = ["gcc", "-shared", "-fPIC", source, "-o", bundle.entry]
    subprocess.run(command, check=True, capture_output=True)
    info = bundle.path / "loader" / "cpp" / "bundle_info.h"
    info.write_text(info.read_text().replace(before, sha256_of(bundle.entry)))
    program = cpp.build(bundle, tmp_path / "built", LIMITS, EVERY_WARNING)
    assert "the model's library has interface 999, this loader takes " in refusal(program, bundle)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_digits_through_java(jdk: Path, tmp_path: Path) -> None:
    bundle = make_digits(tmp_path, loaders=["cpp", "java"], verify=True)
    result = infc.verify(bundle.path, through="java")
    assert [e.name for e in result.errors] == ["logits"]

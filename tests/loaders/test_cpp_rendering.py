"""The generated C and C++ files: as they are expected, and the same for every back end."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import infc
from infc import loaders
from infc.bundle import identifier
from infc.diagnostics import InfcError
from infc.loaders import rendering
from infc.loaders.signature import describe
from infc.signature import DTYPES, TensorSpec
from infc.targets import BACK_ENDS, Artifact, Target, onnxruntime
from infc.workers.versions import NOTE

BLESS = os.environ.get("INFC_BLESS") == "1"
GOLDEN = Path(__file__).parent / "golden-cpp"
GENERATED = ("{}.h", "{}.hpp", "{}.cpp", "bundle_info.h", "main.cpp", "CMakeLists.txt", "README.md")

Specs = tuple[list[TensorSpec], list[TensorSpec]]
STATIC: Specs = (
    [TensorSpec("input", "float32", (1, 3, 240, 320))],
    [TensorSpec("scores", "float32", (1, 4420, 2)), TensorSpec("boxes", "float32", (1, 4420, 4))],
)
DYNAMIC: Specs = (
    [
        TensorSpec("x:0", "float32", ("batch", 1, 8, "width"), {"batch": (1, 4, 8)}),
        TensorSpec("class", "bool", ("batch", None)),
        TensorSpec("scale", "float16", ()),
    ],
    [
        TensorSpec("y", "float32", ("batch", 10)),
        TensorSpec('odd "name" */ \\', "int64", (2, "found")),
        TensorSpec("anything", "bfloat16", None),
    ],
)
NO_INPUT: Specs = ([], [TensorSpec("constant", "float64", ())])


def render(
    folder: Path, name: str, specs: Specs, end: str = "onnxruntime", options: object = None
) -> Path:
    entry = {
        "onnxruntime": "model.onnx",
        "openvino": "model.xml",
        "torchscript": "model.pt",
        "mindspore-lite": "model.ms",
        "tensorrt-rtx": "model.engine",
        "tensorrt": "model.engine",
        "tvm": "model.vm.so",
    }[end]
    (folder / "model").mkdir(parents=True)
    (folder / "model" / entry).write_bytes(b"artifact")
    target = Target("any", end, "", options=options or {})  # type: ignore[arg-type]
    # What is built on the device brings the release that it is for; its library need not be here.
    notes = {NOTE: {"tensorrt": "10.3"}} if end == "tensorrt" else {}
    loaders.render(folder, name, target, Artifact(entry, (entry,), notes), *specs, ["cpp"])
    return folder / "loader" / "cpp"


@pytest.mark.parametrize(
    ("name", "specs", "options"),
    [
        ("face_finder", STATIC, {}),
        ("every_kind", DYNAMIC, {"graph-optimization": "basic"}),
        ("no_input", NO_INPUT, {}),
    ],
)
def test_generated_files(name: str, specs: Specs, options: dict[str, str], tmp_path: Path) -> None:
    folder = render(tmp_path, name, specs, options=options)
    for pattern in GENERATED:
        path = folder / pattern.format(name)
        text = path.read_text()
        assert f"enerated by infc {infc.__version__}" in text.partition("\n")[0]
        text = text.replace(infc.__version__, "VERSION")
        text = re.sub(r'"1\.\d+\.\d+"', '"RUNTIME"', text)
        text = re.sub(r"onnxruntime 1\.\d+\.\d+", "onnxruntime RUNTIME", text)
        golden = GOLDEN / name / f"{path.name}.golden"
        if BLESS:
            golden.parent.mkdir(parents=True, exist_ok=True)
            golden.write_text(text)
        assert golden.read_text() == text, f"{golden}: INFC_BLESS=1 rewrites it"
        for line in text.splitlines():
            assert line == line.rstrip()
            assert len(line) <= rendering.LINE_LENGTH, f"{path.name}: {line}"


def test_application_sees_no_back_end(need_back_end: Callable[[str], None], tmp_path: Path) -> None:
    """Swapping the target leaves the application's source unchanged: the headers are the same."""
    for end in BACK_ENDS:
        need_back_end(end)
        render(tmp_path / end, "every_kind", DYNAMIC, end)
    for file in ("every_kind.h", "every_kind.hpp", "every_kind.cpp", "main.cpp", "CMakeLists.txt"):
        texts = {(tmp_path / end / "loader" / "cpp" / file).read_bytes() for end in BACK_ENDS}
        assert len(texts) == 1, file


def test_odd_names_become_unique_identifiers() -> None:
    names = ["input.1", "input:1", "input_1", "x", "X", "x_shape", "class", "1", "é", "", "linux"]
    signature = describe(
        "m",
        [TensorSpec(n, "float32", (1,)) for n in names],
        [TensorSpec("x", "float32", ("free",)), TensorSpec("model", "float32", ("free",))],
    )
    got = [t.identifier for t in signature.tensors]
    assert got == [
        *("input_1", "input_1_2", "input_1_3", "x", "x_2", "x_shape_2", "class_2", "input_1_4"),
        *("input8", "input9", "linux_2", "x_3", "model_2"),
    ]
    again = describe("m", [TensorSpec(n, "float32", (1,)) for n in names], [])
    assert [t.identifier for t in again.inputs] == got[: len(names)]


def test_dimensions_are_shared_by_name_in_order_of_appearance() -> None:
    signature = describe(
        "m",
        [
            TensorSpec("a", "float32", ("n", None, 3)),
            TensorSpec("n", "float32", ("t", "n"), {"n": (1, 2, 4)}),
        ],
        [TensorSpec("y", "float32", ("t", 7, "n")), TensorSpec("z", "float32", ("2*n",))],
    )
    assert [(d.name, d.identifier) for d in signature.dims] == [
        ("n", "n_2"),
        ("a_dim1", "a_dim1"),
        ("t", "t"),
    ]
    known, unknown = signature.outputs
    assert known.shape == ("t", "7", "n_2")
    assert known.count_expression == "(size_t)t * (size_t)n_2 * 7"
    assert unknown.shape == ("-1",)
    assert not unknown.is_known


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (TensorSpec("x", "string", (1,)), "`x` holds elements of type `string`"),
        (TensorSpec("x", "float32", None), "the rank of input `x` is unknown"),
    ],
)
def test_signature_without_a_loader(spec: TensorSpec, message: str) -> None:
    with pytest.raises(InfcError) as caught:
        describe("m", [spec], [])
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.message) == ("E704", message)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("string", "m_string"),
        ("main", "m_main"),
        ("test", "m_test"),
        ("3d", "m_3d"),
        ("A-b", "a_b"),
    ],
)
def test_model_names_that_files_have_already(text: str, name: str) -> None:
    assert identifier(text) == name


def test_every_generated_signature_compiles(
    need_tool: Callable[[str], str], tmp_path: Path
) -> None:
    """C99 and C++17, pedantic, for signatures of every kind; hostile names included."""
    need_tool("g++")
    every_dtype: Specs = (
        [TensorSpec(f"in {d}", d, (2, "n")) for d in DTYPES],
        [TensorSpec(f"out {d}", d, (None if i % 2 else "n", 2)) for i, d in enumerate(DTYPES)],
    )
    hostile: Specs = (
        [
            TensorSpec(n, "float32", ("int", "run", "size"))
            for n in ("require", "status", "errno", "Model", "Span", "hostile", "a_b", "aB", "a.b")
        ],
        [TensorSpec(n, "float32", (None, "int")) for n in ("resize", "attempt", "r", "std", "T")],
    )
    cases = {
        "face_finder": STATIC, "every_kind": DYNAMIC, "no_input": NO_INPUT,
        "every_dtype": every_dtype, "hostile": hostile, "class": STATIC,
    }  # fmt: skip
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]
    for name, specs in cases.items():
        folder = render(tmp_path / name, name, specs)
        (folder / "use.c").write_text(f'#include "{name}.h"\nint unused;\n')
        sources = [str(folder / f"{name}.cpp"), str(folder / "main.cpp")]
        for command in (
            ["gcc", "-std=c99", "-pedantic", *strict, str(folder / "use.c")],
            ["g++", "-std=c++17", *strict, "-I", str(folder), *sources],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


def test_a_back_end_from_elsewhere_brings_its_own_adaptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    for place, text in {
        "cpp/adaptors/theirs.cpp": "// their adaptor",
        "cpp/adaptors/theirs/theirs.h": "// their header",
        "cmake/adaptors/theirs.cmake": "# their SDK",
    }.items():
        (own / place).parent.mkdir(parents=True, exist_ok=True)
        (own / place).write_text(text)
    spec = dataclasses.replace(onnxruntime.LOADER, adaptor="theirs", templates=own)
    monkeypatch.setattr(onnxruntime, "LOADER", spec)
    render(tmp_path / "bundle", "net", STATIC)
    loader = tmp_path / "bundle" / "loader" / "cpp"
    assert (loader / "adaptor.cpp").read_text() == "// their adaptor"
    assert (loader / "sdk.cmake").read_text() == "# their SDK"
    assert (loader / "adaptor" / "theirs.h").read_text() == "// their header"
    assert (loader / "runtime" / "runtime.cpp").exists()

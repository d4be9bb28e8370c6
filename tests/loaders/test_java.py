"""The Java loader: what is generated, that it compiles cleanly, answers right, and cannot crash."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from conftest import ROOT

import infc
from infc import loaders
from infc.bundle import Bundle, open_bundle
from infc.diagnostics import InfcError
from infc.loaders import cpp_layout, java, rendering, signature
from infc.loaders.compiling import BuildOptions
from infc.request import WorkerLimits
from infc.signature import DTYPES, TensorSpec, load_tensors, save_tensors
from infc.targets import BACK_ENDS

BLESS = os.environ.get("INFC_BLESS") == "1"
GOLDEN = Path(__file__).parent / "golden-java"
DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
LIMITS = WorkerLimits(timeout_s=300)
EVERY_WARNING = BuildOptions(warnings=True)

pytestmark = pytest.mark.xdist_group("java")

SIGNATURES = {
    "static": signature.describe(
        "face_finder",
        [TensorSpec("input", "float32", (1, 3, 240, 320))],
        [
            TensorSpec("scores", "float32", (1, 4420, 2)),
            TensorSpec("boxes", "float32", (1, 4420, 4)),
        ],
    ),
    "dynamic": signature.describe(
        "digits",
        [TensorSpec("image", "float32", ("batch", 1, 8, 8), {"batch": (1, 4, 8)})],
        [TensorSpec("logits", "float32", ("batch", 10))],
    ),
    "unknown": signature.describe(
        "finder",
        [TensorSpec("x.1", "int64", (None, 3)), TensorSpec("mask", "bool", ("n",))],
        [TensorSpec("found", "float32", ("n", None)), TensorSpec("rest", "uint8", None)],
    ),
}

HOSTILE = {
    # names that are keywords, collide in camel case, or are used by the generated code itself
    "string": signature.describe(
        "string",
        [
            TensorSpec("class", "float32", ("handle", "env")),
            TensorSpec("a_b", "float32", ("int",)),
            TensorSpec("aB", "float32", ("int",)),
            TensorSpec("a.b", "float32", ()),
            TensorSpec("env", "float32", (0, 2)),
        ],
        [TensorSpec('quote " \\u0041 \\ and é', "float32", ("env",)), TensorSpec("", "bool", None)],
    ),
    "every_dtype": signature.describe(
        "every_dtype",
        [TensorSpec(f"in_{dtype}", dtype, (2, "n")) for dtype in DTYPES],
        [TensorSpec(f"out_{dtype}", dtype, ("n", 2)) for dtype in DTYPES],
    ),
    "class": signature.describe(
        "class",
        [TensorSpec("huge", "float32", (1 << 20, 1 << 12))],
        [TensorSpec("path", "float32", (1,)), TensorSpec("json", "uint8", (None, None))],
    ),
}


@pytest.fixture(scope="module")
def jdk(need_tool: Callable[[str], str]) -> Path:
    for tool in ("javac", "cmake", "g++"):
        need_tool(tool)
    return java.find_jdk()


def compile_digits(folder: Path, target: str, **options: object) -> Bundle:
    result = infc.compile(DIGITS, target, folder, **options)  # type: ignore[arg-type]
    path = result.results[0].bundle
    assert path is not None
    return open_bundle(path)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Digits for ONNX Runtime with 1 to 8 images a batch."""
    folder = tmp_path_factory.mktemp("digits")
    return compile_digits(folder, "onnxruntime", inputs={"image": "1..8@4x1x8x8"})


@pytest.fixture(scope="module")
def built(bundle: Bundle, jdk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its Java loader, compiled with every warning an error."""
    return java.build(bundle, tmp_path_factory.mktemp("built") / "b", LIMITS, EVERY_WARNING)


@pytest.mark.parametrize("case", SIGNATURES)
def test_generated_code(case: str, tmp_path: Path) -> None:
    java.render(tmp_path / "java", SIGNATURES[case])
    for path in sorted((tmp_path / "java").iterdir()):
        if path.name == "Harness.java" or (path.suffix in (".md", ".txt") and case != "dynamic"):
            continue  # only names are filled in
        text = path.read_text().replace(infc.__version__, "VERSION")
        assert all(len(line) <= rendering.LINE_LENGTH for line in text.splitlines()), path.name
        golden = GOLDEN / case / f"{path.name}.golden"
        if BLESS:
            golden.parent.mkdir(parents=True, exist_ok=True)
            golden.write_text(text)
        assert golden.read_text() == text, f"{golden}: INFC_BLESS=1 rewrites it"


def test_generated_code_compiles_without_a_warning(jdk: Path, tmp_path: Path) -> None:
    sources = []
    cases = {**SIGNATURES, **HOSTILE}
    for s in cases.values():
        java.render(tmp_path / s.name, s)
        header = rendering.fill("cpp/name.h.j2", cpp_layout.layout(s))
        (tmp_path / s.name / f"{s.name}.h").write_text(header)
        sources += [str(p) for p in (tmp_path / s.name).glob("*.java")]
    strict = ["--release", "11", "-Xlint:all", "-Xdoclint:all,-missing", "-Werror"]
    headers, classes = tmp_path / "headers", tmp_path / "classes"
    run([jdk / "bin" / "javac", *strict, "-h", headers, "-d", classes, *sources])
    includes = [f"-I{folder}" for folder in (headers, jdk / "include", jdk / "include" / "linux")]
    for s in cases.values():
        glue = tmp_path / s.name / f"{s.name}_jni.cpp"
        flags = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
        run(["g++", *flags, "-fsyntax-only", *includes, glue])
    assert (classes / "infc" / "class_" / "Class.class").exists()
    assert (classes / "infc" / "string" / "StringModel.class").exists()


def run(command: list[object], status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("name", BACK_ENDS)
def test_answers_as_the_source_model(
    name: str, jdk: Path, need_running: Callable[[str], None], tmp_path: Path
) -> None:
    need_running(name)
    compiled = compile_digits(tmp_path, name)
    result = infc.verify(compiled.path, through="java")
    assert [e.name for e in result.errors] == ["logits"]


def test_same_class_for_every_back_end(
    need_module: Callable[[str], None], tmp_path: Path, bundle: Bundle
) -> None:
    """The application does not change with the target."""
    need_module("openvino")
    other = compile_digits(tmp_path, "openvino", inputs={"image": "1..8@4x1x8x8"})
    names = sorted(p.name for p in (bundle.path / "loader" / "java").iterdir())
    assert "Digits.java" in names
    for name in names:
        theirs = other.path / "loader" / "java" / name
        assert theirs.read_bytes() == (bundle.path / "loader" / "java" / name).read_bytes()


def test_misuse_is_refused(bundle: Bundle, built: Path, jdk: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle.path, damaged)
    artifact = damaged / bundle.manifest["artifact"]["entry"]
    content = bytearray(artifact.read_bytes())
    content[len(content) // 2] ^= 1
    artifact.write_bytes(content)
    jar = built / "digits.jar"
    source = Path(__file__).parent / "Misuse.java"
    run([jdk / "bin" / "javac", "-Xlint:all", "-Werror", "-cp", jar, "-d", tmp_path, source])
    library = built / "libdigits_jni.so"
    command = [jdk / "bin" / "java", "-Xcheck:jni", f"-Dinfc.digits.library={library}"]
    done = run([*command, "-cp", f"{jar}:{tmp_path}", "Misuse", bundle.path, damaged])
    assert done.stderr == ""
    sha256 = bundle.manifest["files"][bundle.manifest["artifact"]["entry"]]["sha256"]
    text = done.stdout.replace(str(tmp_path), "TMP").replace(sha256, "SHA256")
    golden = GOLDEN / "misuse.golden"
    if BLESS:
        golden.write_text(text)
    assert text == golden.read_text()


def test_library_that_is_not_there(bundle: Bundle, built: Path, jdk: Path) -> None:
    command = [jdk / "bin" / "java", "-jar", built / "digits.jar", bundle.path]
    done = run(command, status=1)
    assert "digits_jni" in done.stderr
    assert "Exception" not in done.stderr


def test_main_times_and_writes(bundle: Bundle, built: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).standard_normal((3, 1, 8, 8), dtype=np.float32)
    save_tensors(tmp_path / "in", {"image": image})
    start = java.command(built, bundle, ("-Xcheck:jni",))
    files = ["--inputs", tmp_path / "in", "--outputs", tmp_path / "out"]
    done = run([*start, bundle.path, "--threads", 1, "--json", *files])
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer["model"] == "digits"
    assert answer["runs"] == 1
    assert answer["threads"] == 1
    assert 0 < answer["min_ms"] <= answer["median_ms"] <= answer["max_ms"]
    logits = load_tensors(tmp_path / "out")["logits"]
    assert logits.shape == (3, 10)
    (row,) = answer["outputs"]
    assert row["shape"] == [3, 10]
    assert np.allclose(row["first"], logits.ravel()[:5], rtol=1e-6)

    text = run([*start, bundle.path, "--dim", "batch=2", "--runs", "4", "--warmup", "1"]).stdout
    assert text.startswith("digits: 4 runs, ms: min ")
    assert "logits  float32  [2, 10]" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the bundle's folder is missing"),
        (["B", "--frob", "1"], "there is no option --frob"),
        (["B", "--runs"], "--runs needs a value"),
        (["B", "--runs", "0"], "--runs must be at least 1"),
        (["B", "--runs", "x"], "`x` after --runs is not a number of that kind"),
        (["B", "C"], "`C` is one argument too many"),
        (["B", "--outputs", "D"], "--outputs comes after its --inputs"),
        (
            ["B", "--dim", "n=1"],
            "`n=1` after --dim is not NAME=N; the model's dynamic dimensions: ",
        ),
    ],
)
def test_main_refuses(bundle: Bundle, built: Path, arguments: list[str], message: str) -> None:
    done = run([*java.command(built, bundle), *arguments], status=2)
    assert done.stderr.startswith(f"error: {message}")
    assert "usage: Main BUNDLE [options]" in done.stderr


def test_inputs_that_do_not_fit(bundle: Bundle, built: Path, tmp_path: Path) -> None:
    save_tensors(tmp_path / "in", {"image": np.zeros((3, 1, 8, 7), np.float32)})
    command = [*java.command(built, bundle), bundle.path, "--inputs", tmp_path / "in"]
    done = run(command, status=1)
    assert "has shape [3, 1, 8, 7], which does not fit the model" in done.stderr


def test_outputs_that_only_the_run_tells(jdk: Path, tmp_path: Path) -> None:
    """NonZero: the room that Main has at first is none, so that it has to grow."""
    source = tmp_path / "finder.onnx"
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        finder (float[n, 4] x) => (int64[2, found] places, float[k] values)
        { y = Relu(x)  places = NonZero(y)  t = Transpose(places)  values = GatherND(y, t) }"""
    )
    onnx.save(model, source)
    infc.compile(source, "onnxruntime", tmp_path / "out")
    result = infc.verify(tmp_path / "out" / "finder-onnxruntime", through="java")
    assert {e.name: e.max_abs_error for e in result.errors} == {"places": 0.0, "values": 0.0}


def test_no_jdk(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(InfcError) as caught:
        java.build(bundle, tmp_path / "b", LIMITS)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E501"
    assert diagnostic.message == f"`{tmp_path}` (JAVA_HOME) is not a JDK: it has no bin/javac"
    assert diagnostic.help == java.JDK_HELP
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfcError) as caught:
        java.build(bundle, tmp_path / "b", LIMITS)
    assert caught.value.diagnostics[0].message == "no JDK was found: `javac` is not in PATH"


def test_java_that_does_not_compile(bundle: Bundle, jdk: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle.path, broken)
    source = broken / "loader" / "java" / "Digits.java"
    source.write_text(source.read_text().replace("AutoCloseable", "AutoCloseabel"))
    with pytest.raises(InfcError) as caught:
        java.build(Bundle(broken, bundle.manifest), tmp_path / "b", LIMITS)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E703"
    assert diagnostic.message == "the Java loader of `digits` does not compile"
    assert "cannot find symbol" in diagnostic.notes[0]


def test_no_java_loader(jdk: Path, tmp_path: Path) -> None:
    compiled = compile_digits(tmp_path, "onnxruntime", loaders=("cpp",), verify=False)
    with pytest.raises(InfcError) as caught:
        loaders.run_through(compiled, "java", [], [], tmp_path / "s", LIMITS)
    assert caught.value.diagnostics[0].code == "E702"
    assert not (compiled.path / "loader" / "java").exists()

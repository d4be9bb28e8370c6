"""Bad input through the command line: diagnostics, the right exit code, nothing left behind."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from command import SMALL, Done, infc, write_model
from conftest import ROOT, missing
from fuzzing import control_flow, run_case, small_cnn
from onnx import TensorProto, helper, numpy_helper

from infc import frontends
from infc.diagnostics import CODES, InfcError
from infc.frontends import guarded

node, info = helper.make_node, helper.make_tensor_value_info


def codes(done: Done) -> list[str]:
    """The codes of the errors that were printed."""
    return re.findall(r"^error\[(E\d+)\]: ", done.err, re.MULTILINE)


def check(done: Done, code: str, count: int = 1) -> None:
    """`count` errors of one code, its exit code, no result on stdout, and no traceback."""
    assert codes(done) == [code] * count, done.err
    assert done.status == CODES[code].exit_code
    assert done.out in ("", f"cpu  failed ({code})\n")
    assert "Traceback" not in done.err
    assert "\x1b" not in done.err


def in_process_of_its_own(*words: object) -> Done:
    """As a shell would start it."""
    command = [sys.executable, "-c", "from infc.cli import main; main()", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return Done(done.returncode, done.stdout, done.stderr)


# ---------------------------------------------------------------- the model file


def raw(data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "model.onnx"
        path.write_bytes(data)
        return path

    return make


def folder_of_models(folder: Path) -> Path:
    return write_model(folder / "in" / "a.onnx").parent


def archive(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "model.onnx", "w") as out:
        out.writestr("../../evil", "content")
    return folder / "model.onnx"


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "model.onnx")
    return folder / "model.onnx"


def graph(*nodes: onnx.NodeProto) -> Callable[[Path], Path]:
    """A model of `nodes` from `x` (float, 2x3) and `i` (int64, 3) to `y`, with a weight `w`."""
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    inputs = [info("x", TensorProto.FLOAT, [2, 3]), info("i", TensorProto.INT64, [3])]
    outputs = [info("y", TensorProto.FLOAT, None)]
    body = helper.make_graph(list(nodes), "main", inputs, outputs, [weight])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return raw(model.SerializeToString())


def external(location: str, offset: str = "0") -> Callable[[Path], Path]:
    """The weight of `x + w` at `location`; the folder holds one good file and several traps."""

    def make(folder: Path) -> Path:
        weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3])
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
        weight.external_data.add(key="offset", value=offset)
        values = [info(name, TensorProto.FLOAT, [2, 3]) for name in ("x", "y")]
        body = helper.make_graph(
            [node("Add", ["x", "w"], ["y"])], "main", values[:1], values[1:], [weight]
        )
        model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        home = folder / "home"
        home.mkdir()
        (home / "w.bin").write_bytes(bytes(12))
        (folder / "outside.bin").write_bytes(bytes(12))
        (home / "link").symlink_to(folder / "outside.bin")
        (home / "sub").symlink_to(folder)
        (home / "folder").mkdir()
        os.mkfifo(home / "fifo")
        (home / "device").symlink_to("/dev/zero")
        (home / "model.onnx").write_bytes(model.SerializeToString())
        return home / "model.onnx"

    return make


CYCLE = (
    node("Add", ["x", "b"], ["a"], "one"),
    node("Relu", ["a"], ["b"], "two"),
    node("Relu", ["b"], ["y"]),
)

BAD_MODELS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing file": (lambda folder: folder / "none.onnx", "E100"),
    "directory": (folder_of_models, "E100"),
    "fifo": (fifo, "E100"),
    "device": (lambda folder: Path("/dev/zero"), "E100"),
    "memory of a process": (lambda folder: Path("/proc/self/mem"), "E100"),
    "empty": (raw(b""), "E101"),
    "text": (raw(b"not a model\n"), "E101"),
    "png": (raw(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), "E101"),
    "elf": (raw(Path(sys.executable).read_bytes()[:4096]), "E101"),
    "zip": (archive, "E101"),
    "html": (raw(b"<!DOCTYPE html><html>404</html>"), "E101"),
    "git lfs pointer": (raw(b"version https://git-lfs.github.com/spec/v1\n"), "E101"),
    "noise": (raw(random.Random(0).randbytes(4096)), "E102"),
    "protobuf of something else": (raw(b"\x08\x08\x12\x04test"), "E102"),
    "cyclic graph": (graph(*CYCLE), "E104"),
    "undefined input": (graph(node("Add", ["x", "nothing"], ["y"])), "E104"),
    "missing initializer": (graph(node("Add", ["x", "weight"], ["y"])), "E104"),
    "type mismatch": (graph(node("Add", ["x", "i"], ["y"])), "E104"),
    "float where integers are due": (graph(node("Gather", ["x", "w"], ["y"])), "E104"),
    "external data missing": (external("none.bin"), "E103"),
    "external data above the folder": (external("../outside.bin"), "E103"),
    "external data at an absolute path": (external("/etc/passwd"), "E103"),
    "external data behind a link": (external("link"), "E103"),
    "external data behind a link in the middle": (external("sub/outside.bin"), "E103"),
    "external data too short": (external("w.bin", "4"), "E103"),
    "external data beyond the end": (external("w.bin", str(2**60)), "E103"),
    "external data at a negative offset": (external("w.bin", "-4"), "E103"),
    "external data in a folder": (external("folder"), "E103"),
    "external data in a fifo": (external("fifo"), "E103"),
    "external data in a device": (external("device"), "E103"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", BAD_MODELS)
def test_bad_model(what: str, tmp_path: Path) -> None:
    make, code = BAD_MODELS[what]
    (tmp_path / "in").mkdir()
    path = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for verb in ("compile", "optimize"):
        output = tmp_path / "out" / ("build" if verb == "compile" else "optimised.onnx")
        check(infc(verb, path, "-o", output), code)
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "what",
    ["missing file", "empty", "noise", "cyclic graph", "external data behind a link", "elf"],
)
def test_bad_model_from_a_shell(what: str, tmp_path: Path) -> None:
    make, code = BAD_MODELS[what]
    (tmp_path / "in").mkdir()
    path = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    check(in_process_of_its_own("compile", path, "-o", tmp_path / "out"), code)
    assert sorted(tmp_path.rglob("*")) == before


def test_model_that_may_not_be_read(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx")
    path.chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if os.geteuid() == 0 and folder != Path("/tmp"):
            folder.chmod(0o755)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read anything
    try:
        with pytest.raises(InfcError, match=r"E100.*Permission denied"):
            frontends.load(path)
    finally:
        os.seteuid(user)


def test_truncated_anywhere(tmp_path: Path) -> None:
    data = control_flow(tmp_path).SerializeToString()
    before = sorted(tmp_path.rglob("*"))
    path = tmp_path / "cut.onnx"
    for end in range(0, len(data), max(1, len(data) // 120)):
        path.write_bytes(data[:end])
        done = infc("compile", path, "-o", tmp_path / "out")
        found = codes(done)
        assert found, f"{end}: {done.out}"
        assert set(found) <= {"E101", "E102", "E104", "E105"}, f"{end}: {done.err}"
        assert len(found) == 1 or set(found) == {"E104"}, f"{end}: {done.err}"
        assert (done.status, done.out) == (1, "")
    path.unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_bits_flipped_anywhere(tmp_path: Path) -> None:
    """Some flips only change a weight: those models are as good as before."""
    data, rng = small_cnn().SerializeToString(), random.Random(1)
    path, output = tmp_path / "flipped.onnx", tmp_path / "out.onnx"
    outcomes = set()
    for _ in range(150):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        done = infc("optimize", path, "-o", output, "--no-verify")
        assert done.status in (0, 1), done.err
        assert "Traceback" not in done.err
        assert bool(codes(done)) == bool(done.status)
        assert output.exists() == (done.status == 0)
        output.unlink(missing_ok=True)
        outcomes.add(done.status)
    assert outcomes == {0, 1}
    assert [p.name for p in tmp_path.iterdir()] == ["flipped.onnx"]


def test_every_unsupported_operator_is_listed(tmp_path: Path) -> None:
    nodes = [node("Magic", ["x"], ["a"], "first", domain="my.ops")]
    nodes += [
        node("Relu", ["a"], ["b"], "fine"),
        node("Trick", ["b"], ["y"], "second", domain="my.ops"),
    ]
    path = graph(*nodes)(tmp_path)
    model = onnx.load(path)
    model.opset_import.add(domain="my.ops", version=1)
    model.graph.value_info.append(info("a", TensorProto.FLOAT, [2, 3]))
    onnx.save(model, path)
    for options in ([], ["--no-verify"]):
        done = infc("compile", path, "-o", tmp_path / "out", *options)
        check(done, "E203", 2)
        assert "model.onnx:main/first (Magic-1)" in done.err
        assert "model.onnx:main/second (Trick-1)" in done.err
        assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def constant(name: str, value: object, dtype: type = np.int64) -> TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


ONE = constant("k", [1], np.float32)
DOUBLINGS = [node("Concat", [f"d{i - 1}" if i else "k"] * 2, [f"d{i}"], axis=0) for i in range(60)]
BOMBS: dict[str, tuple[list[onnx.NodeProto], list[TensorProto]]] = {
    "ConstantOfShape": (
        [node("ConstantOfShape", ["s"], ["t"])], [constant("s", [10**5, 10**5])]
    ),
    "Expand": ([node("Expand", ["k", "s"], ["t"])], [ONE, constant("s", [2**20, 2**20])]),
    "Tile": ([node("Tile", ["k", "s"], ["t"])], [ONE, constant("s", [2**62])]),
    "Pad": ([node("Pad", ["k", "s"], ["t"])], [ONE, constant("s", [2**40, 2**40])]),
    "Range": (
        [node("Range", ["a", "b", "d"], ["l"]), node("Cast", ["l"], ["t"], to=TensorProto.FLOAT)],
        [constant("a", 0), constant("b", 2**33), constant("d", 1)],
    ),
    "OneHot": (
        [node("OneHot", ["i", "n", "v"], ["t"])],
        [constant("i", [1]), constant("n", 2**40), constant("v", [0, 1], np.float32)],
    ),
    "Einsum": (
        [node("Einsum", ["e", "e", "e"], ["t"], equation="a,b,c->abc")],
        [constant("e", np.ones(3000), np.float32)],
    ),
    "Resize": (
        [node("Resize", ["r", "", "f"], ["t"])],
        [constant("r", np.ones((1, 1, 4, 4)), np.float32),
         constant("f", [1, 1, 1e9, 1e9], np.float32)],
    ),
    "Concat of itself, 60 times": ([*DOUBLINGS, node("Identity", ["d59"], ["t"])], [ONE]),
}  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize("what", BOMBS)
def test_small_file_that_would_unfold_into_terabytes(what: str, tmp_path: Path) -> None:
    nodes, constants = BOMBS[what]
    nodes = [
        *nodes,
        node("ReduceSum", ["t"], ["sum"], keepdims=0),
        node("Add", ["x", "sum"], ["y"]),
    ]
    values = [info(name, TensorProto.FLOAT, [2, 3]) for name in ("x", "y")]
    body = helper.make_graph(nodes, "main", values[:1], values[1:], constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = raw(model.SerializeToString())(tmp_path)
    outcome, detail = json.loads(
        guarded.call(lambda: json.dumps(run_case(path)).encode(), 60, 4 << 30)
    )
    assert outcome in ("ok", "E104"), detail


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--target", "jetsn"], "E201"),
        (["--input", "imag=1x3x8x8"], "E106"),
        (["--input", "image=1x3x8"], "E106"),
        (["--input", "image=1x4x8x8"], "E106"),
        (["--input", "image"], "E110"),
        (["--input", "image=1x3x8x-8"], "E110"),
        (["--input", "image=8..1x3x8x8"], "E110"),
        (["--input", "image=" + "9" * 5000], "E110"),
        (["--input", "image=1x3x8x8", "--input", "image=2x3x8x8"], "E110"),
        (["--nonsense"], "E110"),
    ],
)
def test_bad_usage(words: list[str], code: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "small.onnx", SMALL)
    done = infc("compile", path, "-o", tmp_path / "out", *words)
    check(done, code)
    assert done.status == 2
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnx"]


# ---------------------------------------------------------------- the output folder


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`mounted("size=64k")` is a folder on a file system of its own."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(options: str) -> Path:
        if shutil.which("mount") is None or os.geteuid() != 0:
            missing("the permission to mount a file system")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            missing("the permission to mount a file system")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("place", ["under a file", "/proc/infc", "/dev/null/out"])
def test_output_that_cannot_be_made(place: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "small.onnx", SMALL)
    output = path / "out" if place == "under a file" else Path(place)
    check(infc("compile", path, "-o", output, "--no-verify"), "E701")
    check(infc("optimize", path, "-o", output / "o.onnx", "--no-verify"), "E701")
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnx"]


def test_output_on_a_read_only_file_system(tmp_path: Path, mounted: Callable[[str], Path]) -> None:
    path = write_model(tmp_path / "small.onnx", SMALL)
    folder = mounted("ro")
    for output in (folder, folder / "new"):
        check(infc("compile", path, "-o", output, "--no-verify"), "E701")


@pytest.mark.parametrize("kilobytes", [8, 32, 64])
def test_disk_full(kilobytes: int, tmp_path: Path, mounted: Callable[[str], Path]) -> None:
    path = write_model(tmp_path / "small.onnx", SMALL)
    folder = mounted(f"size={kilobytes}k")
    (folder / "mine").write_text("as it was")
    check(infc("compile", path, "-o", folder), "E701")
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("mine", "as it was")]


def test_an_older_bundle_survives_a_failure(tmp_path: Path) -> None:
    digits = ROOT / "examples" / "digits" / "digits.onnx"
    model = tmp_path / "m.onnx"
    shutil.copyfile(digits, model)
    words = ("compile", model, "-o", tmp_path / "out", "--no-verify")
    assert infc(*words).status == 0
    files = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    model.write_bytes(model.read_bytes()[:2000])
    check(infc(*words), "E102")
    assert files == {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}

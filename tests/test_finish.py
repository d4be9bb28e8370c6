"""Deferred bundles: compiled here, finished on the device. `tensorrt_rtx` stands in for `tensorrt`:

the same builder, no GPU and no driver. What it builds cannot be run here, and no test may come to
the state `ready`.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from command import Done, infc, write_model
from conftest import ROOT

import infc as api
from infc import deferral, report
from infc.bundle import open_bundle, sha256_of
from infc.device import completing, producing, requirements, trtexec
from infc.device.device_error import DeviceError
from infc.diagnostics import InfcError
from infc.verification import sets

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
STAND_IN = ("--stand-in", "tensorrt_rtx")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return infc("compile", DIGITS, "-t", "jetson", "-o", tmp_path_factory.mktemp("jetson"))


@pytest.fixture(scope="module")
def published(compiled: Done) -> Path:
    assert compiled.status == 0, compiled.err
    return Path(compiled.out.splitlines()[0].split()[1])


@pytest.fixture
def bundle(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "digits-jetson"))


@pytest.fixture
def library(need_module: Callable[[str], None]) -> None:
    need_module("tensorrt_rtx")


def finish(bundle: Path, *words: str, python: str = sys.executable) -> subprocess.CompletedProcess:
    """`./finish` as the device would run it: infc is not on its path."""
    environment = {**os.environ, "PYTHON": python}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [str(bundle / "finish"), *words],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        cwd="/",
        check=False,
    )


def manifest_of(bundle: Path) -> dict[str, Any]:
    return dict(open_bundle(bundle).manifest)


def engines(bundle: Path) -> list[str]:
    return [p.name for p in bundle.rglob("*.engine")]


# Compiling


def test_compile_says_where_the_engine_will_be_built_and_how(compiled: Done) -> None:
    lines = compiled.out.splitlines()
    assert lines[0].endswith("  deferred")
    text = "\n".join(lines)
    assert "to be built on the device, fp16: " in text
    assert "TensorRT 10.3 or a later 10.x and a GPU of sm87" in text
    assert "/finish" in text
    assert "--remote ssh://" in text
    assert compiled.err == ""


def test_a_deferred_bundle_has_everything_but_the_engine(published: Path) -> None:
    manifest = manifest_of(published)
    assert manifest["state"] == "deferred"
    assert engines(published) == []
    assert manifest["artifact"] == {
        "entry": "model/model.engine",
        "files": ["model/model.onnx"],
        "notes": {},
    }
    how = manifest["on_device"]
    assert how["requires"] == {"release": "10.3", "compute_capabilities": ["sm87"]}
    assert how["module"] == "tensorrt"
    assert how["held_to"] == {"logits": {"relative_error": 0.02, "sqnr_db": 40.0}}
    for name in ("model/model.onnx", "build_engine.py", "build.json", "finish", "BUILD.md"):
        assert manifest["files"][name]["sha256"] == sha256_of(published / name)
    assert (published / "reference" / "0" / "outputs" / "tensors.json").is_file()
    assert os.access(published / "finish", os.X_OK)
    graph = onnx.load(published / "model" / "model.onnx")
    types = {t.data_type for t in graph.graph.initializer}
    assert onnx.TensorProto.FLOAT16 in types


def test_the_builder_is_infcs_own(published: Path) -> None:
    own = ROOT / "targets" / "tensorrt_builder.py"
    assert (published / "build_engine.py").read_bytes() == own.read_bytes()


def test_the_graph_that_is_handed_over_is_proved(published: Path) -> None:
    proof = manifest_of(published)["verification"]
    assert proof["verdict"] == "deferred"
    assert proof["optimized"]["ok"]
    assert proof["graph"]["ok"]
    assert "artifact" not in proof


def test_the_same_inputs_give_the_same_bundle(published: Path, tmp_path: Path) -> None:
    done = infc("compile", DIGITS, "-t", "jetson", "-o", tmp_path, "-q")
    assert done.status == 0, done.err
    again = Path(done.out.strip())
    assert (again / "manifest.json").read_bytes() == (published / "manifest.json").read_bytes()


def test_trtexec_of_both_major_versions(published: Path) -> None:
    lines = manifest_of(published)["on_device"]["trtexec"]
    assert "--stronglyTyped" in lines["10"]
    assert "--stronglyTyped" not in lines["11"]
    for line in lines.values():
        assert line.startswith("trtexec --onnx=model/model.onnx --saveEngine=model/model.engine")
        assert "--fp16" not in line
        assert "--int8" not in line
        assert line in (published / "BUILD.md").read_text()


def test_no_deferred_is_an_error(tmp_path: Path) -> None:
    done = infc("compile", DIGITS, "-t", "jetson", "-o", tmp_path / "b", "--no-deferred")
    assert done.status == 4
    assert "error[E511]: the engine of `jetson` cannot be built here: " in done.err
    assert "--remote" in done.err
    assert not (tmp_path / "b").exists()
    with pytest.raises(InfcError) as caught:
        api.compile(DIGITS, "jetson", tmp_path / "b", deferred=False)
    assert [d.code for d in caught.value.diagnostics] == ["E511"]


def test_no_deferred_leaves_the_other_targets_alone(tmp_path: Path) -> None:
    words = ("-t", "jetson", "-t", "cpu", "--no-deferred", "-o", tmp_path)
    done = infc("compile", DIGITS, *words, "--json")
    assert done.status == 4
    rows = {row["target"]: row for row in done.document["results"]}
    assert rows["cpu"]["ok"]
    assert [d["code"] for d in rows["jetson"]["diagnostics"]] == ["E511"]


def test_remote_is_refused_where_nothing_is_built_elsewhere(tmp_path: Path) -> None:
    done = infc("compile", DIGITS, "-t", "cpu", "-o", tmp_path, "--remote", "ssh://orin")
    assert done.status == 2
    assert "error[E205]" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--remote", "orin"), "is not ssh://[USER@]HOST[:PORT]"),
        (("--stand-in", "tensorrt_rtx"), "says nothing without `--remote`"),
    ],
)
def test_what_makes_no_sense_is_known_before_the_model_is_read(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = infc("compile", tmp_path / "none.onnx", "-t", "jetson", "-o", tmp_path / "b", *words)
    assert done.status == 2
    assert "error[E110]" in done.err
    assert said in done.err


def test_without_proof_there_is_nothing_to_compare_with(tmp_path: Path, library: None) -> None:
    done = infc("compile", DIGITS, "-t", "jetson", "-o", tmp_path, "--no-verify", "-q")
    assert done.status == 0, done.err
    path = Path(done.out.strip())
    assert manifest_of(path)["verification"] == {"verdict": "skipped"}
    assert "compares its answers" not in (path / "BUILD.md").read_text()
    result = api.finish(path, stand_in="tensorrt_rtx")
    assert result.state == "built"  # the stand-in's engine is not the target's
    assert manifest_of(path)["verification"] == {"verdict": "skipped"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_other_precisions(precision: str, tmp_path: Path) -> None:
    words = ("-t", "jetson", "--precision", precision, "-o", tmp_path, "-q")
    done = infc("compile", DIGITS, *words)
    assert done.status == 0, done.err
    assert manifest_of(Path(done.out.strip()))["verification"]["graph"]["ok"]


def test_int8_is_in_the_graph(tmp_path: Path, library: None) -> None:
    words = ("--precision", "int8", "--calibration", "random", "--no-verify")
    done = infc("compile", DIGITS, "-t", "jetson", *words, "-o", tmp_path, "-q")
    assert done.status == 0, done.err
    path = Path(done.out.strip())
    operators = {n.op_type for n in onnx.load(path / "model" / "model.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    assert finish(path, *STAND_IN, "--skip-verify").returncode == 0


def test_ranges_become_the_builders_profiles_and_trtexecs(tmp_path: Path) -> None:
    words = ("--input", "image=2..8@4x1x8x8")
    done = infc("compile", DIGITS, "-t", "jetson", *words, "-o", tmp_path, "-q")
    assert done.status == 0, done.err
    path = Path(done.out.strip())
    spec = json.loads((path / "build.json").read_text())
    assert spec["inputs"][0]["profiles"] == [[[2, 1, 8, 8], [4, 1, 8, 8], [8, 1, 8, 8]]]
    line = manifest_of(path)["on_device"]["trtexec"]["10"]
    assert "--minShapes=image:2x1x8x8 --optShapes=image:4x1x8x8 --maxShapes=image:8x1x8x8" in line


def test_a_deferred_bundle_keeps_an_input_set_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one the engine could not be proved on the device."""
    monkeypatch.setattr(sets, "RECORDED_BYTES", 1)
    done = infc("compile", DIGITS, "-t", "jetson", "-t", "cpu", "-o", tmp_path, "-q")
    assert done.status == 0, done.err
    for line in done.out.split():
        kept = [p.name for p in Path(line).glob("reference/*")]
        assert kept == (["0"] if line.endswith("jetson") else [])


# What the other verbs say


@pytest.mark.parametrize(
    "words",
    [
        ("verify",),
        ("verify", "--through", "cpp"),
        ("bench",),
        ("debug-accuracy", "--source", DIGITS),
    ],
    ids=lambda words: " ".join(map(str, words[:2])),
)
def test_verbs_that_need_the_engine_say_what_to_do(published: Path, words: tuple) -> None:
    done = infc(words[0], published, *words[1:])
    assert done.status == 1
    assert "error[E707]" in done.err
    assert "./finish" in done.err
    assert f"infc finish {published} --remote" in done.err


def test_inspect_says_what_is_to_be_done(published: Path) -> None:
    done = infc("inspect", published)
    assert done.status == 0
    assert "deferred" in done.out
    assert f"{published}/finish" in done.out


def test_finish_has_nothing_to_do_for_other_bundles(tmp_path: Path) -> None:
    model = write_model(tmp_path / "small.onnx")
    path = Path(infc("compile", model, "-o", tmp_path / "b", "-q").out.strip())
    done = infc("finish", path)
    assert done.status == 2
    assert "there is nothing to finish" in done.err
    assert not (path / ".finish").exists()


# ./finish


def require_built(bundle: Path) -> None:
    """It is built, and nothing claims that it was verified."""
    manifest = manifest_of(bundle)
    assert manifest["state"] == "built"
    assert manifest["artifact"]["files"] == ["model/model.engine"]
    assert (
        manifest["toolchain"]["tensorrt_rtx"] == manifest["artifact"]["notes"]["built"]["version"]
    )
    proof = manifest["verification"]
    assert proof["verdict"] == "not verified"
    assert "built with tensorrt_rtx in place of tensorrt" in proof["reason"]
    assert "artifact" not in proof
    engine = bundle / "model" / "model.engine"
    digest = sha256_of(engine)
    assert manifest["files"]["model/model.engine"]["sha256"] == digest
    assert (bundle / "model" / "model.engine.sha256").read_text() == f"{digest}  model.engine\n"
    assert engine.read_bytes()[:4] == b"vtrt"
    assert not (bundle / ".finish").exists()


def test_finish_builds_and_does_not_claim_to_have_verified(bundle: Path, library: None) -> None:
    done = finish(bundle, *STAND_IN)
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("built: ")
    assert "the engine is built and not verified: built with tensorrt_rtx" in done.stderr
    assert "passed" not in done.stdout + done.stderr
    require_built(bundle)


def test_finish_with_skip_verify_is_content_with_that(bundle: Path, library: None) -> None:
    done = finish(bundle, *STAND_IN, "--skip-verify")
    assert done.returncode == 0
    assert "warning: " in done.stderr
    assert manifest_of(bundle)["state"] == "built"
    assert manifest_of(bundle)["verification"]["verdict"] == "not verified"


def test_a_bundle_that_is_built_is_not_built_again(bundle: Path, library: None) -> None:
    assert finish(bundle, *STAND_IN).returncode == 3
    before = (bundle / "model" / "model.engine").stat().st_ino
    done = finish(bundle, *STAND_IN)
    assert done.returncode == 3
    assert "the engine is there already" in done.stderr
    assert (bundle / "model" / "model.engine").stat().st_ino == before
    require_built(bundle)


def test_the_bundle_may_be_moved_and_its_path_be_odd(
    published: Path, tmp_path: Path, library: None
) -> None:
    odd = tmp_path / "a folder, with 'quotes' and $HOME"
    shutil.copytree(published, odd)
    assert finish(odd, *STAND_IN).returncode == 3
    require_built(odd)


def test_nothing_but_the_library_is_needed(bundle: Path, library: None, tmp_path: Path) -> None:
    """infc, numpy and onnx are kept from being imported."""
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(
        "import sys\n"
        "class Guard:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('infc', 'numpy', 'onnx', 'onnx_ir'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Guard())\n"
    )
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={guard} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done = finish(bundle, *STAND_IN, python=str(python))
    assert done.returncode == 3, done.stderr
    require_built(bundle)


def test_a_missing_library_is_said_and_nothing_is_changed(bundle: Path) -> None:
    done = finish(bundle)
    assert done.returncode == 4
    assert "Python's module `tensorrt` cannot be imported here" in done.stderr
    assert manifest_of(bundle)["state"] == "deferred"
    assert not (bundle / ".finish").exists()


def test_a_machine_without_python_is_told_so(bundle: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", str(bundle / "finish")],
        capture_output=True,
        text=True,
        env={"PATH": "/nonexistent"},
        check=False,
    )
    assert done.returncode != 0
    shim = {"PATH": f"{bundle}/tools", "PYTHON": "/nonexistent/python"}
    (bundle / "tools").mkdir()
    for name in ("dirname",):
        (bundle / "tools" / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        ["/bin/sh", str(bundle / "finish")], capture_output=True, text=True, env=shim, check=False
    )
    assert done.returncode == 4
    assert "there is no Python 3.8" in done.stderr


@pytest.mark.parametrize("name", ["model/model.onnx", "build.json", "finishing/producing.py"])
def test_a_damaged_file_is_named_before_anything_is_built(
    bundle: Path, name: str, library: None
) -> None:
    with (bundle / name).open("ab") as stream:
        stream.write(b"\n ")
    done = finish(bundle, *STAND_IN)
    assert done.returncode == 1
    assert f"{name} is missing or damaged" in done.stderr
    assert engines(bundle) == []
    if name == "model/model.onnx":
        done = infc("finish", bundle, *STAND_IN)
        assert done.status == 1
        assert "error[E702]" in done.err


def test_killed_in_the_middle_it_can_be_run_again(bundle: Path, library: None) -> None:
    process = subprocess.Popen(
        [str(bundle / "finish"), *STAND_IN],
        env={**os.environ, "PYTHON": sys.executable},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (bundle / ".finish" / "build.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert manifest_of(bundle)["state"] == "deferred"
    assert engines(bundle) == []
    assert finish(bundle, *STAND_IN).returncode == 3
    require_built(bundle)


def test_killed_while_completing_the_next_run_completes(
    bundle: Path, library: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision is the one rename: what comes after it is done by whoever comes next."""
    forward = completing.roll_forward

    class Killed(BaseException):
        pass

    def killed(folder: Path) -> None:
        if not (folder / ".finish" / "commit").is_dir():
            return forward(folder)
        # The engine is moved, the manifest is not.
        commit = folder / ".finish" / "commit" / "model" / "model.engine"
        commit.replace(folder / "model" / "model.engine")
        raise Killed

    with completing.held(bundle) as workshop:
        manifest = completing.read_manifest(bundle)
        order = producing.Order(bundle, manifest, workshop, "tensorrt_rtx")
        result = producing.produce(order, lambda line: None)
        monkeypatch.setattr(completing, "roll_forward", killed)
        with pytest.raises(Killed):
            completing.complete(bundle, manifest, result)
    monkeypatch.undo()
    assert manifest_of(bundle)["state"] == "deferred"
    done = finish(bundle, *STAND_IN)
    assert done.returncode == 3, done.stderr
    require_built(bundle)


def test_two_at_once_do_not_meet(bundle: Path) -> None:
    with completing.held(bundle):
        done = finish(bundle, *STAND_IN)
        assert done.returncode == 1
        assert "another process is finishing" in done.stderr
        done = infc("finish", bundle, *STAND_IN)
        assert done.status == 1
        assert "error[E701]" in done.err


def test_the_timing_cache_is_kept_for_the_next_build(bundle: Path, library: None) -> None:
    assert finish(bundle, *STAND_IN).returncode == 3
    assert (bundle / "timing.cache").stat().st_size > 0
    assert json.loads((bundle / "finished.json").read_text())["facts"]["timing_cache"] is False
    (bundle / "finished.json").unlink()
    assert finish(bundle, *STAND_IN).returncode == 3
    assert json.loads((bundle / "finished.json").read_text())["facts"]["timing_cache"] is True


def test_a_step_that_takes_too_long_is_ended(bundle: Path, library: None) -> None:
    done = finish(bundle, *STAND_IN, "--timeout", "0.05")
    assert done.returncode == 1
    assert "took more than 0.05 s" in done.stderr
    assert manifest_of(bundle)["state"] == "deferred"


def test_a_graph_that_the_library_refuses(bundle: Path, library: None) -> None:
    """The library's own message, and the bundle as it was."""
    model = onnx.load(bundle / "model" / "model.onnx")
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, bundle / "model" / "model.onnx")
    manifest = json.loads((bundle / "manifest.json").read_text())
    row = manifest["files"]["model/model.onnx"]
    row["sha256"] = sha256_of(bundle / "model" / "model.onnx")
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    done = finish(bundle, *STAND_IN)
    assert done.returncode == 1
    assert "NoSuchOperator" in done.stderr
    assert manifest_of(bundle)["state"] == "deferred"
    done = infc("finish", bundle, *STAND_IN)
    assert done.status == 1
    assert "error[E204]" in done.err


# What the device has to have


GPU = {"name": "Orin", "compute_capability": "sm87", "driver": "12.6"}


def order(bundle: Path) -> producing.Order:
    return producing.Order(bundle, completing.read_manifest(bundle), bundle / ".finish")


@pytest.mark.parametrize(
    ("version", "fine"),
    [
        ("10.3.0.30", True),
        ("10.16.1", True),
        ("10.2.9", False),
        ("8.6.1", False),
        ("11.4.0", False),
    ],
)
def test_the_release(bundle: Path, version: str, fine: bool) -> None:
    if fine:
        requirements.require_release(order(bundle), version)
        return
    with pytest.raises(DeviceError, match=r"the bundle is for 10\.3 or a later 10\.x") as caught:
        requirements.require_release(order(bundle), version)
    assert caught.value.exit_code == 4


def test_the_compute_capability(bundle: Path) -> None:
    requirements.require_gpu(order(bundle), GPU)
    with pytest.raises(DeviceError, match="sm110; the bundle is for sm87"):
        requirements.require_gpu(
            order(bundle), {**GPU, "name": "Thor", "compute_capability": "sm110"}
        )
    with pytest.raises(DeviceError, match="there is no GPU to build the engine on: no driver"):
        requirements.require_gpu(order(bundle), {"reason": "no driver"})


def test_a_wrong_release_and_a_missing_gpu_end_to_end(
    bundle: Path, library: None, tmp_path: Path
) -> None:
    """A module `tensorrt` that is the stand-in by another name, and says which release it is."""
    folder = tmp_path / "modules"
    folder.mkdir()
    for version, expected in (("8.6.1", "tensorrt is 8.6.1 here"), ("10.3.0", "there is no GPU")):
        text = f"from tensorrt_rtx import *\n__version__ = {version!r}\n"
        (folder / "tensorrt.py").write_text(text)
        python = tmp_path / "python3"
        python.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
        python.chmod(0o755)
        done = finish(bundle, python=str(python))
        assert done.returncode == 4
        assert expected in done.stderr
        assert manifest_of(bundle)["state"] == "deferred"


# trtexec

TRTEXEC = """\
#!{python}
# Takes trtexec's options, says its version as it does, and builds with the library that stands in.
import importlib.util, json, sys
number = 100300
print(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{{number}}] # trtexec", *sys.argv[1:], flush=True)
given = dict(word.partition("=")[::2] for word in sys.argv[1:])
if "--help" in given:
    sys.exit(0)
known = {known!r}
unknown = [word for word in given if word not in known]
if unknown:
    sys.exit("Unknown option: " + ", ".join(unknown))
import tensorrt_rtx
spec = importlib.util.spec_from_file_location("b", {builder!r})
builder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(builder)
row = {{"name": "image", "dtype": "float32", "shape": [-1, 1, 8, 8]}}
shapes = [given["--" + k + "Shapes"].partition(":")[2].split("x") for k in ("min", "opt", "max")]
row["profiles"] = [[[int(n) for n in shape] for shape in shapes]]
spec = {{"inputs": [row], "precision": "fp16", "compute_capabilities": []}}
builder.build(tensorrt_rtx, spec, given["--onnx"], given["--saveEngine"], None)
print("&&&& PASSED TensorRT.trtexec")
"""
OPTIONS_OF_TRTEXEC = (
    *("--onnx", "--saveEngine", "--stronglyTyped", "--minShapes", "--optShapes", "--maxShapes"),
    *("--timingCacheFile", "--noTF32", "--profilingVerbosity", "--skipInference", "--help"),
)


@pytest.fixture
def program(tmp_path: Path, library: None) -> str:
    path = tmp_path / "trtexec"
    builder = str(ROOT / "targets" / "tensorrt_builder.py")
    path.write_text(
        TRTEXEC.format(python=sys.executable, known=OPTIONS_OF_TRTEXEC, builder=builder)
    )
    path.chmod(0o755)
    return str(path)


def test_trtexec_builds_what_its_line_says(bundle: Path, program: str, tmp_path: Path) -> None:
    """The line in the manifest, with the paths of the workshop."""
    line = order(bundle).how["trtexec"]["10"]
    places = {
        "--onnx": str(bundle / "model" / "model.onnx"),
        "--saveEngine": str(tmp_path / "a plan"),
        "--timingCacheFile": str(tmp_path / "timing.cache"),
    }
    said: list[str] = []
    facts = trtexec.build(program, line, places, said.append, 60)
    assert facts["bytes"] == (tmp_path / "a plan").stat().st_size
    assert "&&&& PASSED TensorRT.trtexec" in said
    assert (tmp_path / "a plan").read_bytes()[:4] == b"vtrt"
    with pytest.raises(DeviceError, match="status 1") as caught:
        trtexec.build(program, line + " --no-such-option", places, said.append, 60)
    assert "Unknown option: --no-such-option" in caught.value.details


@pytest.mark.parametrize(
    ("number", "version"), [("100300", "10.3.0"), ("101601", "10.16.1"), ("8601", "8.6.1")]
)
def test_the_release_that_trtexec_says(program: str, number: str, version: str) -> None:
    path = Path(program)
    path.write_text(path.read_text().replace("number = 100300", f"number = {number}"))
    assert trtexec.version_of(program) == version


def test_without_python_module_trtexec_is_asked(
    bundle: Path, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as that goes without a GPU, which it does not build without either."""
    monkeypatch.setenv("PATH", f"{Path(program).parent}:{os.environ['PATH']}")
    done = finish(bundle)
    assert done.returncode == 4
    assert f"there is no Python module `tensorrt`: {program} builds" in done.stderr
    assert "there is no GPU to build the engine on" in done.stderr


# The verdict, where the engine can be run


FACTS = {"seconds": 1.0, "bytes": 4, "sha256": "0" * 64, "profiles": 1, "layers": 2}
ROW = {"name": "logits", "max_abs_error": 0.1, "relative_error": 0.01, "sqnr_db": 50.0, "ok": True}
RESULT = {
    "key": "k",
    "facts": FACTS,
    "library": {"module": "tensorrt", "version": "10.3.0"},
    "gpu": GPU,
    "verdict": "passed",
    "reason": "",
    "comparison": {"ok": True, "outputs": [ROW]},
    "latency": {"runs": 50, "min_ms": 1.0, "median_ms": 1.1, "max_ms": 1.2},
}


@pytest.mark.parametrize(
    ("changes", "state", "verdict"),
    [
        ({}, "ready", "passed"),
        ({"verdict": "not verified", "reason": "left out by the user"}, "built", "not verified"),
        ({"library": {"module": "tensorrt_rtx", "version": "1"}}, "built", "not verified"),
    ],
    ids=["passed", "left out", "stand-in"],
)
def test_the_state_that_a_result_leads_to(
    bundle: Path, changes: dict[str, Any], state: str, verdict: str
) -> None:
    """The manifest that is written fits its schema, whatever came of it."""
    with completing.held(bundle) as workshop:
        (workshop / producing.PLAN).write_bytes(b"plan")
        manifest = completing.read_manifest(bundle)
        assert completing.complete(bundle, manifest, {**RESULT, **changes}) == state
    found = manifest_of(bundle)
    assert found["state"] == state
    assert found["verification"]["verdict"] == verdict
    if state == "ready":
        assert found["verification"]["artifact"] == RESULT["comparison"]
        assert finish(bundle).stdout.endswith("is finished already\n")
        assert infc("finish", bundle).status == 0


def test_an_engine_that_answers_wrongly_is_not_taken(bundle: Path) -> None:
    """`Order.sets` and the comparison with the answers of an engine, but for the engine."""
    own = order(bundle)
    pairs = [
        (producing.read_tensors(outputs), producing.read_tensors(outputs))
        for _, outputs in own.sets()
    ]
    from infc.device.comparing import compare

    assert compare(pairs, own.how["held_to"])["ok"]
    wrong = [(r, {k: (d, s, bytes(len(b))) for k, (d, s, b) in a.items()}) for r, a in pairs]
    assert not compare(wrong, own.how["held_to"])["ok"]


# infc finish


def test_infc_finish_does_the_same_in_a_worker(bundle: Path, library: None) -> None:
    done = infc("finish", bundle, *STAND_IN, "--json")
    assert done.status == 3
    assert done.document["state"] == "built"
    assert done.document["machine"] == ""
    assert [d["code"] for d in done.document["diagnostics"]] == ["E608"]
    require_built(bundle)
    text = (bundle / "report.html").read_text()
    assert "not verified" in text
    assert (
        sha256_of(bundle / "report.html") == manifest_of(bundle)["files"]["report.html"]["sha256"]
    )


def test_infc_finish_with_skip_verify_warns(bundle: Path, library: None) -> None:
    done = infc("finish", bundle, *STAND_IN, "--skip-verify")
    assert done.status == 0
    assert "warning[E608]" in done.err
    assert "built" in done.out


def test_infc_finish_without_the_library(bundle: Path) -> None:
    done = infc("finish", bundle)
    assert done.status == 4
    assert "error[E514]: Python's module `tensorrt` cannot be imported here" in done.err


def test_a_finished_bundle_is_compiled_over(bundle: Path, library: None, tmp_path: Path) -> None:
    """What infc published before may be replaced, also with the workshop in it."""
    assert finish(bundle, *STAND_IN).returncode == 3
    done = infc("compile", DIGITS, "-t", "jetson", "-o", bundle.parent, "-q")
    assert done.status == 0, done.err
    assert manifest_of(bundle)["state"] == "deferred"


def test_the_histograms_of_a_calibration_stay_in_the_report(tmp_path: Path, library: None) -> None:
    words = ("--precision", "int8", "--calibration", "random", "--no-verify", "-o", tmp_path, "-q")
    done = infc("compile", DIGITS, "-t", "jetson", *words)
    assert done.status == 0, done.err
    path = Path(done.out.strip())
    before = (path / "report.html").read_text()
    assert infc("finish", path, *STAND_IN).status == 3
    after = (path / "report.html").read_text()
    assert report.drawn_pictures(before) != ""
    assert report.drawn_pictures(after) == report.drawn_pictures(before)


# The device's source


def test_the_devices_source_needs_the_standard_library_alone() -> None:
    far_side = ROOT / "compiler" / "remote" / "far_side.py"
    for path in (far_side, *(ROOT / "compiler" / "device").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 8))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            for name in names:
                if path == far_side and name.startswith("finishing."):
                    continue  # what it was sent
                assert name.partition(".")[0] in sys.stdlib_module_names, f"{path.name}: {name}"


def test_the_devices_source_runs_in_python_3_8(bundle: Path) -> None:
    from infc.workers import interpreters

    try:
        python = interpreters.find("3.8").path
    except InfcError:
        pytest.skip("missing: Python 3.8")
    done = finish(bundle, python=str(python))
    assert done.returncode == 4, done.stderr
    assert "`tensorrt` cannot be imported here" in done.stderr


def test_a_bundle_holds_the_devices_source_as_it_is(published: Path, tmp_path: Path) -> None:
    deferral.copy_package(tmp_path)
    for path in (tmp_path / "finishing").iterdir():
        assert (published / "finishing" / path.name).read_bytes() == path.read_bytes()

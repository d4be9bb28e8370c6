"""MindSpore Lite: what is proved before an artifact is published, and its targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command import infc, write_model
from conftest import ROOT
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from infc import building, verification, workers
from infc.bundle import open_bundle
from infc.diagnostics import ExitCode, InfcError
from infc.request import WorkerLimits
from infc.signature import save_tensors
from infc.targets import look_up
from infc.targets import mindspore_lite as end
from infc.verification.running import run_artifact
from infc.verification.sets import Sets, compare_sets

LIMITS = WorkerLimits(timeout_s=120)
ROWS, WIDTH = 8, 32


@pytest.fixture
def toolchain(need_back_end: Callable[[str], None]) -> None:
    need_back_end("mindspore-lite")


@pytest.fixture(autouse=True)
def no_cann(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in end.CANN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(end, "CANN_FOLDERS", ("/nowhere/Ascend",))


def layer_normalization(path: Path) -> Path:
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(WIDTH).astype(np.float32), name)
        for name in ("scale", "bias")
    ]
    graph = helper.make_graph(
        [helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["y"], "norm", axis=-1)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [ROWS, WIDTH])],
        weights,
    )
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def converted(model: Path, folder: Path) -> Path:
    """What the wheel's converter makes of `model` as it is, with nothing lowered."""
    payload = {
        "model": str(model),
        "output": str(folder),
        "target": look_up("mindspore-lite").to_json(),
        "inputs": [],
        "calibration": [],
    }
    place = end.worker(look_up("mindspore-lite"))
    call = workers.Call("", "build", payload, folder / "s", folder / "log", "the converter", place)
    workers.call(call, LIMITS)
    return folder / "model.ms"


def one_set(model: Path, feeds: dict[str, Any], folder: Path) -> Sets:
    answers = ReferenceEvaluator(onnx.load(model)).run(None, feeds)
    save_tensors(folder / "feeds", feeds)
    save_tensors(folder / "reference", {"y": np.asarray(answers[0], np.float32)})
    return Sets((folder / "feeds",), (folder / "reference",))


def test_a_kernel_that_is_wrong_on_several_threads_is_caught(
    tmp_path: Path, toolchain: None
) -> None:
    """The runtime's LayerNorm leaves out rows there; on one thread nothing is to be seen."""
    model = layer_normalization(tmp_path / "m.onnx")
    x = np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float32)
    sets, artifact = one_set(model, {"x": x}, tmp_path), converted(model, tmp_path / "raw")
    target = look_up("mindspore-lite")
    answers, _ = run_artifact(sets, target, artifact, tmp_path / "one", LIMITS)
    (alone,) = compare_sets(sets, answers, verification.THRESHOLDS[target.precision])
    assert alone.ok
    with pytest.raises(InfcError) as caught:
        verification.check_artifact(sets, target, artifact, tmp_path / "s", LIMITS)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E602"
    assert "on 4 threads" in diagnostic.message


def test_the_lowered_graph_is_right_on_all_of_them(tmp_path: Path, toolchain: None) -> None:
    model = layer_normalization(tmp_path / "m.onnx")
    done = infc("compile", model, "-t", "mindspore-lite", "-o", tmp_path, "--loader", "none")
    assert done.status == ExitCode.DONE, done.err


def test_two_builds_are_byte_identical(tmp_path: Path, toolchain: None) -> None:
    trees = []
    for name in ("here", "a longer way/there"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        model = write_model(folder / "small.onnx")
        done = infc("compile", model, "-t", "mindspore-lite", "-o", folder / "o")
        assert done.status == ExitCode.DONE, done.err
        bundle = folder / "o" / "small-mindspore-lite"
        files = sorted(p for p in bundle.rglob("*") if p.is_file())
        trees.append({str(p.relative_to(bundle)): p.read_bytes() for p in files})
    assert trees[0] == trees[1]


@pytest.mark.parametrize(
    ("name", "device", "precision"),
    [
        ("mindspore-lite", "CPU", "fp32"),
        ("android-mindspore", "CPU", "fp32"),
        ("kirin", "NPU", "fp16"),
        ("ascend", "ASCEND", "fp16"),
    ],
)
def test_the_profiles(name: str, device: str, precision: str) -> None:
    target = look_up(name)
    assert (target.back_end, target.precision) == (end.NAME, precision)
    assert device in target.device


@pytest.mark.parametrize("name", ["android-mindspore", "kirin"])
def test_a_phones_model_is_proved_on_the_cpu(name: str, tmp_path: Path, toolchain: None) -> None:
    model = write_model(tmp_path / "small.onnx")
    done = infc("compile", model, "-t", name, "-o", tmp_path / "o", "--loader", "none")
    assert done.status == ExitCode.DONE, done.err
    manifest = open_bundle(tmp_path / "o" / f"small-{name}").manifest
    assert manifest["verification"]["verdict"] == "passed"
    assert manifest["artifact"]["notes"]["verified_on"] == "CPU"


def test_ascend_without_its_libraries_is_refused_before_the_model_is_read(
    tmp_path: Path,
) -> None:
    done = infc("compile", tmp_path / "absent.onnx", "-t", "ascend", "-o", tmp_path / "o")
    assert done.status == ExitCode.TOOLCHAIN_MISSING
    assert done.err.count("error[") == 1
    assert done.err.startswith("error[E501]: Ascend needs the CANN libraries")
    assert end.CANN_LIBRARY in done.err
    assert end.CANN_VARIABLES[0] in done.err
    assert not (tmp_path / "o").exists()


def test_one_target_that_cannot_be_built_leaves_the_other_alone(
    tmp_path: Path, toolchain: None
) -> None:
    model = write_model(tmp_path / "small.onnx")
    words = ("-t", "ascend", "-t", "mindspore-lite", "-o", tmp_path / "o", "--loader", "none")
    done = infc("compile", model, *words)
    assert done.status == ExitCode.TOOLCHAIN_MISSING
    assert (tmp_path / "o" / "small-mindspore-lite").is_dir()
    assert not (tmp_path / "o" / "small-ascend").exists()


@pytest.mark.parametrize("library", ["lib64", "x86_64-linux/lib64"])
def test_cann_is_found_where_its_script_says(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / library).mkdir(parents=True)
    (tmp_path / library / end.CANN_LIBRARY).touch()
    monkeypatch.setenv(end.CANN_VARIABLES[0], str(tmp_path))
    assert end.require_cann() == tmp_path
    assert end.worker(look_up("ascend")).script is not None
    monkeypatch.setenv(end.CANN_VARIABLES[0], str(tmp_path / "elsewhere"))
    with pytest.raises(InfcError) as caught:
        building.require_toolchain(look_up("ascend"))
    assert str(tmp_path / "elsewhere") in str(caught.value)


def test_targets_of_one_back_end_are_asked_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have one toolchain, and yet one of them lacks what the other does not need."""
    ascend, cpu = look_up("ascend"), replace(look_up("ascend"), device="CPU")
    asked: list[str] = []

    def worker(target: Any) -> Any:
        asked.append(target.device)
        raise InfcError(*end_error())

    def end_error() -> tuple[Any, ...]:
        with pytest.raises(InfcError) as caught:
            end.require_cann()
        return caught.value.diagnostics

    monkeypatch.setattr(end, "worker", worker)
    with pytest.raises(InfcError):
        building.require_any_toolchain([ascend, cpu])
    assert asked == ["ASCEND", "CPU"]


@pytest.mark.parametrize("back_end", ["kirin", "mindspore-lite"])
def test_float16_weights_and_shapes_that_change_are_refused_with_the_remedy(
    tmp_path: Path, back_end: str, need_back_end: Callable[[str], None]
) -> None:
    """The runtime fails on them on four threads: "can not find tensor data in origin tensor"."""
    need_back_end("mindspore-lite")
    digits = ROOT / "examples" / "digits" / "digits.onnx"
    words = ("compile", digits, "-t", back_end, "-o", tmp_path, "--precision", "fp16")
    done = infc(*words, "--loader", "none")
    assert (done.status, done.err.count("digits.onnx:")) == (1, 4)
    assert "`--input`" in done.err
    done = infc(*words, "--loader", "none", "--input", "image=1x1x8x8")
    assert done.status == 0, done.err

"""The engine builder, driving TensorRT for RTX: it builds without a GPU, with the same API."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from infc.targets import tensorrt_builder as builder

CONV = """<ir_version: 8, opset_import: ["": 17]>
g (float[N, 3, 16, 16] x) => (float[N, 8, 14, 14] y) {
    c = Conv (x, w)
    y = Relu (c)
}"""
FOREIGN = """<ir_version: 8, opset_import: ["": 17, "com.example": 1]>
g (float[4, 3, 3] x) => (float[4] y) {
    d = Det (x)
    y = com.example.Strange (d)
}"""
SM_BITS = {"sm75": 1, "sm80": 2, "sm86": 4, "sm89": 8, "sm120": 16, "sm121": 32}
"""Observed, not documented: of the word at byte 32 of an engine."""


@pytest.fixture(scope="module")
def trt(need_module: Callable[[str], None]) -> Any:
    need_module("tensorrt_rtx")
    import tensorrt_rtx

    return tensorrt_rtx


@pytest.fixture
def model(tmp_path: Path) -> Path:
    proto = onnx.parser.parse_model(CONV)
    weights = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    proto.graph.node[0].name = "conv"
    onnx.save(proto, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def spec(*profiles: tuple[int, int, int], **more: Any) -> dict[str, Any]:
    """Of the model: each profile holds the least, typical and greatest batch."""
    row = {"name": "x", "dtype": "float32", "shape": [-1, 3, 16, 16]}
    ranges = [[[batch, 3, 16, 16] for batch in profile] for profile in profiles]
    inputs = [{**row, "profiles": ranges}]
    return {
        "inputs": inputs,
        "outputs": [],
        "precision": "fp32",
        "compute_capabilities": [],
        **more,
    }


def refusal(trt: Any, told: dict[str, Any], model: Path, engine: Path | None = None) -> str:
    with pytest.raises(builder.BuildError) as caught:
        builder.build(trt, told, str(model), str(engine or model.with_suffix(".engine")))
    assert not model.with_suffix(".engine").exists()
    assert not list(model.parent.glob("*.partial"))
    return str(caught.value)


def test_an_engine_for_the_gpus_that_are_named(trt: Any, model: Path, tmp_path: Path) -> None:
    told = spec((1, 2, 4), (8, 8, 8), compute_capabilities=["sm86", "sm120"])
    steps: list[tuple[str, int, int]] = []
    facts = builder.build(
        trt, told, str(model), str(tmp_path / "a"), progress=lambda *s: steps.append(s)
    )
    contents = (tmp_path / "a").read_bytes()
    assert facts["bytes"] == len(contents)
    assert facts["profiles"] == 2
    assert facts["module"] == "tensorrt_rtx"
    assert facts["version"] == trt.__version__
    assert facts["timing_cache"] is False
    assert struct.unpack_from("<I", contents, 32)[0] == SM_BITS["sm86"] | SM_BITS["sm120"]
    phases = {phase for phase, _, _ in steps}
    assert "Building engine" in phases
    assert all(0 <= done <= total for _, done, total in steps)
    again = builder.build(trt, told, str(model), str(tmp_path / "b"))
    assert again["sha256"] == facts["sha256"]
    assert (tmp_path / "b").read_bytes() == contents


def test_the_library_chooses_ampere_and_later(trt: Any, model: Path, tmp_path: Path) -> None:
    builder.build(trt, spec((1, 1, 1)), str(model), str(tmp_path / "engine"))
    mask = struct.unpack_from("<I", (tmp_path / "engine").read_bytes(), 32)[0]
    assert not mask & SM_BITS["sm75"]
    assert mask & SM_BITS["sm86"]
    assert mask & SM_BITS["sm120"]


def test_weights_beside_the_model(trt: Any, model: Path, tmp_path: Path) -> None:
    inside = builder.build(trt, spec((1, 1, 1)), str(model), str(tmp_path / "a"))
    outside = {"save_as_external_data": True, "size_threshold": 0, "location": "weights"}
    (tmp_path / "other").mkdir()
    beside = tmp_path / "other" / "model.onnx"
    onnx.save(onnx.load(model), beside, **outside)
    assert builder.unsupported(trt, str(beside)) == []
    facts = builder.build(trt, spec((1, 1, 1)), str(beside), str(tmp_path / "b"))
    assert facts["sha256"] == inside["sha256"]


def test_nodes_that_are_refused_are_named(trt: Any, tmp_path: Path, model: Path) -> None:
    assert builder.unsupported(trt, str(model)) == []
    proto = onnx.parser.parse_model(FOREIGN)
    proto.graph.node[0].name = "determinant"
    onnx.save(proto, tmp_path / "foreign.onnx")
    (first, second) = builder.unsupported(trt, str(tmp_path / "foreign.onnx"))
    assert first[:2] == ("determinant", "Det")
    assert second == (
        "#1",
        "Strange",
        "Plugin not found, are the plugin name, version, and namespace correct?",
    )
    said = refusal(trt, {**spec(), "inputs": []}, tmp_path / "foreign.onnx")
    assert said.startswith("determinant (Det): ")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (spec(), "the input `x` has the shape (-1, 3, 16, 16), and no range"),
        (spec((1, 2, 4), compute_capabilities=["sm90"]), "builds nothing for sm90"),
        (spec((4, 2, 1)), "optimization profile"),
        (spec((1, 2, 4), profiling="all"), "no `profiling: all`"),
        (spec((1, 2, 4), hardware_compatible="any"), "no `hardware_compatible: any`"),
        (spec((1, 2, 4), dla_core=0), "there is no DLA core 0 here"),
    ],
)
def test_a_spec_that_cannot_be_built(
    trt: Any, model: Path, told: dict[str, Any], said: str
) -> None:
    assert said in refusal(trt, told, model)


def test_files_that_cannot_be_read_or_written(trt: Any, model: Path, tmp_path: Path) -> None:
    told = spec((1, 1, 1))
    assert "No such file" in refusal(trt, told, tmp_path / "absent.onnx")
    assert "No such file" in refusal(trt, told, model, tmp_path / "absent" / "model.engine")
    (tmp_path / "broken.onnx").write_bytes(model.read_bytes()[:100])
    assert refusal(trt, told, tmp_path / "broken.onnx")
    (tmp_path / "text.onnx").write_text("this is no model")
    assert refusal(trt, told, tmp_path / "text.onnx")
    with pytest.raises(builder.BuildError):
        builder.unsupported(trt, str(tmp_path / "absent.onnx"))


def needs_no_gpu() -> None:
    if "reason" not in builder.probe():
        pytest.skip("there is a GPU here: what is said without one is not")


def test_without_a_gpu_nothing_runs_and_nothing_crashes(
    trt: Any, model: Path, tmp_path: Path
) -> None:
    needs_no_gpu()
    builder.build(trt, spec((1, 1, 1)), str(model), str(tmp_path / "engine"))
    feeds = {"x": ("float32", (1, 3, 16, 16), bytes(4 * 3 * 16 * 16))}
    with pytest.raises(builder.NoGpu):
        builder.run(trt, str(tmp_path / "engine"), feeds, spec((1, 1, 1)))
    with pytest.raises(builder.NoGpu):
        builder.bench(trt, str(tmp_path / "engine"), feeds, spec((1, 1, 1)), 1, 1)
    assert "tensorrt_rtx builds on the GPU, and " in refusal(
        trt, spec((1, 1, 1), compute_capabilities="current"), model
    )


def test_tensorrt_is_not_touched_without_a_gpu(trt: Any, model: Path) -> None:
    """A module that builds on the GPU only crashes where it is asked to without one."""
    needs_no_gpu()
    full = SimpleNamespace(__name__="tensorrt", ILogger=trt.ILogger)  # it has no Builder to ask
    assert "tensorrt builds on the GPU, and " in refusal(full, spec((1, 1, 1)), model)
    with pytest.raises(builder.NoGpu):
        builder.unsupported(full, str(model))


def program(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The builder as a bundle has it: a file of its own."""
    shutil.copyfile(builder.__file__, folder / "build_engine.py")
    command = [sys.executable, "build_engine.py", "--module", "tensorrt_rtx", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_program_builds(trt: Any, model: Path, tmp_path: Path) -> None:
    (tmp_path / "build.json").write_text(json.dumps(spec((1, 2, 4))))
    done = program(tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (tmp_path / "model.engine").stat().st_size == facts["bytes"]
    assert "Building engine" in done.stderr
    assert json.loads(program(tmp_path, "--check").stdout) == []
    assert set(json.loads(program(tmp_path, "--probe").stdout)) & {"reason", "name"}


def test_the_program_says_what_is_wrong(trt: Any, model: Path, tmp_path: Path) -> None:
    done = program(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: build.json: No such file or directory\n"
    (tmp_path / "build.json").write_text("{")
    assert program(tmp_path).stderr.startswith("error: build.json: ")
    (tmp_path / "build.json").write_text(json.dumps(spec((1, 1, 1))))
    done = program(tmp_path, "--module", "no_such_module")
    assert done.stderr == "error: no_such_module: No module named 'no_such_module'\n"
    needs_no_gpu()
    assert program(tmp_path).returncode == 0
    feeds = {"x": ("float32", (1, 3, 16, 16), bytes(4 * 3 * 16 * 16))}
    builder.write_tensors(str(tmp_path / "feeds"), feeds)
    assert builder.read_tensors(str(tmp_path / "feeds")) == feeds
    done = program(tmp_path, "--run", "feeds")
    assert done.returncode == builder.NO_GPU
    assert done.stderr.startswith("error: ")

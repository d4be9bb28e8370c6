"""`infc compile --keep-float`: what the user names stays in float32, at every reduced precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import weighted
from command import infc

NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1,3,16,16] image) => (float[1,10] scores)
{
  a = Conv<pads = [1,1,1,1]>(image, w1)
  b = Relu(a)
  c = Conv(b, w2)
  d = Relu(c)
  e = GlobalAveragePool(d)
  f = Flatten(e)
  scores = Gemm(f, w3)
}
"""
SHAPES = {"w1": (32, 3, 3, 3), "w2": (64, 32, 3, 3), "w3": (64, 10)}
BYTES = 64 * 32 * 9 * 4
"""Of `w2` in float32, most of the model."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    weighted.save(tmp_path / "net.onnx", NET, SHAPES)
    return tmp_path / "net.onnx"


def compiled(model: Path, folder: Path, *words: object) -> tuple[dict[str, Any], int]:
    """The manifest, and the bytes of the artifact's weights."""
    done = infc("compile", model, "-o", folder, "-q", "--loader", "none", *words)
    assert done.status == 0, done.err
    (path,) = folder.glob("net-*/manifest.json")
    files = (path.parent / "model").iterdir()
    size = sum(file.stat().st_size for file in files if file.suffix != ".xml")
    return json.loads(path.read_text()), size


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "tvm"])
def test_at_fp16_it_is_kept_with_its_weights(model: Path, tmp_path: Path, target: str) -> None:
    words = ("-t", target, "--precision", "fp16")
    every, small = compiled(model, tmp_path / "every", *words)
    some, large = compiled(model, tmp_path / "some", *words, "--keep-float", "c")
    assert "keep_float" not in every
    assert some["keep_float"] == ["c"]
    if target == "openvino":  # ONNX Runtime computes in float32 and stores in 16 bits
        reasons = [row["reason"] for row in some["conversion"]["kept"]]
        assert "as asked for" in reasons
        assert some["conversion"]["converted"] < every["conversion"]["converted"]
    assert large - small > 0.4 * BYTES, "half of the weights' bytes are back"


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "tvm"])
def test_at_int8_it_is_kept_with_its_weights(model: Path, tmp_path: Path, target: str) -> None:
    words = ("-t", target, "--precision", "int8", "--calibration", "random", "--keep-float", "c")
    manifest, size = compiled(model, tmp_path / "o", *words)
    kept = {row["node"]: row["reason"] for row in manifest["quantization"]["kept"]}
    assert "it was asked to stay in float" in kept.values()
    assert manifest["keep_float"] == ["c"]
    assert size > BYTES


def test_a_bundle_that_kept_a_layer_is_debugged_as_it_was_made(model: Path, tmp_path: Path) -> None:
    words = ("-t", "onnxruntime", "--precision", "int8", "--calibration", "random")
    compiled(model, tmp_path / "o", *words, "--keep-float", "c")
    bundle = tmp_path / "o" / "net-onnxruntime"
    done = infc("debug-accuracy", bundle, "--source", model, "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["identical"], "the artifact, byte by byte"


def test_a_name_that_is_none_is_refused(model: Path, tmp_path: Path) -> None:
    done = infc("compile", model, "-o", tmp_path, "--precision", "fp16", "--keep-float", "cc")
    assert done.status == 2
    assert "E110" in done.err
    assert "`--keep-float cc` names no node" in done.err


def test_a_back_end_that_decides_by_itself_says_so(model: Path, tmp_path: Path) -> None:
    words = ("--precision", "int8", "--calibration", "random", "--keep-float", "c")
    done = infc("compile", model, "-o", tmp_path, "-t", "mindspore-lite", *words)
    assert done.status == 2
    assert "E205" in done.err
    assert "decides by itself what computes in int8" in done.err

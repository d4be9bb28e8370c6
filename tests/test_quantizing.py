"""INT8 through the whole line: calibrated once, Q/DQ for each back end, proof on real samples."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command import infc, write_model
from conftest import ROOT
from onnxruntime import InferenceSession
from sklearn.datasets import load_digits

from infc.bundle import open_bundle

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
TARGETS = ("onnxruntime", "openvino")


def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images (N, 1, 8, 8) float32 in [0, 1] as the model takes them, and labels (N,)."""
    data = load_digits()
    return (data.images[:, None] / 16.0).astype(np.float32), data.target


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`digits` at int8 for every target, calibrated on 200 images."""
    folder = tmp_path_factory.mktemp("int8")
    images, _ = digits()
    np.savez(folder / "images.npz", image=images[:200])
    words = [w for t in TARGETS for w in ("-t", t)]
    done = infc(
        *("compile", DIGITS, *words, "-o", folder / "build", "--precision", "int8"),
        *("--calibration", folder / "images.npz", "-q"),
    )
    assert done.status == 0, done.err
    return folder / "build"


@pytest.mark.parametrize("target", TARGETS)
def test_most_of_the_arithmetic_is_of_integers(bundles: Path, target: str) -> None:
    manifest = open_bundle(bundles / f"digits-{target}").manifest
    assert manifest["target"]["precision"] == "int8"
    assert manifest["quantization"]["scheme"] == target
    assert manifest["quantization"]["quantized"] >= 4
    assert manifest["quantization"]["calibration"]["samples"] == 200
    assert manifest["verification"]["inputs"] == "calibration samples"


def test_one_calibration_serves_every_target(bundles: Path) -> None:
    files = [(bundles / f"digits-{t}" / "ranges.json").read_bytes() for t in TARGETS]
    assert len(set(files)) == 1


def test_int8_answers_as_float_does_on_images_it_was_not_calibrated_on(bundles: Path) -> None:
    images, labels = digits()
    images, labels = images[200:], labels[200:]
    session = InferenceSession(DIGITS)
    (model,) = (bundles / "digits-onnxruntime" / "model").glob("*.onnx")
    quantized = InferenceSession(model)
    feeds = {session.get_inputs()[0].name: images}
    (exact,), (rounded,) = session.run(None, feeds), quantized.run(None, feeds)
    right, right_rounded = (float((a.argmax(1) == labels).mean()) for a in (exact, rounded))
    assert right_rounded >= right - 0.002  # 3 of 1597 images
    noise = ((exact - rounded) ** 2).sum()
    assert 10 * np.log10((exact**2).sum() / noise) > 30


def test_the_same_bytes_twice(bundles: Path, tmp_path: Path) -> None:
    images, _ = digits()
    np.savez(tmp_path / "elsewhere.npz", image=images[:200])
    done = infc(
        *("compile", DIGITS, "-t", "onnxruntime", "-o", tmp_path, "--precision", "int8"),
        *("--calibration", tmp_path / "elsewhere.npz", "-q"),
    )
    assert done.status == 0, done.err

    def hashes(folder: Path) -> dict[str, str]:
        return {
            str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*"))
            if p.is_file()
        }

    assert hashes(tmp_path / "digits-onnxruntime") == hashes(bundles / "digits-onnxruntime")


def test_no_data_is_no_int8(tmp_path: Path) -> None:
    done = infc("compile", DIGITS, "-o", tmp_path, "--precision", "int8")
    assert (done.status, "E414" in done.err) == (2, True)
    assert not list(tmp_path.iterdir())


QUANTIZED = """
<ir_version: 8, opset_import: ["" : 17]>
quantized (float[1,3,4,4] x) => (float[1,2,4,4] y)
<float s = {0.05}, uint8 z = {128}, int8[2,3,1,1] w = {10,-20,30, 40,-50,60}, float ws = {0.01},
 int8 wz = {0}>
{
  xq = QuantizeLinear(x, s, z)
  xd = DequantizeLinear(xq, s, z)
  wd = DequantizeLinear(w, ws, wz)
  c = Conv(xd, wd)
  cq = QuantizeLinear(c, s, z)
  y = DequantizeLinear(cq, s, z)
}
"""


def test_a_model_that_came_quantised_needs_no_data_and_is_kept(tmp_path: Path) -> None:
    path = write_model(tmp_path / "quantized.onnx", QUANTIZED)
    done = infc("compile", path, "-t", "onnxruntime", "-o", tmp_path, "--precision", "int8")
    assert done.status == 0, done.err
    manifest = open_bundle(tmp_path / "quantized-onnxruntime").manifest
    assert manifest["quantization"]["already"] is True
    kept = onnx.load(tmp_path / "quantized-onnxruntime" / "model" / "model.onnx")
    assert [n.op_type for n in kept.graph.node].count("QuantizeLinear") == 2

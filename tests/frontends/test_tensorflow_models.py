"""Real TensorFlow models, imported and run: what they are for, measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tensorflow_session
import verdicts

from infc import driver
from infc.bundle import open_bundle
from infc.request import Request, VerifyOptions
from infc.signature import load_tensors
from infc.targets import BACK_ENDS

pytestmark = [pytest.mark.slow, pytest.mark.models, pytest.mark.timeout(1800)]
FILES = (
    *("mlperf_tiny/pretrainedResnet.h5", "mlperf_tiny/pretrainedResnet.tflite"),
    *("mlperf_tiny/pretrainedResnet_quant.tflite", "mlperf_tiny/ad01.h5"),
    *("mlperf_tiny/ad01_fp32.tflite", "mlperf_tiny/ad01_int8.tflite"),
    *("dtln/model_1.tflite", "dtln/model_2.tflite", "dtln/dtln_saved_model"),
    *("fsrcnn/FSRCNN_x2.pb", "fsrcnn/FSRCNN-small_x2.pb"),
    "ultraface/version-RFB-320_without_postprocessing.tflite",
)
ROUNDING = 1e-5
SATURATED = 3e-5
"""DTLN's first LSTM adds up the 257 magnitudes of a spectrum: 9.8e-6 seen, in one of its states."""
KEYPOINTS = 4450


@pytest.fixture(scope="module")
def imports(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    folder = tmp_path_factory.mktemp("real")
    cases = {name.replace("/", "-"): {"path": models / name} for name in FILES}
    rows = tensorflow_session.import_all(cases, folder)
    for name, row in rows.items():
        row["path"] = folder / "imports" / name / "optimized.onnx"
    return rows


def session(row: Mapping[str, Any]) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(row["path"], providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", [f for f in FILES if "int8" not in f and "quant" not in f])
def test_floats_agree_with_tensorflow(imports: Mapping[str, Any], name: str) -> None:
    row = imports[name.replace("/", "-")]
    assert "errors" in row, row
    assert max(row["errors"].values()) < (SATURATED if "saved_model" in name else ROUNDING)


def test_the_state_of_dtln_is_outside(imports: Mapping[str, Any]) -> None:
    """Two calls with the state fed back, of silence at first: the LSTMs' own, and no NaN."""
    row = imports["dtln-dtln_saved_model"]
    states = [name for name in row["inputs"] if name != "input_1"]
    assert len(states) == 8
    assert row["before"]["LSTM"] == 4
    run, names = session(row), list(row["outputs"])
    state = {name: np.zeros((1, 128), np.float32) for name in states}
    sound = np.random.default_rng(0).standard_normal((1, 512)).astype(np.float32)
    heard = []
    for frame in (np.zeros_like(sound), sound, sound):
        answers = dict(zip(names, run.run(names, {"input_1": frame, **state}), strict=True))
        state = {name: answers[f"{name}_out"] for name in states}
        assert all(np.isfinite(value).all() for value in answers.values())
        heard.append(answers["conv1d_1"])
    assert np.abs(heard[2] - heard[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("quantised", "original"),
    [
        ("mlperf_tiny-ad01_int8.tflite", "mlperf_tiny-ad01_fp32.tflite"),
        ("mlperf_tiny-pretrainedResnet_quant.tflite", "mlperf_tiny-pretrainedResnet.tflite"),
    ],
)
def test_quantised_files_keep_their_types(
    imports: Mapping[str, Any], quantised: str, original: str
) -> None:
    row, floats = imports[quantised], imports[original]
    assert "errors" in row, row
    ((dtype, sizes),) = row["inputs"].values()
    assert dtype == "int8"
    ((_, others),) = floats["inputs"].values()
    assert sizes == others
    for kind in ("Conv", "MatMul", "Gemm"):
        assert row["after"].get(kind, 0) == floats["after"].get(kind, 0)
    assert row["after"]["QuantizeLinear"] >= 9


def test_super_resolution_of_a_picture(imports: Mapping[str, Any], models: Path) -> None:
    """The original, halved and doubled again: 32.26 dB, and 30.80 by bicubic interpolation."""
    image = pytest.importorskip("PIL.Image")
    luma, *_ = image.open(models / "fsrcnn" / "original.png").convert("YCbCr").split()
    small = luma.resize((luma.width // 2, luma.height // 2), image.BICUBIC)
    run = session(imports["fsrcnn-FSRCNN_x2.pb"])
    x = np.asarray(small, np.float32)[None, :, :, None] / 255.0
    (y,) = run.run(["NCHW_output:0"], {"IteratorGetNext:0": x})
    wanted = np.asarray(luma, np.float64)

    def psnr_db(got: Any) -> float:
        error = np.square(np.clip(got, 0, 255) - wanted).mean()
        return float(20 * np.log10(255.0) - 10 * np.log10(error))

    assert psnr_db(np.asarray(small.resize(luma.size, image.BICUBIC))) == pytest.approx(
        30.80, abs=0.01
    )
    assert psnr_db(y[0, 0] * 255.0) == pytest.approx(32.26, abs=0.01)


def test_faces_where_the_onnx_model_finds_them(imports: Mapping[str, Any], models: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    folder = models / "ultraface"
    mine = session(imports["ultraface-version-RFB-320_without_postprocessing.tflite"])
    theirs = onnxruntime.InferenceSession(
        folder / "version-RFB-320_without_postprocessing.onnx",
        providers=["CPUExecutionProvider"],
    )
    photos = sorted((folder / "photos").iterdir())
    assert len(photos) >= 20
    for photo in photos:
        pixels = np.asarray(image.open(photo).convert("RGB").resize((320, 240)), np.float32)
        x = (pixels[None] - 127.0) / 128.0
        got = mine.run(None, {mine.get_inputs()[0].name: x})
        wanted = theirs.run(None, {"input": x.transpose(0, 3, 1, 2)})
        for answer in wanted:
            same = [g for g in got if g.shape == answer.shape]
            assert same, [g.shape for g in got]
            assert min(float(np.abs(g - answer).max()) for g in same) < 2e-3, photo.name


def test_hand_keypoint_keeps_its_accuracy_everywhere(
    models: Path,
    tmp_path: Path,
    need_tool: Callable[[str], str],
    need_back_end: Callable[[str], None],
) -> None:
    """The Keras file itself, compiled for every back end; each row through its C++ loader too."""
    need_tool("cmake")
    tensorflow_session.python()
    for name in BACK_ENDS:
        need_back_end(name)
    rows = np.loadtxt(models / "hand_keypoint" / "keypoint.csv", delimiter=",", dtype=np.float32)
    assert len(rows) == KEYPOINTS
    np.savez(tmp_path / "rows.npz", input_1=rows[:, 1:])
    path = models / "hand_keypoint" / "keypoint_classifier.hdf5"
    verify = VerifyOptions(data=tmp_path / "rows.npz")
    request = Request(path, BACK_ENDS, tmp_path / "build", verify=verify)
    for row in driver.compile(request).results:
        assert row.bundle is not None, "\n".join(d.render() for d in row.diagnostics)
        assert row.verification["verdict"] == verdicts.expected(row.target)
        if row.verification["verdict"] != "passed":
            continue
        (answers,) = load_tensors(row.bundle / "reference" / "0" / "outputs").values()
        assert (answers.argmax(1) == rows[:, 0]).mean() == pytest.approx(0.965, abs=5e-4)
        assert open_bundle(row.bundle).manifest["source"]["kind"] == "hdf5"
        through = driver.verify(row.bundle, through="cpp")
        assert all(e.relative_error < 1e-5 for e in through.errors), row.target

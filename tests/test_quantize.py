"""`infc quantize`: a Q/DQ file of real data, that answers as the source does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from command import infc
from conftest import ROOT

import infc as api

DIGITS = ROOT / "examples" / "digits"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = np.loadtxt(DIGITS / "digits.csv", delimiter=",", dtype=np.float32)
    path = tmp_path_factory.mktemp("samples") / "digits.npz"
    np.savez(path, image=(rows[:, 1:] / 16).reshape(-1, 1, 8, 8))
    return path


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def answers(path: Path, image: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(path).run(None, {"image": image})[0]


@pytest.mark.parametrize("scheme", ["onnxruntime", "openvino", "tensorrt"])
def test_a_scheme(scheme: str, samples: Path, tmp_path: Path) -> None:
    output = tmp_path / "digits-int8.onnx"
    words = ("quantize", DIGITS / "digits.onnx", "--calibration", samples, "-o", output)
    done = infc(*words, "--scheme", scheme, "--json")
    assert done.status == 0, done.err
    document = done.document
    assert document["output"] == str(output)
    assert document["quantization"]["scheme"] == scheme
    assert document["quantization"]["calibration"]["samples"] == 60
    assert document["verification"]["ok"] is True
    assert 20 < document["verification"]["outputs"][0]["sqnr_db"] < 80
    onnx.checker.check_model(onnx.load(output), full_check=True)
    assert "QuantizeLinear" in kinds(output)
    image = np.load(samples)["image"]
    before, after = answers(DIGITS / "digits.onnx", image), answers(output, image)
    assert before.dtype == after.dtype
    assert (before.argmax(1) == after.argmax(1)).all()


def test_text_names_what_stays_in_float(samples: Path, tmp_path: Path) -> None:
    output = tmp_path / "digits-int8.onnx"
    names = [n.name for n in onnx.load(DIGITS / "digits.onnx").graph.node if n.op_type == "Gemm"]
    words = ("quantize", DIGITS / "digits.onnx", "--scheme", "onnxruntime", "-o", output)
    done = infc(*words, "--calibration", samples, "--keep-float", names[0])
    assert done.status == 0, done.err
    assert done.out.startswith(str(output))
    assert re.search(rf"{names[0]} +it was asked to stay in float", done.out)
    assert "Gemm" in kinds(output)


def test_what_came_quantised_needs_no_data(samples: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    api.quantize(DIGITS / "digits.onnx", first, "onnxruntime", str(samples))
    result = api.quantize(first, second, "openvino")
    assert result.quantization["already"] is True
    assert kinds(first).count("QuantizeLinear") == kinds(second).count("QuantizeLinear")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--scheme", "onnxruntim"], "E110", "`onnxruntime`"),
        (["--scheme", "openvino", "--keep-float", "gem"], "E110", "--keep-float gem"),
        (["--scheme", "openvino", "--no-data"], "E414", "`openvino` at int8"),
        (["--scheme", "openvino", "--folder"], "E110", "is a folder"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_refusals_write_nothing(
    words: list[str], code: str, said: str, samples: Path, tmp_path: Path
) -> None:
    output = tmp_path if "--folder" in words else tmp_path / "out.onnx"
    data = () if "--no-data" in words else ("--calibration", samples)
    rest = [w for w in words if w not in ("--folder", "--no-data")]
    done = infc("quantize", DIGITS / "digits.onnx", "-o", output, *data, *rest)
    assert done.status != 0
    assert f"error[{code}]" in done.err
    assert said in done.err
    assert list(tmp_path.iterdir()) == []

"""examples/triton: the script, and that its two versions answer alike."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from programs import EXAMPLES


def test_two_versions_of_digits(tmp_path: Path) -> None:
    done = subprocess.run(
        [EXAMPLES / "triton" / "run", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "INFC_VENV": sys.prefix, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "beside      1 version: 1" in done.stdout
    models = tmp_path / "models" / "digits"
    rows = np.loadtxt(EXAMPLES / "digits" / "digits.csv", delimiter=",", dtype=np.int64)
    images = (rows[:, 1:] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    for version in ("1", "2"):
        file = str(models / version / "model.onnx")
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        (logits,) = session.run(["logits"], {"image": images})
        assert (np.asarray(logits).argmax(1) == rows[:, 0]).mean() > 0.95
    text = (models / "config.pbtxt").read_text()
    for line in (
        "max_batch_size: 16",
        "  preferred_batch_size: [ 8 ]",
        "  max_queue_delay_microseconds: 200",
        "version_policy: { all { } }",
    ):
        assert line in text.splitlines()

"""The worker of MindSpore Lite: what it has to do beyond calling the runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from conftest import ROOT

import infc
from infc.bundle import open_bundle
from infc.request import WorkerLimits
from infc.signature import load_tensors, save_tensors
from infc.targets import Target
from infc.verification.running import run_artifact
from infc.verification.sets import Sets

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_shapes_that_change_from_run_to_run(
    threads: int, tmp_path: Path, need_back_end: Callable[[str], None]
) -> None:
    """On several threads the runtime answered wrongly for the later ones."""
    need_back_end("mindspore-lite")
    (result,) = infc.compile(DIGITS, "mindspore-lite", tmp_path, verify=False).results
    assert result.bundle is not None
    bundle = open_bundle(result.bundle)
    session = onnxruntime.InferenceSession(str(DIGITS), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds, reference = [], []
    for i, batch in enumerate((5, 3, 5, 2, 4, 5, 1, 8)):
        image = rng.random((batch, 1, 8, 8), dtype=np.float32)
        feeds.append(tmp_path / f"in-{i}")
        save_tensors(feeds[-1], {"image": image})
        reference.append(tmp_path / f"out-{i}")
        save_tensors(reference[-1], {"logits": session.run(None, {"image": image})[0]})
    sets = Sets(tuple(feeds), tuple(reference))
    target = Target.from_json(bundle.manifest["target"])
    limits = WorkerLimits(timeout_s=120)
    answers, _ = run_artifact(sets, target, bundle.entry, tmp_path / "run", limits, threads)
    for folder, wanted in zip(answers, reference, strict=True):
        got, want = (load_tensors(f)["logits"] for f in (folder, wanted))
        # another order of summation: 1e-5 of the peak of a network of this size
        assert np.allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())

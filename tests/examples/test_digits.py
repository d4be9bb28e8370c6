"""examples/digits: the committed model and samples, the training script, the two programs."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import programs
import pytest
from programs import EXAMPLES, Example

import infc
from infc.bundle import open_bundle
from infc.targets import BACK_ENDS

DIGITS = EXAMPLES / "digits"
EXAMPLE = Example("digits", "classify", "Classify")


@pytest.fixture(scope="module")
def train(need_module: Callable[[str], None]) -> ModuleType:
    need_module("torch")
    need_module("sklearn")
    spec = importlib.util.spec_from_file_location("train", DIGITS / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def samples() -> tuple[np.ndarray, np.ndarray]:
    """The committed samples: labels (N,), images (N, 1, 8, 8)."""
    rows = np.loadtxt(DIGITS / "digits.csv", delimiter=",", dtype=np.int64)
    return rows[:, 0], (rows[:, 1:] / 16).astype(np.float32).reshape(-1, 1, 8, 8)


def predict(model: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": images})
    return np.asarray(logits.argmax(1))


def test_committed_model_on_the_held_out_digits(train: ModuleType) -> None:
    _, test_x, _, test_y = train.split()
    found = predict(DIGITS / "digits.onnx", train.scale(test_x).numpy())
    assert (found == test_y).mean() >= 0.97
    labels, images = samples()
    assert np.array_equal(labels, test_y[: len(labels)])
    assert np.array_equal(images, train.scale(test_x[: len(labels)]).numpy())


@pytest.mark.slow
def test_training(train: ModuleType, tmp_path: Path) -> None:
    """On another machine the weights may differ; the graph and the accuracy may not."""
    lines = programs.lines_of([sys.executable, "-W", "ignore", DIGITS / "train.py", "-o", tmp_path])
    match = re.fullmatch(r"held out +360 digits: accuracy (0\.\d+|1\.0+)", lines[-1])
    assert match is not None, lines
    assert float(match[1]) >= 0.97
    made, committed = (onnx.load(f / "digits.onnx").graph for f in (tmp_path, DIGITS))
    assert [n.op_type for n in made.node] == [n.op_type for n in committed.node]
    assert sum(n.op_type == "BatchNormalization" for n in made.node) == 3
    assert made.input == committed.input
    assert made.output == committed.output
    assert (tmp_path / "digits.csv").read_bytes() == (DIGITS / "digits.csv").read_bytes()


@pytest.mark.parametrize("name", BACK_ENDS)
@pytest.mark.xdist_group("examples")
def test_programs(
    name: str,
    need_running: Callable[[str], None],
    need_tool: Callable[[str], str],
    tmp_path: Path,
) -> None:
    """One source for each language, whatever the back end; they print what the model says."""
    programs.need(name, need_running, need_tool)
    infc.compile(DIGITS / "digits.onnx", name, tmp_path)
    bundle = open_bundle(tmp_path / f"digits-{name}")
    built = programs.build(EXAMPLE, bundle, tmp_path / "b")
    printed = programs.run_cpp(EXAMPLE, bundle, built, DIGITS / "digits.csv")
    assert programs.run_java(EXAMPLE, bundle, built, DIGITS / "digits.csv") == printed
    labels, images = samples()
    found = predict(DIGITS / "digits.onnx", images)
    right = int((found == labels).sum())
    assert right / len(labels) >= 0.97
    rows = enumerate(zip(labels, found, strict=True))
    assert printed[:-1] == [f"sample {i} label {y} predicted {p}" for i, (y, p) in rows]
    assert printed[-1] == f"accuracy {right}/{len(labels)}"
    if name == "onnxruntime":
        programs.compiles_without_a_warning(EXAMPLE, bundle, built, tmp_path)


@pytest.mark.xdist_group("examples")
def test_run(need_tool: Callable[[str], str], tmp_path: Path) -> None:
    """The script of the README: compile, build, run."""
    for tool in ("cmake", "g++", "javac"):
        need_tool(tool)
    environment = {**os.environ, "INFC_VENV": str(Path(sys.prefix))}
    done = subprocess.run(
        [DIGITS / "run", "cpu", tmp_path / "out"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cpp, java = done.stdout.partition("C++:\n")[2].split("Java:\n")
    assert cpp == java
    assert cpp.splitlines()[-1] == "accuracy 59/60"

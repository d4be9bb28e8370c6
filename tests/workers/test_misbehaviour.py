"""Whatever a worker does, the driver answers with one diagnostic and the other targets finish."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from infc import building, driver, targets, workers
from infc.bundle import open_bundle
from infc.diagnostics import ExitCode
from infc.request import Request, VerifyOptions, WorkerLimits

LOOK_UP = targets.look_up
CALL = workers.call
HANGING_S = 6.0

CASES = [
    ("segfault", "build", "E502", "SIGSEGV"),
    ("segfault", "run", "E502", "SIGSEGV"),
    ("flood", "build", "E502", "the last words"),
    ("garbage", "build", "E504", "not of the protocol"),
    ("silent-exit", "build", "E504", "without an answer"),
    ("no-file", "build", "E504", "did not write absent.bin"),
    ("exit", "build", "E502", "status 7"),
    ("raise", "build", "E506", "something in the SDK broke"),
    ("raise", "run", "E506", "something in the SDK broke"),
    ("memory", "build", "E505", "memory limit"),
    ("hang", "build", "E503", "stopped after"),
    ("hang", "run", "E503", "stopped after"),
]


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make the target `evil` known to the driver and its workers; returns the pid file."""
    site = tmp_path / "site"
    metadata = site / "evil-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[infc.targets]\nevil = evil_back_end\n")
    shutil.copyfile(Path(__file__).with_name("evil_back_end.py"), site / "evil_back_end.py")
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("INFC_EVIL_PID", str(tmp_path / "pid"))
    targets.profiles.cache_clear()
    targets._offered.cache_clear()
    yield tmp_path / "pid"
    targets.profiles.cache_clear()
    targets._offered.cache_clear()
    sys.modules.pop("evil_back_end", None)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`impatient("run")` limits that step of the evil back end: others may take long under load."""

    def limit(action: str) -> None:
        def call(job: workers.Call, limits: WorkerLimits, progress: Any = None) -> dict[str, Any]:
            hangs = (job.module, job.action) == ("evil_back_end", action)
            return CALL(job, replace(limits, timeout_s=HANGING_S) if hangs else limits, progress)

        monkeypatch.setattr(workers, "call", call)

    return limit


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    onnx.save(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 13]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
        ),
        path,
    )
    return path


@pytest.mark.parametrize(("how", "when", "code", "says"), CASES)
def test_a_misbehaving_worker_is_one_diagnostic(
    evil: Path,
    impatient: Callable[[str], None],
    model: Path,
    tmp_path: Path,
    how: str,
    when: str,
    code: str,
    says: str,
) -> None:
    if how == "hang":
        impatient(when)
    limits = WorkerLimits(memory_bytes=2 << 30 if how == "memory" else None)
    request = Request(
        model, ("evil",), tmp_path / "out", options={"how": how, "when": when}, limits=limits,
        loaders=(),
    )  # fmt: skip
    result = driver.compile(request)
    (row,) = result.results
    (diagnostic,) = row.diagnostics
    assert diagnostic.code == code, diagnostic.render()
    assert says in diagnostic.render()
    if how not in ("no-file", "hang"):
        assert "about to misbehave" in diagnostic.render() or how == "flood"
    assert len(diagnostic.render()) < 10_000
    assert row.bundle is None
    assert result.exit_code == ExitCode.BUILD_FAILED
    left = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert left == ["tiny-evil.log"]
    assert row.log == tmp_path / "out" / "tiny-evil.log"


def test_the_children_of_a_hanging_worker_die_with_it(
    evil: Path, impatient: Callable[[str], None], model: Path, tmp_path: Path
) -> None:
    impatient("build")
    out = tmp_path / "out"
    driver.compile(Request(model, ("evil",), out, options={"how": "hang"}, loaders=()))
    pid = int(evil.read_text())
    for _ in range(50):
        if not _alive(pid):
            return
        time.sleep(0.1)
    pytest.fail(f"process {pid} outlived its worker")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_bug_in_a_back_end_leaves_the_other_targets_alone(
    evil: Path, model: Path, tmp_path: Path
) -> None:
    evil_target = targets.profiles()["evil"]
    with pytest.MonkeyPatch.context() as patch:
        broken = replace(evil_target, options={"how": "legalize"})
        patch.setattr(targets, "look_up", lambda n: broken if n == "evil" else LOOK_UP(n))
        result = driver.compile(Request(model, ("evil", "cpu"), tmp_path / "out", loaders=()))
    first, second = result.results
    assert [d.code for d in first.diagnostics] == ["E300"]
    assert "a bug in the back end's own code" in first.diagnostics[0].message
    assert second.bundle is not None


def test_a_graph_older_than_the_back_end_takes_is_converted_up(evil: Path, tmp_path: Path) -> None:
    text = """<ir_version: 4, opset_import: ["": 9]> g (float[2, 3] x) => (float[2] y)
    <float[3] w = {1, 2, 3}> {
      m = Mul(x, w)
      n = Clip <max = 4.0> (m)
      y = ReduceSum <axes = [1], keepdims = 0> (n)
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "old.onnx")
    request = Request(
        tmp_path / "old.onnx", ("evil",), tmp_path / "out", loaders=(),
        verify=VerifyOptions(enabled=False),
    )  # fmt: skip
    (row,) = driver.compile(request).results
    assert row.bundle is not None, row.diagnostics
    assert open_bundle(row.bundle).manifest["artifact"]["notes"] == {"opset": 13}

    old = ir.load(tmp_path / "old.onnx")
    new = building.raise_opset(old, targets.back_end("evil"))
    x = np.float32([[1, 2, 3], [-1, 1, 0.5]])
    answers = [
        onnxruntime.InferenceSession(ir.to_proto(m).SerializeToString()).run(None, {"x": x})[0]
        for m in (old, new)
    ]
    assert answers[0].tolist() == answers[1].tolist() == [1 + 4 + 4, -1 + 2 + 1.5]


def test_the_other_targets_of_the_command_finish(evil: Path, model: Path, tmp_path: Path) -> None:
    request = Request(model, ("evil", "cpu"), tmp_path / "out", loaders=("cpp",))
    result = driver.compile(request)
    broken, fine = result.results
    assert broken.diagnostics[0].code == "E602"  # it answers zeros of another shape
    assert fine.bundle is not None
    assert (fine.bundle / "manifest.json").exists()
    assert result.exit_code == ExitCode.VERIFICATION_FAILED

"""Whatever a worker does, the driver answers with one diagnostic and the other targets finish."""

from __future__ import annotations

import os
import time
from pathlib import Path

import onnx
import pytest

from infc import driver
from infc.diagnostics import ExitCode
from infc.request import Request, WorkerLimits

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
    evil: Path, model: Path, tmp_path: Path, how: str, when: str, code: str, says: str
) -> None:
    limits = WorkerLimits(
        timeout_s=4.0 if how == "hang" else 60.0,
        memory_bytes=2 << 30 if how == "memory" else None,
    )
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
    evil: Path, model: Path, tmp_path: Path
) -> None:
    request = Request(
        model, ("evil",), tmp_path / "out", options={"how": "hang"},
        limits=WorkerLimits(timeout_s=4.0), loaders=(),
    )  # fmt: skip
    driver.compile(request)
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


def test_the_other_targets_of_the_command_finish(evil: Path, model: Path, tmp_path: Path) -> None:
    request = Request(model, ("evil", "cpu"), tmp_path / "out", loaders=("cpp",))
    result = driver.compile(request)
    broken, fine = result.results
    assert broken.diagnostics[0].code == "E602"  # it answers zeros of another shape
    assert fine.bundle is not None
    assert (fine.bundle / "manifest.json").exists()
    assert result.exit_code == ExitCode.VERIFICATION_FAILED

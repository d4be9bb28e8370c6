"""The driver's side of a worker: waiting for its end, and what may be imported in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from infc import workers
from infc.diagnostics import InfcError
from infc.request import WorkerLimits
from infc.targets import Worker, look_up, tvm

SCRIPT = """
import time

def imported(payload):
    import email.mime.audio
    return {"found": True}

def slow(payload):
    time.sleep(payload["seconds"])
    return {}

def reporting(payload):
    import __main__, time
    __main__.report(done=1)
    while not __import__("os").path.exists(payload["seen"]):
        time.sleep(0.01)
    return {}

def leaving(payload):
    import os, signal, tempfile
    with open(payload["place"], "w") as stream:
        stream.write(tempfile.mkdtemp())
    os.kill(os.getpid(), signal.SIGSEGV)

ACTIONS = {"imported": imported, "slow": slow, "reporting": reporting, "leaving": leaving}
"""


def job(folder: Path, action: str, without: tuple[str, ...] = (), **payload: Any) -> workers.Call:
    script = folder / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    where = Worker(script=script, without=without)
    return workers.Call("", action, payload, folder / "w", folder / "log", "the job", where)


@pytest.fixture(params=["pidfd", "polling"])
def waiting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without a descriptor to wait for, which older kernels do not have."""

    def refuse(pid: int) -> NoReturn:
        raise OSError

    if request.param == "polling":
        monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)


def test_a_module_that_is_left_out_cannot_be_imported(tmp_path: Path) -> None:
    assert workers.call(job(tmp_path, "imported"), WorkerLimits())["found"]
    with pytest.raises(InfcError, match=r"E501.*email\.mime\.audio"):
        workers.call(job(tmp_path, "imported", ("email.mime.audio",)), WorkerLimits())


def test_tvm_is_not_told_of_torch() -> None:
    assert tvm.worker(look_up("tvm")).without == ("torch",)


@pytest.mark.usefixtures("waiting")
def test_the_end_and_the_limit(tmp_path: Path) -> None:
    assert workers.call(job(tmp_path, "slow", seconds=0), WorkerLimits()) == {}
    with pytest.raises(InfcError, match="E503"):
        workers.call(job(tmp_path, "slow", seconds=600), WorkerLimits(timeout_s=0.5))


@pytest.mark.usefixtures("waiting")
def test_what_it_reports_is_passed_on_while_it_runs(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    reports: list[dict[str, Any]] = []

    def progress(values: Any) -> None:
        reports.append(dict(values))
        seen.touch()

    workers.call(job(tmp_path, "reporting", seen=str(seen)), WorkerLimits(), progress)
    assert reports[0] == {"done": 1}


def test_a_limit_of_years(tmp_path: Path) -> None:
    assert workers.call(job(tmp_path, "slow", seconds=0), WorkerLimits(timeout_s=1e9)) == {}


def test_a_worker_that_dies_leaves_nothing_in_the_temporary_folder(tmp_path: Path) -> None:
    with pytest.raises(InfcError, match="E502"):
        workers.call(job(tmp_path, "leaving", place=str(tmp_path / "place")), WorkerLimits())
    left = Path((tmp_path / "place").read_text(encoding="utf-8"))
    assert left.name
    assert not left.exists()
    assert not left.parent.exists()

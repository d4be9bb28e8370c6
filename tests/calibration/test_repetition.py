"""Samples of a function: cached and taken up again by what they hold, not by their names."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import psutil
import pytest

from infc.calibration import Calibration, calibrate
from infc.calibration.data import open_samples
from infc.calibration.repetition import Repetition, digest_of
from infc.diagnostics import InfcError
from infc.request import CalibrationOptions, WorkerLimits
from infc.signature import TensorSpec

LIMITS = WorkerLimits(timeout_s=300)
NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[4] x) => (float[4] y) { half = Sigmoid(x)  y = Neg(half) }
"""
SAME = """
import numpy as np
def f():
    for i in range({count}):
        yield np.full(4, i + {offset} * (i >= {since}), np.float32)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFC_HOME", str(tmp_path / "home"))


class Project:
    """A folder with the user's code, calibrated as often as one likes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, 0

    def calibrate(self, text: str, progress: object = None, every_s: float = 10.0) -> Calibration:
        self.runs += 1
        (self.folder / "mine.py").write_text(text)
        options = CalibrationOptions("mine.py:f", samples=None)
        samples = open_samples(options, (TensorSpec("x", "float32", (4,)),), self.folder)
        model = ir.from_proto(onnx.parser.parse_model(NET))
        scratch = self.folder / str(self.runs)
        names = ["x", "half"]
        return calibrate(
            model,
            names,
            samples,
            scratch,
            LIMITS,
            progress,
            checkpoint_s=every_s,  # type: ignore[arg-type]
        )

    def fresh(self, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
        """The ranges without any cache."""
        with monkeypatch.context() as patch:
            patch.setenv("INFC_HOME", str(self.folder / f"fresh-{self.runs}"))
            return self.calibrate(text).ranges.dump()


def text(count: int = 30, offset: int = 0, since: int = 0) -> str:
    return SAME.format(count=count, offset=offset, since=since)


def test_the_same_samples_are_not_run_again(tmp_path: Path) -> None:
    project = Project(tmp_path)
    first = project.calibrate(text())
    assert (first.cached, first.resumed, first.ranges.samples) == (False, 0, 30)
    again = project.calibrate(text() + "# the code differs, the samples do not\n")
    assert (again.cached, again.resumed) == (True, 30)
    assert again.ranges.dump() == first.ranges.dump()
    assert again.ranges.data, "what they hold is known by now"
    assert again.diagnostics == first.diagnostics


def test_more_samples_go_on_after_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    project.calibrate(text(30))
    longer = project.calibrate(text(50))
    assert (longer.cached, longer.resumed, longer.ranges.samples) == (False, 30, 50)
    assert longer.ranges.dump() == project.fresh(text(50), monkeypatch)


@pytest.mark.parametrize(
    ("count", "since"), [(30, 0), (30, 12), (30, 29), (20, 99), (1, 99)],
    ids=["the first differs", "one differs", "the last differs", "fewer", "one is left"],
)  # fmt: skip
def test_other_samples_are_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, since: int
) -> None:
    project = Project(tmp_path)
    project.calibrate(text())
    changed = project.calibrate(text(count, 100, since))
    assert (changed.cached, changed.resumed, changed.ranges.samples) == (False, 0, count)
    assert changed.ranges.dump() == project.fresh(text(count, 100, since), monkeypatch)


RANDOM = """
import numpy as np
def f():
    for i in range(30):
        yield np.zeros(4, np.float32) if i < {same} else np.random.randn(4).astype(np.float32)
"""


@pytest.mark.parametrize("same", [0, 10])
def test_what_is_random_is_measured_on_one_call(tmp_path: Path, same: int) -> None:
    project = Project(tmp_path)
    first, second = (project.calibrate(RANDOM.format(same=same)) for _ in range(2))
    assert not second.cached
    assert second.ranges.samples == 30
    assert second.ranges.data != first.ranges.data


def test_an_iterator_is_read_once(tmp_path: Path) -> None:
    project = Project(tmp_path)
    lines = "import numpy as np\nf = (np.full(4, i, np.float32) for i in range({}))\n"
    project.calibrate(lines.format(30))
    shorter = project.calibrate(lines.format(25))
    assert (shorter.cached, shorter.ranges.samples) == (False, 25)


def test_damaged_digests_are_as_good_as_none(tmp_path: Path) -> None:
    project = Project(tmp_path)
    first = project.calibrate(text())
    (digests,) = (tmp_path / "home").rglob("*.samples")
    digests.write_text(digests.read_text()[:-40])
    again = project.calibrate(text())
    assert not again.cached
    assert again.ranges.dump() == first.ranges.dump()


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path)

    def kill(_done: int, _total: int | None) -> None:
        if list((tmp_path / "home").rglob("*.partial")):
            for child in psutil.Process().children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(InfcError) as raised:
        project.calibrate(text(6000), kill, every_s=0.05)
    assert raised.value.diagnostics[0].code == "E505"
    resumed = project.calibrate(text(6000))
    assert 0 < resumed.resumed < 6000
    assert resumed.ranges.dump() == project.fresh(text(6000), monkeypatch)


def test_the_first_sample_of_a_new_function_is_not_made_twice() -> None:
    calls = []

    def start() -> Iterator[dict[str, np.ndarray]]:
        calls.append(1)
        yield from ({"x": np.float32([i])} for i in range(3))

    again = Repetition(start, ["another"])
    done, rest = again.rest()
    assert (done, [float(feed["x"][0]) for feed in rest], len(calls)) == (0, [0, 1, 2], 1)
    assert again.digests == [digest_of({"x": np.float32([i])}) for i in range(3)]


def test_type_and_shape_are_part_of_what_a_sample_is() -> None:
    zeros = [np.zeros(4, np.float32), np.zeros((2, 2), np.float32), np.zeros(4, np.int32)]
    feeds = [*({"x": array} for array in zeros), {"y": zeros[0]}]
    assert len({digest_of(feed) for feed in feeds}) == 4

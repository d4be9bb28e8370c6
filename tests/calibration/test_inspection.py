"""A ranges file as people see it: `infc inspect`, and the pictures in `report.html`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from command import infc

from infc.calibration.observers import observe
from infc.calibration.pictures import COLUMNS, HEIGHT, pictures
from infc.calibration.ranges import Ranges
from infc.calibration.thresholds import METHODS
from infc.diagnostics import InfcError
from infc.quantization import Range


@pytest.fixture
def ranges() -> Ranges:
    rng = np.random.default_rng(0)
    tensors = {
        "relu": observe(np.maximum(rng.standard_normal((1, 8, 40, 40)), 0), 1, 0),
        "long.tailed/<b>": observe(rng.laplace(size=(1, 8, 40, 40)), 1, 0),
        "zeros": observe(np.zeros((1, 8)), 1, 0),
        "mask": observe(np.array([0.0, -np.inf]), None, 0),
    }
    return Ranges("a" * 64, "b" * 64, 1, tensors)


@pytest.mark.parametrize("name", ["ranges.json", "no-suffix"])
def test_inspect(ranges: Ranges, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(ranges.dump())
    document = infc("inspect", path, "--json").document
    assert (document["kind"], document["samples"]) == ("ranges", 1)
    rows = {row["name"]: row for row in document["tensors"]}
    assert set(rows) == set(ranges.tensors)
    for row_name, row in rows.items():
        assert set(row["ranges"]) == set(METHODS)
        statistics = ranges.tensors[row_name]
        assert (row["min"], row["max"]) == (statistics.low, statistics.high)
        assert row["ranges"]["minmax"] == [min(row["min"], 0), max(row["max"], 0)]
    low, high = rows["long.tailed/<b>"]["ranges"]["mse"]
    assert rows["long.tailed/<b>"]["min"] <= low < 0 < high < rows["long.tailed/<b>"]["max"]
    text = infc("inspect", path).out
    (line,) = [line for line in text.splitlines() if line.startswith("relu")]
    assert f"{rows['relu']['max']:.4g}" in line
    assert f"0 .. {rows['relu']['ranges']['entropy'][1]:.4g}" in line
    (line,) = [line for line in text.splitlines() if line.startswith("mask")]
    assert line.endswith("1 infinite")


def test_inspect_refuses_a_damaged_file(ranges: Ranges, tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    path.write_text(ranges.dump()[:-200])
    done = infc("inspect", path)
    assert done.status == 1
    assert done.err.startswith("error[E411]: ")


def test_without_tensors(tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    path.write_text(Ranges("m", "", 0, {}).dump())
    assert infc("inspect", path).status == 0


def test_a_picture_shows_where_the_values_are(ranges: Ranges) -> None:
    chosen = {"relu": Range(0, 2.0), "zeros": Range(0, 0)}
    relu, zeros = pictures(ranges, chosen)
    tops = [float(v) for v in re.findall(r"V([\d.]+)h1", relu.path)]
    assert len(tops) == COLUMNS
    assert min(tops) == min(tops[: COLUMNS // 3])  # the fullest columns are near zero
    assert min(tops) >= 0
    assert max(tops) <= HEIGHT
    assert tops[-1] > tops[0]
    assert relu.left == 0
    assert relu.right == pytest.approx(2.0 / ranges.tensors["relu"].high * COLUMNS, abs=0.01)
    assert (zeros.low, zeros.high, zeros.left, zeros.right) == ("0", "0", 0, 0)
    with pytest.raises(InfcError):
        pictures(ranges, {"nothing": Range(0, 1)})

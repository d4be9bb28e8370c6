"""The ranges file: what is written is read, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infc.calibration.observers import observe
from infc.calibration.ranges import Ranges, is_ranges, load
from infc.diagnostics import InfcError
from infc.quantization import Range


def ranges() -> Ranges:
    rng = np.random.default_rng(0)
    tensors = {
        "x": observe(rng.standard_normal((1, 3, 8, 8)).astype(np.float32), 1, 0),
        'a "name"\n': observe(rng.gamma(0.1, 1.0, (4, 5)).astype(np.float32) - 1, -1, 0),
        "scalar": observe(np.float32(2.5), None, 0),
        "zeros": observe(np.zeros((2, 2), np.float32), -1, 0),
        "broken": observe(np.array([1.0, np.inf], np.float32), -1, 0),
    }
    return Ranges("0" * 64, "f" * 64, 1, tensors)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    text = ranges().dump()
    path = tmp_path / "ranges.json"
    path.write_text(text)
    assert is_ranges(path)
    found = load(path)
    assert found.dump() == text == ranges().dump()
    assert found.tensors["x"].means is not None
    document = json.loads(text)
    assert document["tensors"]["scalar"]["min"] == 2.5
    assert len(text.splitlines()) == 3 + len(document["tensors"])


def test_histograms_are_in_real_units() -> None:
    row = json.loads(ranges().dump())["tensors"]["scalar"]
    (exponent, counts), = row["positive"].items()  # fmt: skip
    place = counts.index(1)
    assert 2.0 ** int(exponent) * (1 + place / 128) == 2.5
    assert row["negative"] == {}


def test_choosing_for_several_tensors() -> None:
    found = ranges().choose(["scalar", "zeros"], "minmax", 99.99, "uint8", False)
    assert found == {"scalar": Range(0, 2.5), "zeros": Range(0, 0)}
    with pytest.raises(InfcError) as raised:
        ranges().choose(["x", "y", "z"], "minmax", 99.99, "uint8", False)
    diagnostic = raised.value.diagnostics[0]
    assert diagnostic.code == "E411"
    assert diagnostic.message == "the ranges hold nothing about `y`, `z`"


def test_infinite_values_are_reported() -> None:
    (warning,) = ranges().findings()
    assert (warning.code, warning.severity) == ("E412", "warning")
    assert "`broken` holds 1 infinite value" in warning.message


def row(change: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda document: change(document["tensors"]["x"])


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda d: d.update(format="other"), "`format`"),
        (lambda d: d.update(version=2), "version 2; this infc reads version 1"),
        (lambda d: d.update(version=True), "version True"),
        (lambda d: d.pop("model"), "$ does not have the fields"),
        (lambda d: d.update(model=3), "`model` and `data`"),
        (lambda d: d.update(extra=3), "$ does not have the fields"),
        (lambda d: d.update(samples=-1), "`samples` is not a count"),
        (lambda d: d.update(tensors=[]), "`tensors` is not an object"),
        (lambda d: d["histogram"].update(steps=64), "histograms of another size"),
        (row(lambda t: t.pop("zero")), "tensor `x` does not have the fields"),
        (row(lambda t: t.update(min="0")), "tensor `x`: `min` is not a number"),
        (row(lambda t: t.update(min=float("nan"))), "tensor `x`: `min` is not a number"),
        (row(lambda t: t.update(min=10**400)), "tensor `x`: `min` is not a number"),
        (row(lambda t: t.update(max=-5.0)), "tensor `x`: the extremes"),
        (row(lambda t: t.update(max=3.4028236e38)), "tensor `x`: the extremes"),
        (row(lambda t: t.update(samples=True)), "tensor `x`: `samples` is not a count"),
        (row(lambda t: t.update(axis=1000)), "tensor `x`: `axis`"),
        (row(lambda t: t.update(means={})), "tensor `x`: `means`"),
        (row(lambda t: t.update(means=[None])), "tensor `x`: `means`"),
        (row(lambda t: t.update(means=[0.0] * (2**16 + 1))), "tensor `x`: `means`"),
        (row(lambda t: t["positive"].update({"500": [0] * 128})), "tensor `x`: `positive`: `500`"),
        (row(lambda t: t["negative"].update({"-1": [1]})), "tensor `x`: `negative`: `-1`"),
        (row(lambda t: t["positive"].update({"-1": [2**63] + [0] * 127})), "is not a count"),
        (row(lambda t: t["positive"].update({"-1": [2**61] * 128})), "more values than there"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place(
    change: Callable[[Any], object], place: str, tmp_path: Path
) -> None:
    document = json.loads(ranges().dump())
    change(document)
    path = tmp_path / "r.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InfcError) as raised:
        load(path)
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "E411"
    assert place in diagnostic.message


@pytest.mark.parametrize("content", [b"", b"[]", b"nul", b"\xff\xfe", b"[" * 100_000, b'{"a": 1}'])
def test_what_is_no_ranges_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    for place in (path, tmp_path / "missing", tmp_path):
        with pytest.raises(InfcError) as raised:
            load(place)
        assert raised.value.diagnostics[0].code == "E411"
        assert not is_ranges(place)

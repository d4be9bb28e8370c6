"""A CSV of vectors as samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infc.calibration.data import Samples, open_samples
from infc.diagnostics import InfcError
from infc.preprocessing import Preprocess
from infc.request import CalibrationOptions
from infc.signature import TensorSpec

VECTOR = TensorSpec("x", "float32", ("batch", 3))


def samples(path: Path, spec: str = "", model: TensorSpec = VECTOR, **more: Any) -> Samples:
    preprocess = Preprocess.parse(spec) if spec else None
    return open_samples(CalibrationOptions(str(path), preprocess=preprocess, **more), (model,))


def rows(
    text: str, tmp_path: Path, spec: str = "", model: TensorSpec = VECTOR
) -> list[list[float]]:
    (tmp_path / "t.csv").write_text(text)
    return [f["x"].reshape(-1).tolist() for f in samples(tmp_path / "t.csv", spec, model)]


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("1,2,3\n4,5,6\n", ""),
        ("\ufeff1,2,3\r\n4,5,6", ""),
        ("a,b,c\n1,2,3\n\n4,5,6\n", ""),
        ("1;2;3\n4;5;6\n", ""),
        ("1\t2\t3\n4\t5\t6\n", ""),
        ("1 2 3\n4 5 6\n", ""),
        (' 1 ,"2", 3\n+4,5e0,6.\n', ""),
        ("0,1,2,3\n1,4,5,6\n", "columns=1:"),
        ("0,1,2,3\n1,4,5,6\n", "label=0"),
        ("a,b,kind,c\n1,2,cat,3\n4,5,dog,6\n", "label=kind"),
        ("1,2,3,cat\n4,5,6,dog\n", "label=3"),
        ("0,1,2,3,9\n1,4,5,6,9\n", "label=0,columns=:4"),
        ("11,12,13\n14,15,16\n", "mean=10"),
    ],
)
def test_ways_to_write_it(text: str, spec: str, tmp_path: Path) -> None:
    assert rows(text, tmp_path, spec) == [[1, 2, 3], [4, 5, 6]]


def test_rows_take_the_inputs_shape(tmp_path: Path) -> None:
    text = "1,2,3,4,5,6\n"
    for shape, wanted in (
        ((1, 2, 3), (1, 2, 3)),
        ((1, "n", 3), (1, 2, 3)),
        (("batch", "n"), (1, 6)),
        (("n",), (6,)),
    ):
        (tmp_path / "t.csv").write_text(text)
        (feed,) = samples(tmp_path / "t.csv", model=TensorSpec("x", "float32", shape))
        assert feed["x"].shape == wanted
        np.testing.assert_array_equal(feed["x"].reshape(-1), np.arange(1, 7))


def test_whole_numbers_serve_an_integer_input(tmp_path: Path) -> None:
    ids = TensorSpec("x", "int64", ("batch", 3))
    assert rows("1,2,3\n", tmp_path, model=ids) == [[1, 2, 3]]
    with pytest.raises(InfcError, match=r"(?s)E404.*t\.csv:2"):
        rows("1,2,3\n1,2.5,3\n", tmp_path, model=ids)


@pytest.mark.parametrize(
    ("text", "spec", "code", "says"),
    [
        ("", "", "E401", "empty"),
        ("a,b,c\n", "", "E401", "no sample"),
        ("1,2\n", "", "E403", "a row has 2 numbers, but `x` takes batchx3"),
        ("1,2,3\n4,5\n", "", "E402", "t.csv:2"),
        ("1,2,3\n4,five,6\n", "", "E402", "column 1 holds `five`"),
        ("1,2,3\n4,nan,6\n", "", "E406", "t.csv:2"),
        ("1,2,3\n4,1e999,6\n", "", "E406", "the first at [1]"),
        ("1,2,3,4\n", "label=5", "E405", "numbered from 0 to 3"),
        ("a,kind,b,c\n1,2,3,4\n", "label=kinds", "E405", "did you mean `kind`?"),
        ("1,2,3\n", "columns=5:", "E405", "has 3 columns"),
        ("1,2,3\n", "resize=3x3", "E110", "`resize=` cannot be done to a table"),
        ("1,2,3\n4,5,6\xff\n", "", "E402", "decode"),
    ],
)
def test_what_is_wrong_is_named(text: str, spec: str, code: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InfcError) as caught:
        list(samples(path, spec))
    assert caught.value.diagnostics[0].code == code
    assert says in caught.value.diagnostics[0].render()


def test_an_endless_line_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("wb") as stream:
        stream.write(b"1,")
        for _ in range(17):
            stream.write(b"1" * (1 << 20))
    with pytest.raises(InfcError, match=r"E402.*a line of more than"):
        samples(tmp_path / "t.csv")


def test_one_input_only(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("1,2,3\n")
    with pytest.raises(InfcError, match="E405"):
        open_samples(CalibrationOptions(str(tmp_path / "t.csv")), (VECTOR, VECTOR))


@pytest.mark.models
def test_hand_keypoint_rows(models: Path) -> None:
    path = models / "hand_keypoint/keypoint.csv"
    model = TensorSpec("x", "float32", ("batch", 42))
    wanted = np.loadtxt(path, delimiter=",", dtype=np.float32)[:, 1:]
    whole = samples(path, "label=0", model, samples=None, batch=50)
    assert (whole.count, whole.batch) == (89, 50)
    np.testing.assert_allclose(np.concatenate([f["x"] for f in whole]), wanted, rtol=1e-6)
    assert whole.warnings == ()
    some = samples(path, "columns=1:", model)
    assert some.count == 512
    at = [i * 4450 // 512 for i in range(512)]
    np.testing.assert_allclose(np.concatenate([f["x"] for f in some]), wanted[at], rtol=1e-6)

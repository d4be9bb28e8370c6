"""State that TensorFlow keeps in variables: an input and an output each, in ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tensorflow_session

pytestmark = pytest.mark.timeout(1800)
RECURRENT = {"lstm": 2, "gru": 1}
ROUNDING = 1e-5
"""float32 sums in another order."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("states")


@pytest.fixture(scope="module")
def imports(folder: Path) -> Mapping[str, Any]:
    zoo = tensorflow_session.zoo()
    names = [f"stateful_{name}{suffix}" for name in RECURRENT for suffix in ("", ".keras")]
    names += ["sm_stateful", "stateful.keras", "sm_state_ordered", "sm_state_spectrum", "cnn.keras"]
    cases: dict[str, dict[str, Any]] = {name: {"path": zoo / name} for name in names}
    for name in RECURRENT:  # Keras exports them with a batch that varies, which the state does not
        cases[f"stateful_{name}"]["inputs"] = ["frames=2x1x3"]
    return tensorflow_session.import_all(cases, folder)


def done(imports: Mapping[str, Any], name: str) -> Any:
    row = imports[name]
    assert "errors" in row, row.get("traceback") or row["diagnostics"]
    assert max(row["errors"].values()) < ROUNDING
    return row


def session(folder: Path, name: str) -> onnxruntime.InferenceSession:
    path = folder / "imports" / name / "optimized.onnx"
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("suffix", ["", ".keras"])
@pytest.mark.parametrize("name", RECURRENT)
def test_two_steps_are_two_calls(
    imports: Mapping[str, Any], folder: Path, name: str, suffix: str
) -> None:
    """What comes out as the state goes in as the state, and Keras answers the same."""
    file = f"stateful_{name}{suffix}"
    row = done(imports, file)
    states = [port for port in row["inputs"] if "state" in port]
    assert len(states) == RECURRENT[name]
    assert [port for port in row["outputs"] if "state" in port] == [f"{s}_out" for s in states]
    for port in states:
        assert row["inputs"][port] == row["outputs"][f"{port}_out"] == ["float32", [2, 5]]
    (given,) = set(row["inputs"]) - set(states)
    rows = np.load(tensorflow_session.zoo() / f"stateful_{name}.npz")
    run = session(folder, file)
    state = {port: np.zeros((2, 5), np.float32) for port in states}
    for step in range(2):
        feeds = {given: rows[f"x{step}"], **state}
        answers = dict(zip(row["outputs"], run.run(list(row["outputs"]), feeds), strict=True))
        state = {port: answers.pop(f"{port}_out") for port in states}
        (scores,) = answers.values()
        np.testing.assert_allclose(scores, rows[f"y{step}"], atol=ROUNDING)


def test_the_user_is_told(imports: Mapping[str, Any]) -> None:
    (note,) = imports["stateful_gru.keras"]["notes"]
    assert note["severity"] == "note"
    ((state, _),) = [p for p in imports["stateful_gru.keras"]["inputs"].items() if "state" in p[0]]
    assert f"`{state}` -> `{state}_out`" in note["message"]
    assert "all zeros at first" in note["message"]
    assert not note["help"]
    assert "--input frames=2x1x3" in imports["stateful_gru"]["notes"][0]["help"]
    assert "not all zeros" in imports["sm_state_ordered"]["notes"][0]["message"]
    assert imports["cnn.keras"]["notes"] == []


def test_reads_between_assignments(imports: Mapping[str, Any], folder: Path) -> None:
    """Each read has what was assigned before it; `assign_sub` and `assign_add` as well."""
    row = done(imports, "sm_state_ordered")
    assert set(row["inputs"]) == {"x", "last_state", "count_state"}
    x, last = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2, 3), 3, np.float32)
    feeds = {"x": x, "last_state": last, "count_state": np.array(7, np.float32)}
    names = ["y", "last_state_out", "count_state_out"]
    y, after, count = session(folder, "sm_state_ordered").run(names, feeds)
    np.testing.assert_array_equal(after, 2 * x - last)
    np.testing.assert_array_equal(count, np.float32(8))
    np.testing.assert_allclose(y, last + 20 * x + 100 * (2 * x - last) + 8)


def test_a_state_without_dimensions(imports: Mapping[str, Any]) -> None:
    assert done(imports, "sm_stateful")["inputs"]["count_state"] == ["float32", []]


def test_several_steps_at_once(imports: Mapping[str, Any]) -> None:
    row = done(imports, "stateful.keras")
    assert len(row["inputs"]) == 3
    assert len(row["outputs"]) == 3


def test_a_spectrum_and_back(imports: Mapping[str, Any], folder: Path) -> None:
    """Complex numbers become pairs; silence, which has no phase, stays silence."""
    done(imports, "sm_state_spectrum")
    silence = np.zeros((3, 16), np.float32)
    y, im = session(folder, "sm_state_spectrum").run(["y", "im"], {"x": silence})
    assert not y.any()
    assert not im.any()

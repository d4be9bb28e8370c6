"""What cannot come in from TensorFlow: one diagnostic each, and nothing of the file was run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tensorflow_session

from infc import workers
from infc.diagnostics import InfcError
from infc.frontends import Reading, load

pytestmark = pytest.mark.timeout(1800)
REFUSALS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lambda.keras": ("E113", "twice", {}),
    "lambda.h5": ("E113", "twice", {}),
    "custom.keras": ("E114", "`Steep`", {}),
    "custom.h5": ("E114", "`Steep`", {}),
    "only.weights.h5": ("E114", "holds weights only", {}),
    "unbuilt.keras": ("E115", "before it was built", {}),
    "text.keras": ("E108", "`text` is string", {}),
    "sm_state_branch": ("E111", "keeps a state", {}),
    "sm_state_part": ("E111", "keeps a state", {}),
    "sm_text": ("E108", "`text` is string", {}),
    "sm_none": ("E114", "has no signature", {}),
    "sm_two": ("E110", "`branch`, `plain`", {}),
    "sm_noisy": ("E111", "random numbers", {}),
    "int16.tflite": ("E111", "16 bits", {}),
    "sm_bfloat16": ("E111", "computes in bfloat16", {}),
    "sm_writes": ("E113", "`WriteFile`", {}),
    "sm_ranks": ("E115", "`x`", {}),
    "sm_no_variables": ("E114", "cannot load", {}),
    "unfrozen.pb": ("E114", "not frozen", {}),
    "no_rank.pb": ("E115", "`x:0`", {}),
    "third_party.pb": ("E111", "`MyOperator`", {}),
    "no_signature": ("E110", "no signature `plane`", {"signature": "plane"}),
    "two.tflite": ("E110", "several signatures: `branch`, `plain`", {}),
    "second_signature": ("E110", "only that of its first graph", {"signature": "plain"}),
    "no_output": ("E110", "no node `halfs`", {"outputs": ["halfs"]}),
}
"""Case: the code, what its message says, and the options."""
ELSEWHERE = {
    "no_signature": "sm_two",
    "no_output": "graph.pb",
    "second_signature": "two.tflite",
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    zoo = tensorflow_session.zoo()
    cases: dict[str, dict[str, Any]] = {
        name: {"path": zoo / ELSEWHERE.get(name, name), "options": options}
        for name, (_, _, options) in REFUSALS.items()
    }
    cases["sm_unsupported"] = {"path": zoo / "sm_unsupported"}
    folder = tmp_path_factory.mktemp("cut")
    for name in ("cnn.keras", "cnn.h5", "cnn.tflite", "cnn.pb"):
        data = (zoo / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
        cases[f"cut {name}"] = {"path": folder / name}
    cut = folder / "sm"
    cut.mkdir()
    data = (zoo / "cnn" / "saved_model.pb").read_bytes()
    (cut / "saved_model.pb").write_bytes(data[: len(data) // 2])
    cases["cut saved_model"] = {"path": cut}
    return tensorflow_session.import_all(cases, tmp_path_factory.mktemp("refusals"))


def only(answers: Mapping[str, Any], name: str) -> Any:
    row = answers[name]
    assert "diagnostics" in row, row.get("traceback") or f"{name} was imported"
    (diagnostic,) = row["diagnostics"]
    return diagnostic


@pytest.mark.parametrize("name", REFUSALS)
def test_one_diagnostic(answers: Mapping[str, Any], name: str) -> None:
    code, says, _ = REFUSALS[name]
    diagnostic = only(answers, name)
    assert diagnostic["code"] == code
    assert says in diagnostic["message"]
    assert diagnostic["help"]


@pytest.mark.parametrize("form", ["keras", "h5", "tflite", "pb"])
def test_a_truncated_file(answers: Mapping[str, Any], form: str) -> None:
    assert only(answers, f"cut cnn.{form}")["code"] in ("E101", "E114", "E117")


def test_a_truncated_saved_model(answers: Mapping[str, Any]) -> None:
    assert only(answers, "cut saved_model")["code"] in ("E114", "E117")


def test_every_operation_that_onnx_lacks_is_named(answers: Mapping[str, Any]) -> None:
    found = answers["sm_unsupported"]["diagnostics"]
    assert {row["code"] for row in found} == {"E111"}
    text = " ".join(row["message"] + row["where"] for row in found)
    assert "Svd" in text
    assert "Lgamma" in text


def test_nothing_was_written(answers: Mapping[str, Any]) -> None:
    assert only(answers, "sm_writes")["code"] == "E113"
    assert not list(tensorflow_session.zoo().glob("**/written"))
    assert not Path("written").exists()


def test_without_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFC_HOME", str(tmp_path / "home"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"\x08\x01\x12\x02\x0a\x00")

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("no worker is started")

    monkeypatch.setattr(workers, "call", never)
    with pytest.raises(InfcError) as caught:
        load(folder, (), Reading(tmp_path / "scratch"))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E501"
    assert "infc toolchain install tensorflow" in diagnostic.help

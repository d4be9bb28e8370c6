"""What an exporter writes is not believed: it is checked, run and compared before anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import infc
from infc.diagnostics import InfcError
from infc.frontends import importing
from infc.request import VerifyOptions

TWO_FACED = """
import torch

class TwoFaced(torch.nn.Module):
    def forward(self, x):
        return x * 2 if torch.compiler.is_exporting() else x * 3
"""


@pytest.fixture
def source(tmp_path: Path, need_module: Callable[[str], None]) -> str:
    need_module("torch")
    need_module("onnxscript")
    file = tmp_path / "two_faced.py"
    file.write_text(TWO_FACED, encoding="utf-8")
    return f"{file}:TwoFaced"


def test_an_export_that_answers_otherwise_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(InfcError, match=r"`torch\.export` made of the model") as caught:
        infc.compile(source, "cpu", tmp_path / "build", inputs={"x": "2x3"})
    assert [d.code for d in caught.value.diagnostics] == ["E112"]
    assert caught.value.exit_code is infc.ExitCode.VERIFICATION_FAILED
    assert not list((tmp_path / "build").glob("*"))


def test_it_is_believed_only_where_no_proof_is_asked_for(source: str, tmp_path: Path) -> None:
    result = infc.compile(source, "cpu", tmp_path, inputs={"x": "2x3"}, verify=False)
    assert result.results[0].verification["verdict"] == "skipped"


def test_an_export_that_is_no_valid_onnx_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    load = importing.onnx.load

    def damaged(path: Path, inputs: object) -> object:
        model = onnx.load(path)
        model.graph.node[0].input[0] = "nowhere"
        onnx.save(model, path)
        return load(path, inputs)

    monkeypatch.setattr(importing.onnx, "load", damaged)
    with pytest.raises(InfcError, match="left no valid ONNX") as caught:
        infc.compile(
            source, "cpu", tmp_path / "b", inputs={"x": "2x3"}, verify=VerifyOptions(samples=1)
        )
    (found,) = caught.value.diagnostics
    assert found.code == "E112"
    assert any("nowhere" in note for note in found.notes)


@pytest.mark.parametrize("layer", ["Conv1d(2, 2, 1)", "Linear(3, 2)"])
def test_arithmetic_that_is_bfloat16_in_the_code_comes_with_what_to_do(
    layer: str, tmp_path: Path, need_module: Callable[[str], None]
) -> None:
    """One is no valid ONNX, for the other the reference has no kernel."""
    need_module("torch")
    need_module("onnxscript")
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        f"        self.layer = torch.nn.{layer}\n"
        "    def forward(self, x):\n"
        "        weights = {k: v.bfloat16() for k, v in self.layer.named_parameters()}\n"
        "        call = torch.func.functional_call\n"
        "        return call(self.layer, weights, (x.bfloat16(),)).float()\n"
    )
    with pytest.raises(InfcError, match=r"let (it|the model) compute in float32") as caught:
        infc.compile(f"{tmp_path}/net.py:Net", "cpu", tmp_path / "b", inputs={"x": "2x3"})
    assert [d.code for d in caught.value.diagnostics] == ["E112"]

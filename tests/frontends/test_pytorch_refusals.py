"""What cannot be imported from PyTorch's code: one diagnostic, with the user's own line."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import infc
from torch_imports import import_model

from infc.diagnostics import InfcError

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.filterwarnings("ignore")

CASES = {
    "Stateful x=2x3": ("E111", "it changes its buffers `count`", ""),
    "Remembering x=2x3": ("E111", "it keeps something from call to call", ""),
    "Noisy x=2x3": ("E111", "it draws random numbers", ""),
    "PythonBranch x=1..4x4": ("E111", "depends on the values of a tensor", "in forward"),
    "CustomOperator x=1..4x4": ("E111", "`torch_sources::twice` is an operator", "in forward"),
    "Singular x=1..4x4": ("E111", "svd` has no counterpart in ONNX", "in forward"),
    "Bfloat16 x=1..4x4:bfloat16": ("E106", "in float32, its inputs with it", ""),
    "quantized": ("E111", "quantised by PyTorch", ""),
    "Text x=2x4": ("E111", "`forward` returns str, and no tensor", ""),
    "Opaque x=2x4": ("E111", "`forward` returns object as `output_1`", ""),
    "Complex x=2x4": ("E108", "`output` is complex64", ""),
    "Raising x=2x4": ("E107", "Tensors must have same number of dimensions", "in forward"),
    "OnlyTraining x=2x4": ("E107", "only for training", "in forward"),
    "Positions ids=2x8": ("E107", "expected", "in forward"),
    "Positions ids=1..4x1..32@8:int64": ("E106", "the model takes at most 16", ""),
    "Pairs x=1..4x4": ("E106", "torch.export makes it 2", ""),
    "Add a=nx3": ("E115", "`b` has no shape", ""),
    "Add a=nx3 c=nx3": ("E106", "no input `c`", ""),
    "Add a=nx3 b=nx3 c=3": ("E106", "no input `c`", ""),
    "nested batch_ids=2x3x1": ("E106", "has rank 3", ""),
    "Cnn": ("E115", "`x` has no shape", ""),
    "on_meta x=1x3x8x8": ("E114", "on the meta device", ""),
    "failing": ("E114", "there are no weights here", "in failing"),
    "number": ("E114", "returns int, not a module", ""),
    "OfSize": ("E114", "missing 1 required positional argument: 'size'", ""),
    "Leaving": ("E114", "SystemExit: 3", "in __init__"),
    "Cnm": ("E114", "has no `Cnm`", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_a_refusal(case: str, tmp_path: Path) -> None:
    name, *inputs = case.split()
    code, words, place = CASES[case]
    with pytest.raises(InfcError) as refused:
        import_model(f"torch_sources.py:{name}", *inputs, folder=tmp_path)
    (diagnostic,) = refused.value.diagnostics
    assert diagnostic.code == code
    assert words.lower() in diagnostic.message.lower()
    assert place in diagnostic.where
    assert not place or diagnostic.where.startswith("torch_sources.py:")


def test_what_cannot_be_found(tmp_path: Path) -> None:
    with pytest.raises(InfcError, match="there is no such file"):
        import_model("nowhere.py:Net", "x=1", folder=tmp_path / "a")
    with pytest.raises(InfcError, match="no_such_package"):
        import_model("no_such_package.models:Net", "x=1", folder=tmp_path)


def test_a_crash_names_the_users_line(tmp_path: Path) -> None:
    (tmp_path / "crash.py").write_text("import ctypes\ndef net():\n    ctypes.string_at(0)\n")
    done = infc("optimize", f"{tmp_path}/crash.py:net", "-o", tmp_path / "out.onnx")
    assert done.err.startswith("error[E502]: `pytorch` while exporting the model crashed with SIG")
    assert "--> crash.py:3 in net" in done.err


def test_the_type_of_token_ids_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InfcError) as refused:
        import_model("torch_sources.py:Positions", "ids=2x8", folder=tmp_path)
    assert "--input ids=...:int64" in refused.value.diagnostics[0].help

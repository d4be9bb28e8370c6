"""PyTorch's containers with code in them: nothing of it runs, and a diagnostic names it."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch_imports import import_model

from infc.diagnostics import InfcError
from infc.frontends.pytorch.program_files import is_expression

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore")


class Payload:
    """Unpickling it creates a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def zipped(path: Path, payload: Payload) -> None:
    torch.save({"state_dict": {"w": torch.zeros(1)}, "extra": payload}, path)


def legacy(path: Path, payload: Payload) -> None:
    torch.save({"w": payload}, path, _use_new_zipfile_serialization=False)


def torchscript(path: Path, payload: Payload) -> None:
    import pickle

    torch.jit.trace(torch.nn.ReLU(), torch.zeros(2)).save(path)
    rewrite(path, "traced_inputs.pkl", lambda _: pickle.dumps(payload))


def program(path: Path, payload: Payload) -> None:
    import io

    save_program(path)
    stream = io.BytesIO()
    torch.save((payload,), stream)
    rewrite(path, "model.pt", lambda _: stream.getvalue())


CONTAINERS = {"zip": zipped, "legacy": legacy, "torchscript": torchscript, "program": program}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_pickle_in_a_container_creates_no_file(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "created"
    path = tmp_path / "model.pt"
    CONTAINERS[kind](path, Payload(target))
    with pytest.raises(InfcError, match="E113") as refused:
        import_model(path, "x=2", folder=tmp_path, model="torch_sources.py:Cnn")
    assert not target.exists()
    assert "mkdir" in refused.value.diagnostics[0].message


def test_torchscript_that_writes_a_file_when_it_is_loaded(tmp_path: Path) -> None:
    target = tmp_path / "created"
    path = tmp_path / "model.pt"
    torch.jit.script(Loading()).save(path)
    rewrite(
        path,
        ".py",
        lambda code: code.replace(b"torch.relu(x)", f'torch.save(x, "{target}")'.encode()),
        contains=b"torch.relu(x)",
    )
    with pytest.raises(InfcError, match="E113") as refused:
        import_model(path, "x=2", folder=tmp_path)
    assert "torch.save" in refused.value.diagnostics[0].message
    assert not target.exists()


class Loading(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)


CODE = "__import__('pathlib').Path({!r}).touch()"
INJECTIONS: dict[str, Callable[[str, str], str]] = {
    "expression": lambda text, file: re.sub(
        r"Symbol\('s\d+', positive=True, integer=True\)", CODE.format(file), text
    ),
    "target": lambda text, file: text.replace(
        "torch.ops.aten.relu.default", "torch.serialization.os.mkdir"
    ),
    "operator": lambda text, file: text.replace("torch.ops.aten.relu.default", "_operator.call"),
    "file": lambda text, file: text.replace(
        "torch.ops.aten.relu.default", "torch.ops.aten.save.default"
    ),
    "import": lambda text, file: text.replace(
        '"in_spec": "', '"in_spec": "{\\"__enum__\\": true, \\"fqn\\": \\"os:x\\"}'
    ),
}


@pytest.mark.parametrize("kind", INJECTIONS)
def test_a_program_that_calls_python(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "created"
    path = tmp_path / "program.pt2"
    save_program(path)

    def change(data: bytes) -> bytes:
        before = data.decode()
        after = INJECTIONS[kind](before, str(target))
        assert before != after
        json.loads(after)
        return after.encode()

    rewrite(path, "models/model.json", change)
    with pytest.raises(InfcError, match="E113"):
        import_model(path, folder=tmp_path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Symbol('s77', positive=True, integer=True)", True),
        ("Add(Mul(Integer(2), Symbol('s0', integer=True)), Integer(-1))", True),
        ("FloorDiv(Symbol('s27', positive=True, integer=True), Integer(2))", True),
        ("2*s0 + 1", True),
        ("Float('0.5', precision=53)", True),
        ("().__class__", False),
        ("s0.func", False),
        ("open('x', 'w')", False),
        ("[s0 for s0 in ()]", False),
        ("lambda: 1", False),
        ("9**9**9**9**9**9", False),
        ("Symbol('__import__(1)')", False),
        ("99999999999999999999999", False),
        ("s0 +", False),
    ],
)
def test_expressions(text: str, plain: bool) -> None:
    assert is_expression(text) is plain


def test_a_program_with_a_custom_operator_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    save_program(path)
    rewrite(
        path,
        "models/model.json",
        lambda data: data.replace(b"torch.ops.aten.relu.default", b"torch.ops.own.fused.default"),
    )
    with pytest.raises(InfcError, match="own::fused"):
        import_model(path, folder=tmp_path)


def test_damaged_inside(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.jit.script(Loading()).save(path)
    rewrite(path, ".py", lambda code: b"class Loading(Module", contains=b"torch.relu")
    with pytest.raises(InfcError, match="E114"):
        import_model(path, "x=2", folder=tmp_path)


def save_program(path: Path) -> None:
    batch = {"input": {0: torch.export.Dim("n", min=1, max=8)}}
    made = torch.export.export(torch.nn.ReLU(), (torch.zeros(2),), dynamic_shapes=batch)
    torch.export.save(made, path)


def rewrite(
    path: Path, suffix: str, change: Callable[[bytes], bytes], contains: bytes = b""
) -> None:
    """Change the entry whose name ends in `suffix`; the archive stays sane otherwise."""
    with zipfile.ZipFile(path) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    (chosen,) = (n for n, data in entries if n.endswith(suffix) and contains in data)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries:
            archive.writestr(name, change(data) if name == chosen else data)

"""PyTorch's files as a source: checkpoints, TorchScript, programs of torch.export."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch_imports import HERE, Imported, import_model

from infc.diagnostics import InfcError

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.filterwarnings("ignore")

CODE = "torch_sources.py:Cnn"
IMAGES = "x=1..4x3x8x8"


@pytest.fixture(scope="module")
def sources() -> Any:
    sys.path.insert(0, str(HERE))
    import torch_sources

    return torch_sources


@pytest.fixture
def cnn(sources: Any) -> Any:
    torch.manual_seed(3)
    return sources.Cnn().eval()


def under_module(state: dict[str, Any]) -> dict[str, Any]:
    return {f"module.{name}": tensor for name, tensor in state.items()}


CHECKPOINTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "bare": lambda state: state,
    "data-parallel": lambda state: {"epoch": 3, "state_dict": under_module(state)},
    "model": lambda state: {"model": OrderedDict(state), "optimizer": {"lr": 0.1}},
    "two-levels": lambda state: {"model": {"state_dict": state}},
    "deep-prefix": lambda state: {"state_dict": {f"net.body.{k}": v for k, v in state.items()}},
    "compiled": lambda state: {f"_orig_mod.{k}": v for k, v in state.items()},
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_checkpoint_fills_its_model(cnn: Any, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(CHECKPOINTS[kind](cnn.state_dict()), path)
    done = import_model(path, IMAGES, folder=tmp_path, model=CODE)
    assert done.inputs == {"x": ("batch", 3, 8, 8)}
    assert answer(done) == pytest.approx(expected(cnn), abs=1e-5)


def test_a_legacy_checkpoint(cnn: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(cnn.state_dict(), path, _use_new_zipfile_serialization=False)
    done = import_model(path, IMAGES, folder=tmp_path, model=CODE)
    assert answer(done) == pytest.approx(expected(cnn), abs=1e-5)


def test_safetensors(cnn: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    save_file(cnn.state_dict(), path)
    done = import_model(path, IMAGES, folder=tmp_path, model=CODE)
    assert answer(done) == pytest.approx(expected(cnn), abs=1e-5)


def test_weights_make_a_module_on_the_meta_device_real(cnn: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(cnn.state_dict(), path)
    done = import_model(path, IMAGES, folder=tmp_path, model="torch_sources.py:on_meta")
    assert answer(done) == pytest.approx(expected(cnn), abs=1e-5)


def test_weights_of_another_model_are_named(cnn: Any, tmp_path: Path) -> None:
    state = cnn.state_dict()
    del state["head.bias"]
    state["extra"] = torch.zeros(1)
    state["conv.weight"] = torch.zeros(8, 3, 5, 5)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(InfcError) as refused:
        import_model(tmp_path / "weights.pth", IMAGES, folder=tmp_path, model=CODE)
    (diagnostic,) = refused.value.diagnostics
    assert diagnostic.code == "E114"
    assert diagnostic.notes == (
        "missing: head.bias",
        "not in the module: extra",
        "of another shape: conv.weight (8x3x5x5 in the file, 8x3x3x3 in the module)",
    )


@pytest.mark.parametrize(
    ("held", "model", "words"),
    [
        ({"a": 1}, CODE, "a mapping with the keys `a`"),
        (torch.zeros(3), CODE, "holds no state dict, but a Tensor"),
        ({"w": torch.zeros(3)}, "", "not the model that they belong to"),
    ],
    ids=["no-tensors", "tensor", "no-model"],
)
def test_weights_without_a_model(held: Any, model: str, words: str, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "weights.pth")
    with pytest.raises(InfcError, match="E114") as refused:
        import_model(tmp_path / "weights.pth", IMAGES, folder=tmp_path, model=model)
    assert words in refused.value.diagnostics[0].message


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickled_module_is_opened_only_where_it_is_allowed(
    cnn: Any, zipped: bool, tmp_path: Path
) -> None:
    path = tmp_path / "whole.pt"
    torch.save(cnn, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InfcError, match="E113") as refused:
        import_model(path, IMAGES, folder=tmp_path / "refused")
    assert "`torch_sources.Cnn`" in refused.value.diagnostics[0].message
    done = import_model(path, IMAGES, folder=tmp_path, allow_pickle=True)
    assert answer(done) == pytest.approx(expected(cnn), abs=1e-5)


def test_a_traced_module_has_its_shapes(cnn: Any, tmp_path: Path) -> None:
    path = tmp_path / "traced.pt"
    torch.jit.trace(cnn, torch.randn(2, 3, 8, 8)).save(path)
    done = import_model(path, folder=tmp_path)
    assert done.inputs == {"x": (2, 3, 8, 8)}
    assert done.answer["exporter"] == "torchscript"
    assert done.notes == ["exported through TorchScript: torch.export does not take TorchScript"]
    assert done.error < 1e-6


@pytest.mark.parametrize("kind", ["traced", "scripted", "frozen"])
def test_torchscript_with_a_dynamic_batch(cnn: Any, kind: str, tmp_path: Path) -> None:
    make = {
        "traced": lambda: torch.jit.trace(cnn, torch.randn(2, 3, 8, 8)),
        "scripted": lambda: torch.jit.script(cnn),
        "frozen": lambda: torch.jit.freeze(torch.jit.script(cnn)),
    }
    path = tmp_path / "model.pt"
    make[kind]().save(path)
    done = import_model(path, IMAGES, folder=tmp_path)
    assert done.inputs == {"x": ("batch", 3, 8, 8)}
    assert done.outputs == {"output": ("batch", 5)}
    assert done.error < 1e-6


def test_scripted_control_flow_stays(sources: Any, tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "branch.pt"
    torch.jit.script(sources.Branch()).save(path)
    done = import_model(path, "x=1..4x4", folder=tmp_path)
    assert "If" in {node.op_type for node in onnx.load(done.path).graph.node}


def test_a_scripted_module_needs_shapes(cnn: Any, tmp_path: Path) -> None:
    path = tmp_path / "scripted.pt"
    torch.jit.script(cnn).save(path)
    with pytest.raises(InfcError, match="E115"):
        import_model(path, folder=tmp_path)


def test_a_program(cnn: Any, tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    batch = torch.export.Dim("n", min=1, max=8)
    images = (torch.randn(2, 3, 8, 8),)
    torch.export.save(torch.export.export(cnn, images, dynamic_shapes=({0: batch},)), path)
    done = import_model(path, folder=tmp_path)
    assert done.answer["exporter"] == "torch.export"
    assert done.inputs == {"x": ("batch", 3, 8, 8)}
    assert done.outputs == {"output": ("batch", 5)}
    named = import_model(path, "x=images,3,8,8", folder=tmp_path / "named")
    assert named.outputs == {"output": ("images", 5)}
    with pytest.raises(InfcError, match="at most 8"):
        import_model(path, "x=1..16x3x8x8", folder=tmp_path / "more")


def test_a_static_program(cnn: Any, tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(cnn, (torch.randn(2, 3, 8, 8),)), path)
    assert import_model(path, folder=tmp_path).inputs == {"x": (2, 3, 8, 8)}
    with pytest.raises(InfcError, match="was exported with 2"):
        import_model(path, "x=1..4x3x8x8", folder=tmp_path / "dynamic")


def test_a_program_in_float16_keeps_the_type_of_its_outputs(tmp_path: Path) -> None:
    class Share(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            total = x.sum(-1, keepdim=True)
            return x / total, total, total.softmax(0)

    program = torch.export.export(Share(), (torch.rand(2, 4).half(),))
    torch.export.save(program, tmp_path / "share.pt2")
    assert import_model(tmp_path / "share.pt2", folder=tmp_path).error < 1e-3


def test_a_program_with_nested_values_and_numbers(sources: Any, tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(*sources.nested()), path)
    done = import_model(path, folder=tmp_path)
    assert list(done.inputs) == ["batch_ids", "batch_pair_0"]
    assert list(done.outputs) == ["y", "more_0", "more_1_0"]
    assert done.notes == ["`count`: no tensor, and left out of the outputs"]
    assert done.error < 1e-6


def expected(cnn: Any) -> Any:
    with torch.inference_mode():
        return cnn(torch.ones(1, 3, 8, 8)).numpy().ravel()


def answer(done: Imported) -> Any:
    """Of the exported graph, on ones: with these weights and no others."""
    import numpy as np
    import onnxruntime

    assert done.error < 1e-5
    session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.ones((1, 3, 8, 8), np.float32)})[0].ravel()

"""The subjects of `scripts/imports pytorch`: architectures, containers, and what is refused."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from imports import ROOT, Subject

from infc.import_options import ImportOptions

MODELS = ROOT / "tests" / "torch_models.py"
SOURCES = ROOT / "tests" / "frontends" / "torch_sources.py"
IMAGES = ("x=1..4x3x16x16",)
ROWS = ("x=1..4x4",)
REFUSED = {
    "a branch that depends on values": ("PythonBranch", ROWS),
    "an operator without a counterpart": ("Singular", ROWS),
    "a custom operator": ("CustomOperator", ROWS),
    "state from call to call": ("Stateful", ROWS),
    "random numbers": ("Noisy", ROWS),
    "complex outputs": ("Complex", ROWS),
    "a batch that is fixed in the code": ("Pairs", ROWS),
    "an object among the outputs": ("Opaque", ROWS),
    "`forward` that raises": ("Raising", ("x=2x4",)),
    "no shapes": ("Cnn", ()),
    "tensors on the meta device": ("on_meta", IMAGES),
}


def subjects(scratch: Path) -> Iterator[Subject]:
    """The architectures of the transformers library, PyTorch's containers, refusals."""
    sys.path[:0] = [str(MODELS.parent), str(SOURCES.parent)]
    os.environ["PYTHONPATH"] = str(SOURCES.parent)  # where a pickled module's class is found
    import torch_model_inputs

    for name, inputs in torch_model_inputs.INPUTS.items():
        yield Subject(f"transformers: {name}", f"{MODELS}:{name}", inputs)
    yield Subject("a branch that torch.jit.script takes", f"{SOURCES}:Branch", ROWS)
    yield Subject("LSTM", f"{SOURCES}:Recurrent", ("x=1..4x1..10@5x8",))
    yield Subject("complex numbers inside", f"{SOURCES}:Magnitude", ROWS)
    yield Subject("a module in bfloat16", f"{SOURCES}:Bfloat16", ROWS)
    yield Subject("nested inputs and outputs", f"{SOURCES}:nested")
    yield from _containers(scratch)
    for what, (name, inputs) in REFUSED.items():
        yield Subject(what, f"{SOURCES}:{name}", inputs)


def _containers(scratch: Path) -> Iterator[Subject]:
    import torch
    import torch_sources
    from safetensors.torch import save_file

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    module = torch_sources.Cnn().eval()
    images = (torch.randn(2, 3, 16, 16),)
    code = ImportOptions(model=f"{SOURCES}:Cnn")
    batch = torch.export.Dim("n", min=1, max=8)
    program = torch.export.export(module, images, dynamic_shapes=({0: batch},))
    files = {name: str(scratch / name) for name in ("traced.pt", "scripted.pt", "frozen.pt")}
    torch.jit.trace(module, images).save(files["traced.pt"])
    torch.jit.script(module).save(files["scripted.pt"])
    torch.jit.freeze(torch.jit.script(module)).save(files["frozen.pt"])
    torch.export.save(program, scratch / "program.pt2")
    torch.save({"state_dict": module.state_dict()}, scratch / "weights.pth")
    torch.save(module.state_dict(), scratch / "old.pth", _use_new_zipfile_serialization=False)
    save_file(module.state_dict(), scratch / "weights.safetensors")
    torch.save(module, scratch / "module.pt")
    yield Subject("TorchScript, traced", files["traced.pt"])
    yield Subject("TorchScript, scripted", files["scripted.pt"], IMAGES)
    yield Subject("TorchScript, frozen", files["frozen.pt"], IMAGES)
    yield Subject("torch.export program", str(scratch / "program.pt2"))
    yield Subject("checkpoint and `--model`", str(scratch / "weights.pth"), IMAGES, code)
    yield Subject("legacy checkpoint and `--model`", str(scratch / "old.pth"), IMAGES, code)
    yield Subject("safetensors and `--model`", str(scratch / "weights.safetensors"), IMAGES, code)
    yield Subject("a checkpoint without `--model`", str(scratch / "weights.pth"), IMAGES)
    yield Subject("a pickled module", str(scratch / "module.pt"), IMAGES)
    allowed = ImportOptions(allow_pickle=True)
    yield Subject("a pickled module, allowed", str(scratch / "module.pt"), IMAGES, allowed)

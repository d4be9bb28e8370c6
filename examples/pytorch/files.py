"""The same model as files: `python files.py FOLDER` writes a checkpoint, a program, a trace."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from commands import Commands, commands
from torch.export import Dim


def write(folder: Path) -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    module, example = commands()
    module.eval()
    assert isinstance(module, Commands)
    torch.save({"epoch": 12, "state_dict": module.state_dict()}, folder / "weights.pth")
    batch, length = Dim("batch", min=1, max=8), Dim("length", min=4, max=200)
    shapes = {"frames": {0: batch, 2: length}, "mask": {0: batch, 1: length}}
    frames, mask = (torch.cat([tensor, tensor]) for tensor in example.values())
    program = torch.export.export(module, (frames, mask), dynamic_shapes=shapes)
    torch.export.save(program, folder / "program.pt2")
    traced = torch.jit.trace(module, (frames, mask), strict=False)
    traced.save(folder / "traced.pt")


if __name__ == "__main__":
    write(Path(sys.argv[1]))

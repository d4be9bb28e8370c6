"""The weights that a model was exported with, kept for the reference.

A factory without seeds of its own may still draw its weights from a source that infc cannot seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infc.diagnostics import fail
from infc.frontends.pytorch.order import STATE


def save(module: Any, folder: Path) -> None:
    """Write every parameter and buffer of `module` into `folder`."""
    import torch

    torch.save(_tensors(module), folder / STATE)


def restore(module: Any, folder: Path) -> None:
    """Put back what `save` wrote.

    Raises:
        InfcError: E114 where the module is not built as it was before.
    """
    import torch

    saved = torch.load(folder / STATE, map_location="cpu", weights_only=True, mmap=True)
    tensors = _tensors(module)
    if {k: v.shape for k, v in saved.items()} != {k: v.shape for k, v in tensors.items()}:
        raise fail(
            "E114",
            "the code that makes the model makes another one the second time",
            help="let it depend on nothing but its own source",
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(saved[name])


def _tensors(module: Any) -> dict[str, Any]:
    return {n: t.detach() for n, t in (*module.named_parameters(), *module.named_buffers())}

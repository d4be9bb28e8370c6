"""TorchScript archives and torch.export programs: models with their graph.

A traced TorchScript archive keeps the inputs that it was traced with; their shapes are read from
the pickle's opcodes. TorchScript is not Python, but it has operators that read and write files, and
an archive may call them when it is loaded: its source is searched for them first. What a
torch.export archive could do is in `program_files`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import fail
from infc.frontends.containers import pickles
from infc.frontends.containers.pickle_machine import Made, MalformedPickleError, Table, follow
from infc.frontends.containers.torch_archives import TorchArchive, open_archive
from infc.frontends.pytorch import program_files
from infc.frontends.pytorch.failures import blamed
from infc.frontends.pytorch.user_models import Examples

if TYPE_CHECKING:
    from infc.frontends.pytorch.loading import Loaded

MAX_TEXT_BYTES = 256 << 20
_FILES = re.compile(r"\b(?:torch|ops\.\w+)\.(?:save|from_file|load|write_file|read_file)\s*\(")
"""Calls in TorchScript source that read or write files."""


def load_torchscript(path: Path, allow_pickle: bool) -> Loaded:
    """A TorchScript module; its example inputs have the shapes that it was traced with.

    Raises:
        InfcError: E113, E114, E116, E117.
    """
    import torch

    from infc.frontends.pytorch.loading import Loaded

    pickles.require_safe(path, allow_pickle)
    with open_archive(path) as archive:
        for name in archive.under("code", ".py"):
            found = _FILES.search(archive.read(name, MAX_TEXT_BYTES).decode("utf-8", "replace"))
            if found and not allow_pickle:
                raise pickles.refusal(path, [f"{found[0].rstrip('( ')} in {name}"])
        shapes = list(_traced_inputs(archive))
    with blamed("E114", f"`{path.name}` cannot be loaded", where=path.name):
        module = torch.jit.load(str(path), map_location="cpu")
        if not hasattr(module, "forward"):
            raise AttributeError("it has no method `forward`")
        module.eval()
    examples = Examples(tuple(_example(*shape) for shape in shapes)) if shapes else None
    return Loaded(module, examples, scripted=True)


def load_exported(path: Path, allow_pickle: bool) -> Loaded:
    """A program of torch.export.

    Raises:
        InfcError: E111 for operators that are not torch's, E113, E114, E116, E117.
    """
    import torch

    from infc.frontends.pytorch.loading import Loaded

    pickles.require_safe(path, allow_pickle)
    with open_archive(path) as archive:
        programs = [*archive.under("models", ".json"), "serialized_exported_program.json"]
        programs = [name for name in programs if archive.has(name)]
        if not programs:
            raise fail("E114", f"`{path.name}` is a torch.export archive without a program")
        for name in programs:
            program_files.require_plain(archive, name, path)
    with blamed("E114", f"`{path.name}` cannot be loaded", where=path.name):
        program = torch.export.load(path)
        program._guards_code = []  # Python source; `module` would run it as checks of the inputs
        module = program.module(check_guards=False)
    args, kwargs = program.example_inputs or ((), {})
    return Loaded(module, Examples(tuple(args), dict(kwargs)), program)


def _traced_inputs(archive: TorchArchive) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The (storage, shape) of each input that `forward` was traced with; none where unknown."""
    if not archive.has("traced_inputs.pkl"):
        return
    try:
        held = follow(io.BytesIO(archive.read("traced_inputs.pkl", MAX_TEXT_BYTES))).value
    except MalformedPickleError:
        return
    table = _unwrapped(held)
    methods = dict(table.pairs) if isinstance(table, Table) else {}
    for tensor in _unwrapped(methods.get("forward")) or ():
        if not isinstance(tensor, Made) or "rebuild_tensor" not in str(tensor.maker):
            return
        storage, _, size, *_ = tensor.arguments
        yield str(storage.id[1]), tuple(int(dim) for dim in size)


def _unwrapped(value: Any) -> Any:
    """What a type tag was put on, torch/jit/_pickle.py."""
    while isinstance(value, Made) and "torch.jit._pickle" in str(value.maker):
        value = value.arguments[0]
    return value


def _example(storage: str, shape: tuple[int, ...]) -> Any:
    """A tensor of the element type of `storage`, such as `torch LongStorage`."""
    import torch

    word = storage.rpartition(".")[2].rpartition(" ")[2].removesuffix("Storage").strip()
    kinds = {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }
    return torch.zeros(shape, dtype=kinds.get(word, torch.float32), device="meta")

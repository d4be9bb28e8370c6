"""A checkpoint in several files: what an index of weights and the files that it names hold.

Each file is a safetensors file or a PyTorch checkpoint in its own right, and is held to all that
one is held to alone.
"""

from __future__ import annotations

from pathlib import Path

from infc.diagnostics import InfcError, fail
from infc.frontends import containers
from infc.frontends.containers import weight_index
from infc.frontends.containers.archives import damaged
from infc.frontends.containers.description import Description, Value, Weights
from infc.frontends.findings import quoted
from infc.frontends.sniff import Kind, sniff

KINDS = (Kind.SAFETENSORS, Kind.TORCH_WEIGHTS, Kind.PICKLE)


def describe(path: Path) -> Description:
    """The tensors in the files of the index `path`, or of the one in the folder `path`.

    Raises:
        InfcError: E101 for a file that holds no weights, E103 where one is missing or outside, E116
            and E117 where one is unsafe or damaged.
    """
    tensors: list[Value] = []
    unsafe: list[str] = []
    kinds = set()
    shards = weight_index.shards(path)
    for file, names in shards.items():
        kind = kind_of(file)
        found = containers.describe(file, kind)
        assert found is not None, "there is a reader for each of these kinds"
        wanted = set(names)
        rows = [row for row in found.tensors if row.name in wanted]
        if kind is Kind.SAFETENSORS and len(rows) < len(wanted):
            there = {row.name for row in rows}
            raise absent(file, [name for name in names if name not in there])
        tensors += rows
        unsafe += found.unsafe
        kinds.add(kind)
    word = "safetensors" if kinds == {Kind.SAFETENSORS} else "PyTorch"
    return Description(
        "sharded-checkpoint",
        f"{word} checkpoint in {len(shards)} file{'s' if len(shards) > 1 else ''}",
        weights=Weights.of(tensors),
        tensors=tensors,
        details={"index": weight_index.index_of(path).name},
        unsafe=list(dict.fromkeys(unsafe)),
    )


def require_sound(path: Path, allow_pickle: bool) -> None:
    """As `containers.require_sound`, for the index and for every file that it names.

    Raises:
        InfcError: E101, E103, E113, E116, E117.
    """
    for file in weight_index.shards(path):
        kind = kind_of(file)
        if kind is not Kind.SAFETENSORS:
            containers.require_sound(file, kind, allow_pickle=allow_pickle)
    describe(path)


def kind_of(file: Path) -> Kind:
    """The kind of a file that an index names.

    Raises:
        InfcError: E100 where it cannot be read, E101 where it is none that holds weights.
    """
    kind = sniff(file)
    if kind not in KINDS:
        raise fail(
            "E101",
            f"`{file}` is {kind.value}, where an index of weights names it as a part of them",
        )
    return kind


def absent(file: Path, names: list[str]) -> InfcError:
    """E117 for tensors that the index looks for in `file`."""
    rest = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return damaged(str(file), f"{quoted(names[0])}{rest}, which its index says is in it, is not")

"""Looking into the files of other frameworks without running them and without their frameworks.

Each module reads one kind of container and answers in plain values; `archives` and `pickles` say
whether one may be opened at all. Nothing here executes what a file says, extracts an archive to
where it says, or allocates what a file merely claims.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from infc.frontends.containers.description import Description

if TYPE_CHECKING:
    from infc.frontends.sniff import Kind

_READERS = {
    "TORCHSCRIPT": ("torchscript", "describe"),
    "TORCH_EXPORT": ("torch_export", "describe"),
    "TORCH_WEIGHTS": ("state_dicts", "describe_archive"),
    "PICKLE": ("state_dicts", "describe_bare"),
    "TORCH_TAR": ("legacy_tar", "describe"),
    "AOTINDUCTOR": ("aotinductor", "describe"),
    "SAFETENSORS": ("safetensors", "describe"),
    "SHARDED_CHECKPOINT": ("shards", "describe"),
    "KERAS": ("keras", "describe"),
    "HDF5": ("hdf5", "describe"),
    "SAVED_MODEL": ("saved_model", "describe"),
    "GRAPH_DEF": ("graph_def", "describe"),
    "TF_CHECKPOINT": ("checkpoint_index", "describe"),
    "TFLITE": ("tflite", "describe"),
}
"""By the name of a `Kind`: module and function."""
_PICKLED = ("TORCHSCRIPT", "TORCH_EXPORT", "TORCH_WEIGHTS", "PICKLE")
_CONFIGURED = ("KERAS", "HDF5")


def describe(path: Path, kind: Kind) -> Description | None:
    """What the file or folder `path` of that kind holds; None where infc cannot look into it.

    Raises:
        InfcError: E116 where it is not safe to open, E117 where it is damaged, E501 where
            something is missing that it takes.
    """
    if kind.name not in _READERS:
        return None
    module, function = _READERS[kind.name]
    found = getattr(import_module(f"{__name__}.{module}"), function)(path)
    assert isinstance(found, Description)
    return found


def files_of(path: Path, kind: Kind) -> list[Path]:
    """The files that make up the model `path` of that kind, in an order of their own."""
    if kind.name == "SHARDED_CHECKPOINT":
        from infc.frontends.containers import weight_index

        return weight_index.files_of(path)
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def require_sound(path: Path, kind: Kind, *, allow_pickle: bool = False) -> None:
    """Refuse a file that would run code, lead outside, unpack into too much, or is damaged.

    It is called before any framework sees the file. HDF5 is looked at where h5py is installed.

    Raises:
        InfcError: E113 unless `allow_pickle`, E116, E117; of a checkpoint in several files E101
            and E103.
    """
    if kind.name in _PICKLED:
        from infc.frontends.containers.pickles import require_safe

        require_safe(path, allow_pickle)
    elif kind.name == "SHARDED_CHECKPOINT":
        from infc.frontends.containers import shards

        shards.require_sound(path, allow_pickle)
    elif kind.name in _CONFIGURED:
        from infc.frontends.containers import hdf5, keras

        if kind.name == "KERAS":
            keras.require_sound(path, allow_pickle)
        elif hdf5.is_readable():
            hdf5.require_sound(path, allow_pickle)
    else:
        describe(path, kind)

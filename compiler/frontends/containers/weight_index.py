"""The index of a checkpoint that lies in several files, as Hugging Face's libraries write it.

    {"metadata": {"total_size": 44}, "weight_map": {"NAME": "model-00001-of-00002.safetensors"}}

The files lie in the index's folder or below it. In the cache of huggingface_hub index and files are
links into one other folder: where the index is a link, the files may lead to where it leads to.

Source: huggingface_hub, serialization/_base.py and _torch.py; transformers, modeling_utils.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from infc.diagnostics import InfcError, fail
from infc.frontends.containers.archives import damaged
from infc.frontends.findings import quoted

NAMES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
"""The first of them counts in a folder with both, as for transformers."""
MAX_INDEX_BYTES = 32 << 20
"""The index of a model of 671 billion parameters has 9 MB."""
MAX_SHOWN = 5
_HEAD_BYTES = 4096
_START = re.compile(rb'\s*\{\s*"(metadata|weight_map)"\s*:\s*\{')


def is_index(head: bytes) -> bool:
    """Whether a file with these first bytes is such an index."""
    return _START.match(head) is not None and b'"weight_map"' in head


def index_in(folder: Path) -> Path | None:
    """The index in `folder`: one of `NAMES`, or the only one of another name; None without one."""
    found = sorted(p for p in folder.glob("*.index.json") if _begins_as_index(p))
    named = [folder / name for name in NAMES if folder / name in found]
    if named:
        return named[0]
    return found[0] if len(found) == 1 else None


def _begins_as_index(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return is_index(stream.read(_HEAD_BYTES))
    except OSError:
        return False


def files_of(path: Path) -> list[Path]:
    """The index that `path` is or holds, and the files that it names."""
    return [index_of(path), *shards(path)]


def shards(path: Path) -> dict[Path, list[str]]:
    """The files that the index `path`, or the one in the folder `path`, names, with their tensors.

    Raises:
        InfcError: E103 for a file that is missing or leads out of the folder, E117 where the index
            is damaged.
    """
    index = index_of(path)
    tensors: dict[str, list[str]] = {}
    for name, file in _weight_map(index).items():
        tensors.setdefault(file, []).append(name)
    places = (index.parent.resolve(), index.resolve().parent)
    found = {index.parent / file: names for file, names in tensors.items()}
    for file in tensors:
        _require_inside(file, index, places)
    absent = [file for file in tensors if not _is_file(index.parent / file)]
    if absent:
        rest = f" and {len(absent) - MAX_SHOWN} more" if len(absent) > MAX_SHOWN else ""
        raise fail(
            "E103",
            f"{len(absent)} of the {len(tensors)} files that `{index.name}` names "
            f"{'are' if len(absent) > 1 else 'is'} not there: "
            + ", ".join(map(quoted, absent[:MAX_SHOWN]))
            + rest,
            help="put all files of the checkpoint beside its index",
        )
    return found


def index_of(path: Path) -> Path:
    """The index that `path` is or, being a folder, holds."""
    if not path.is_dir():
        return path
    index = index_in(path)
    if index is None:
        raise damaged(str(path), "it has no index of weights")
    return index


def _weight_map(index: Path) -> dict[str, str]:
    """The name of each tensor and of the file that it is in."""
    size = index.stat().st_size
    if size > MAX_INDEX_BYTES:
        raise damaged(str(index), f"an index of weights does not take {size:,} bytes")
    try:
        held = json.loads(index.read_bytes())["weight_map"]
        if not isinstance(held, dict) or not all(isinstance(file, str) for file in held.values()):
            raise TypeError("no names")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(str(index), "its `weight_map` is not as it should be") from error
    if not held:
        raise damaged(str(index), "its `weight_map` is empty")
    return held


def _require_inside(file: str, index: Path, places: tuple[Path, Path]) -> None:
    if not file or "\0" in file or Path(file).is_absolute() or ".." in Path(file).parts:
        raise _outside(file, index)
    try:
        inside = any((index.parent / file).resolve().is_relative_to(place) for place in places)
    except (OSError, RuntimeError, ValueError) as error:  # too long, a circle of links
        raise fail("E103", f"{quoted(file)}, in `{index.name}`, is no file: {error}") from error
    if not inside:
        raise _outside(file, index)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _outside(file: str, index: Path) -> InfcError:
    return fail(
        "E103",
        f"{quoted(file)}, in `{index.name}`, leads out of its folder",
        help="put the files themselves beside the index",
    )

"""Checkpoints in several files, as Hugging Face's libraries write them."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import container_files
import pytest
from command import infc

from infc.request import Request

INDEX = "model.safetensors.index.json"
FIRST, SECOND = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return container_files.write("sharded-checkpoint", tmp_path)


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The index in `folder` after `change`."""
    index = folder / INDEX
    held = json.loads(index.read_text())
    change(held)
    index.write_text(json.dumps(held))
    return index


def placed(file: object) -> Callable[[Path], None]:
    """Let the index look for `body.weight` in `file`."""
    return lambda folder: (
        rewritten(folder, lambda held: held["weight_map"].update({"body.weight": file})) and None
    )


def linked_outside(folder: Path) -> None:
    outside = folder.parent / "elsewhere"
    (folder / SECOND).rename(outside)
    (folder / SECOND).symlink_to(outside)


def huge(folder: Path) -> None:
    with (folder / INDEX).open("r+b") as stream:
        stream.truncate(1 << 40)


def pickled(folder: Path) -> None:
    (folder / SECOND).write_bytes(pickle.dumps(container_files.write))


HOSTILE: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "parents": (placed("../../body.safetensors"), "E103", "leads out of its folder"),
    "absolute": (placed("/etc/passwd"), "E103", "leads out of its folder"),
    "null": (placed("a\0b"), "E103", "leads out of its folder"),
    "long": (placed("a" * 5000), "E103", "not there"),
    "link": (linked_outside, "E103", "leads out of its folder"),
    "missing": (lambda folder: (folder / SECOND).unlink(), "E103", f"1 of the 2 .*`{SECOND}`"),
    "folder": (placed("."), "E103", "not there"),
    "itself": (placed(INDEX), "E101", "an index of weights"),
    "tensor": (placed(FIRST), "E117", "`body.weight`, which its index says is in it, is not"),
    "number": (placed(7), "E117", "weight_map"),
    "huge": (huge, "E117", "does not take 1,099,511,627,776 bytes"),
    "deep": (
        lambda folder: (folder / INDEX).write_text('{"weight_map": {"a":' + "[" * 100_000) and None,
        "E117",
        "weight_map",
    ),
    "empty": (
        lambda folder: (folder / INDEX).write_text('{"weight_map": {}}') and None,
        "E117",
        "empty",
    ),
    "code": (pickled, "E113", "container_files.write"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_index_is_one_diagnostic(case: str, folder: Path) -> None:
    change, code, words = HOSTILE[case]
    change(folder)
    done = infc("compile", folder / INDEX, "--target", "cpu", "-o", folder.parent / "out")
    assert re.findall(r"^error\[(E\d+)\]: ", done.err, re.MULTILINE) == [code], done.err
    assert re.search(words, done.err)
    assert not (folder.parent / "out").exists()


def test_the_cache_of_the_hub_is_links_into_one_folder(folder: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    folder.rename(blobs)
    for file in (INDEX, FIRST, SECOND):
        (blobs / file).rename(blobs / f"{file[::-1]}")
        folder.mkdir(exist_ok=True)
        (folder / file).symlink_to(f"../blobs/{file[::-1]}")
    document = infc("inspect", folder, "--json").document
    names = [row["name"] for row in document["tensors"]]
    assert sorted(names) == ["body.weight", "head.bias", "head.weight"]
    assert infc("inspect", folder / INDEX, "--json").document["bytes"] == document["bytes"]


def test_the_bundle_is_named_after_the_checkpoint() -> None:
    assert Request(Path(f"a/{INDEX}"), ("cpu",), Path("out")).stem == "model"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("end", ["safetensors", "bin"])
def test_it_fills_its_model(end: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from safetensors.torch import save_file
    from torch_imports import import_model

    torch.manual_seed(5)
    linear = torch.nn.Linear(4, 2)
    names = {"weight": f"m-00001-of-00002.{end}", "bias": f"m-00002-of-00002.{end}"}
    save = save_file if end == "safetensors" else torch.save
    for name, tensor in linear.state_dict().items():
        save({name: tensor}, tmp_path / names[name])
    index = tmp_path / ("model.safetensors.index.json" if end == "safetensors" else "x.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    (tmp_path / "net.py").write_text("import torch\ndef net(): return torch.nn.Linear(4, 2)\n")
    source = index if end == "bin" else tmp_path
    done = import_model(source, "input=2x4", folder=tmp_path, home=tmp_path, model="net.py:net")
    assert done.error < 1e-6
    with pytest.raises(Exception, match=r"name their `\.index\.json`"):
        import_model(
            tmp_path / names["weight"],
            "input=2x4",
            folder=tmp_path / "alone",
            home=tmp_path,
            model="net.py:net",
        )

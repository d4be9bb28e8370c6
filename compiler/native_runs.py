"""Artifacts whose runtime has no Python: run through their C++ loader, compiled for the occasion.

The loader is that of any bundle; its signature is read off the tensors, since whoever asks for a
run has an artifact and inputs, and the bundle may not be made yet. A dimension that differs from
set to set becomes a dynamic one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infc import loaders
from infc.bundle import Bundle
from infc.request import WorkerLimits
from infc.signature import TensorSpec, load_tensors
from infc.targets import Artifact, Target, back_end
from infc.targets.abilities import release_of
from infc.workers.versions import NOTE

NAME = "artifact"
DEVICE = "CPU"
"""What stands in for a device that is not here."""


def loader_bundle(
    entry: Path,
    target: Target,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    folder: Path,
) -> Bundle:
    """A bundle in the new folder `folder` that is no more than `entry` and its C++ loader.

    Raises:
        InfcError: E704.
    """
    (folder / "model").mkdir(parents=True)
    shutil.copyfile(entry, folder / "model" / entry.name)
    end = back_end(target.back_end)
    release = release_of(end, entry)
    notes: dict[str, Any] = {"verified_on": DEVICE}
    if release is not None:
        notes[NOTE] = {end.DISTRIBUTIONS[0]: release}
    artifact = Artifact(entry.name, (entry.name,), notes)
    loaders.render(folder, NAME, target, artifact, inputs, outputs, ("cpp",))
    manifest = {
        "name": NAME,
        "target": target.to_json(),
        "inputs": [spec.to_json() for spec in inputs],
        "outputs": [spec.to_json() for spec in outputs],
        "artifact": {"entry": f"model/{entry.name}", "notes": notes},
    }
    return Bundle(folder, manifest)


def run(
    entry: Path,
    target: Target,
    feeds: Sequence[Path],
    reference: Sequence[Path],
    scratch: Path,
    limits: WorkerLimits,
    threads: int,
) -> tuple[tuple[Path, ...], str]:
    """Run `entry` on the tensor folders `feeds`; return those of its answers, and the device.

    `reference` are the folders of the expected answers, of which names and types are taken.

    Raises:
        InfcError: E501, E502, E503, E703, E704, E705.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="native-", dir=scratch))
    inputs = specs_of(feeds, "in")
    outputs = specs_of(reference, None)
    bundle = loader_bundle(entry, target, inputs, outputs, folder / "bundle")
    answers = tuple(folder / f"answers-{i}" for i in range(len(feeds)))
    loaders.run_through(bundle, "cpp", feeds, answers, folder, limits, threads)
    return answers, DEVICE


def specs_of(folders: Sequence[Path], prefix: str | None) -> tuple[TensorSpec, ...]:
    """The signature of the tensors in `folders`, which hold the same names.

    A dimension that differs is called `prefix` and its place, or is unknown without a prefix.
    """
    sets = [load_tensors(folder) for folder in folders]
    out = []
    for i, (name, first) in enumerate(sets[0].items()):
        sizes = zip(*(tensors[name].shape for tensors in sets), strict=True)
        shape = tuple(
            int(size[0]) if len(set(size)) == 1 else f"{prefix}{i}_{axis}" if prefix else None
            for axis, size in enumerate(sizes)
        )
        out.append(TensorSpec(name, first.dtype.name, shape))
    return tuple(out)

"""HDF5 files, as Keras writes them: attributes and datasets, and whether the file keeps to itself.

h5py reads them, in a child process: the HDF5 library is known to crash on damaged files. No values
are read. What may be in a file and in none that Keras writes: links to other files, datasets whose
data lie in other files (external storage, virtual datasets), datasets that would take far more
memory than the file.
"""

from __future__ import annotations

import json
import resource
import shutil
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from infc.diagnostics import fail
from infc.frontends import guarded
from infc.frontends.containers import archives, keras_config
from infc.frontends.containers.archives import FREE_BYTES, MAX_RATIO, damaged, unsafe
from infc.frontends.containers.description import Description, Value, Weights, shape_of

CPU_S = 10
"""The library goes round in circles on some damaged files; a good one takes milliseconds."""
TIMEOUT_S = 120.0
EXTRA_BYTES = 4 << 30
MAX_OBJECTS = 50_000
MAX_ANSWER_BYTES = 256 << 20
ATTRIBUTES = ("keras_version", "backend", "model_config")
MODEL_WEIGHTS = "model_weights/"
_OPTIMIZER = ("optimizer/", "optimizer_weights/")


@dataclass(frozen=True, slots=True)
class Contents:
    """The root's attributes that Keras writes, and the datasets but for an optimizer's."""

    attributes: dict[str, str]
    datasets: list[Value]
    names: list[str]
    """Of the attributes, all of them."""


def is_readable() -> bool:
    """Whether h5py is there."""
    return find_spec("h5py") is not None


def describe(path: Path) -> Description:
    """The Keras model, or the weights, in `path`.

    Raises:
        InfcError: E116 where it leads to other files, E117 where it is damaged, E501 without h5py.
    """
    contents = read(path)
    version = contents.attributes.get("keras_version", "")
    details = {k: v for k, v in contents.attributes.items() if k == "backend"}
    text = contents.attributes.get("model_config")
    if text is None:
        title = "Keras weights (HDF5)" if _is_keras(contents) else "HDF5 file"
        return Description(
            "keras-weights" if _is_keras(contents) else "hdf5",
            title,
            version=f"Keras {version}" if version else "",
            weights=Weights.of(contents.datasets),
            tensors=contents.datasets,
            details=details,
        )
    config = keras_config.parse(text, str(path))
    inputs, outputs = keras_config.signature_of(config)
    held = [row for row in contents.datasets if row.name.startswith(MODEL_WEIGHTS)]
    tensors = [Value(r.name.removeprefix(MODEL_WEIGHTS), r.dtype, r.shape) for r in held]
    return Description(
        "keras-h5",
        f"Keras {config.get('class_name')} model (HDF5)",
        version=f"Keras {version}" if version else "",
        inputs=inputs,
        outputs=outputs,
        weights=Weights.of(tensors),
        tensors=tensors,
        operators=keras_config.layers_of(config),
        details=details,
        unsafe=keras_config.code_in(config),
    )


def require_sound(path: Path, allow_code: bool) -> None:
    """Refuse a file that leads to others, or whose model would run code when it is loaded.

    Raises:
        InfcError: E113 unless `allow_code`, E116, E117.
    """
    contents = read(path)
    text = contents.attributes.get("model_config")
    if text is not None:
        keras_config.require_harmless(keras_config.parse(text, str(path)), path, allow_code)


def _is_keras(contents: Contents) -> bool:
    """Weights alone: Keras 2 lists the layers, Keras 3 numbers the variables of each."""
    return "layer_names" in contents.names or any("/vars/" in r.name for r in contents.datasets)


def read(path: Path, entry: str = "") -> Contents:
    """What is in `path`, or in the entry `entry` of the archive `path`.

    Raises:
        InfcError: E116 where it leads to other files, E117 where it is damaged, E501 without h5py.
    """
    label = f"{path}:{entry}" if entry else str(path)
    if not is_readable():
        raise fail(
            "E501",
            f"looking into `{label}` takes h5py, which is not installed",
            help="`pip install h5py`, which `infc[tensorflow]` needs too",
        )
    import h5py  # noqa: F401  (the child then has it)

    try:
        answer = guarded.call(lambda: _answer(path, entry), TIMEOUT_S, EXTRA_BYTES)
        document = json.loads(answer)
    except (guarded.ChildDiedError, ValueError, RecursionError) as error:
        what = (
            str(error).partition("\n")[0][:300].replace("crashed with SIGXCPU", "it does not end")
        )
        raise damaged(label, f"the HDF5 library cannot read it: {what}") from error
    if document["trouble"]:
        raise unsafe(label, document["trouble"])
    rows = [
        Value(name, dtype, shape_of(shape))
        for name, dtype, shape in document["datasets"]
        if not name.startswith(_OPTIMIZER)
    ]
    return Contents(document["attributes"], rows, document["names"])


def _answer(path: Path, entry: str) -> bytes:
    """In the child: the contents as JSON."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    if not entry:
        with path.open("rb") as stream:
            return json.dumps(_contents(stream)).encode()
    with archives.open_sane(path) as archive, tempfile.TemporaryFile() as copy:
        with archive.open(entry) as stream:
            shutil.copyfileobj(stream, copy, 1 << 20)
        return json.dumps(_contents(copy)).encode()


def _contents(stream: BinaryIO | Any) -> dict[str, Any]:
    import h5py

    size = stream.seek(0, 2)
    stream.seek(0)
    walk = _Walk(max(FREE_BYTES, MAX_RATIO * size))
    with h5py.File(stream, "r") as file:
        names = list(file.attrs)[:1000]
        attributes = {name: _attribute(file, name) for name in ATTRIBUTES if name in names}
        walk.through(file)
    return {
        "attributes": attributes,
        "names": names,
        "datasets": walk.datasets,
        "trouble": walk.trouble,
    }


def _attribute(file: Any, name: str) -> str:
    value = file.attrs[name]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value)[: keras_config.MAX_CONFIG_BYTES + 1]


class _Walk:
    """The datasets of a file, each once; `trouble` is the first thing that leads elsewhere."""

    def __init__(self, limit_bytes: int) -> None:
        self.datasets: list[tuple[str, str, list[int]]] = []
        self.trouble = ""
        self._left = limit_bytes
        self._limit = limit_bytes

    def through(self, file: Any) -> None:
        import h5py

        seen = set()
        pending = [("", file)]
        while pending and not self.trouble:
            place, group = pending.pop()
            inside: list[tuple[str, Any]] = []
            for name in group:
                full = f"{place}{name}"
                link = group.get(name, getlink=True)
                if isinstance(link, h5py.SoftLink):
                    continue
                if not isinstance(link, h5py.HardLink):
                    self.trouble = f"`{full}` leads to another file"
                    return
                row = group[name]
                address = h5py.h5o.get_info(row.id).addr
                if address in seen:
                    continue
                seen.add(address)
                if len(seen) > MAX_OBJECTS:
                    self.trouble = f"it has more than {MAX_OBJECTS:,} objects"
                    return
                if isinstance(row, h5py.Group):
                    inside.append((f"{full}/", row))
                elif isinstance(row, h5py.Dataset):
                    self._look_at(full, row)
            pending.extend(reversed(inside))

    def _look_at(self, name: str, row: Any) -> None:
        if row.external:
            self.trouble = f"the data of `{name}` are in another file"
        elif row.is_virtual:
            self.trouble = f"the data of `{name}` are in other datasets"
        elif row.shape is not None:
            self._left -= int(row.size) * int(row.dtype.itemsize)
            if self._left < 0:
                self.trouble = f"its datasets would take more than {self._limit:,} bytes"
            self.datasets.append((name, str(row.dtype), [int(d) for d in row.shape]))

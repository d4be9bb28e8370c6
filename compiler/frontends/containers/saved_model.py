"""SavedModels: signatures, variables, and whether the folder keeps to itself.

    saved_model.pb (or .pbtxt)     the graphs, their functions and signatures
    variables/variables.index      the variables
    assets/                        files that the graph reads
    fingerprint.pb, keras_metadata.pb, tfhub_module.pb      of no interest here

Source: tensorflow/python/saved_model/constants.py.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from infc.frontends.containers import checkpoint_index, graph_def
from infc.frontends.containers import tensorflow_messages as messages
from infc.frontends.containers.archives import damaged, unsafe
from infc.frontends.containers.description import Description, Value, Weights, text

SERVE = b"serve"
DEFAULT = "serving_default"
MAX_FILES = 100_000


def describe(path: Path) -> Description:
    """The graph for serving of the SavedModel in the folder `path`, or of its `saved_model.pb`.

    Raises:
        InfcError: E116 where something leads out of the folder, E117 where it is damaged.
    """
    folder = _folder(path)
    if folder is not None:
        require_sane(folder)
    file, meta = _meta_graph(path)
    signatures = {n: s for n, s in sorted(meta.signature_def.items()) if not n.startswith("__")}
    chosen = signatures.get(DEFAULT) or next(iter(signatures.values()), None)
    index = (folder or path) / "variables" / "variables.index"
    variables = checkpoint_index.read(index) if index.is_file() else []
    weights = variables or list(graph_def.constants_in(meta.graph_def.node))
    version = text(meta.meta_info_def.tensorflow_version)
    is_second = meta.HasField("object_graph_def")
    details = {
        "format": f"TensorFlow {'2' if is_second else '1'}, {file.name}",
        "tags": ", ".join(map(text, meta.meta_info_def.tags)),
        "signatures": ", ".join(map(text, signatures)) or "none",
    }
    return Description(
        "saved-model",
        "TensorFlow SavedModel",
        version=f"TensorFlow {version}" if version else "",
        inputs=None if chosen is None else _values(chosen.inputs),
        outputs=None if chosen is None else _values(chosen.outputs),
        weights=Weights.of(weights),
        tensors=variables,
        operators=graph_def.operators_of(meta.graph_def, _ends(chosen)),
        details={key: value for key, value in details.items() if value},
    )


def require_sane(folder: Path) -> None:
    """Refuse a SavedModel from which something leads out of its folder.

    Raises:
        InfcError: E116 for symbolic links and assets that lead outside, and for what is no file.
    """
    home = folder.resolve()
    for count, file in enumerate(folder.rglob("*")):
        if count > MAX_FILES:
            raise unsafe(str(folder), f"it has more than {MAX_FILES:,} files")
        name = file.relative_to(folder).as_posix()
        if file.is_symlink() and not file.resolve().is_relative_to(home):
            raise unsafe(str(folder), f"`{name}` leads out of the folder")
        if not file.is_file() and not file.is_dir():
            raise unsafe(str(folder), f"`{name}` is neither a file nor a folder")


def _folder(path: Path) -> Path | None:
    """The model's folder; None where `path` is its graph alone, under another name."""
    if path.is_dir():
        return path
    return path.parent if path.stem == "saved_model" else None


def _ends(signature: Any) -> list[bytes]:
    """The tensors that a signature returns."""
    return [] if signature is None else [info.name for info in signature.outputs.values()]


def _meta_graph(path: Path) -> tuple[Path, Any]:
    """(file, the graph tagged for serving, or the first); the assets were checked."""
    file = path
    if path.is_dir():
        file = path / "saved_model.pb"
        file = file if file.is_file() else path / "saved_model.pbtxt"
    model = messages.read(file, "SavedModel", is_text=file.suffix == ".pbtxt")
    if not model.meta_graphs:
        raise damaged(str(file), "it holds no graph")
    for meta in model.meta_graphs:
        for asset in meta.asset_file_def:
            name = PurePosixPath(asset.filename.decode("utf-8", "replace"))
            if name.is_absolute() or ".." in name.parts or b"\\" in asset.filename:
                raise unsafe(str(path), f"the asset `{text(asset.filename)}` is outside the folder")
    serving = [meta for meta in model.meta_graphs if SERVE in meta.meta_info_def.tags]
    return file, (serving or model.meta_graphs)[0]


def _values(infos: Any) -> list[Value]:
    return [_value(text(name), info) for name, info in sorted(infos.items())]


def _value(name: str, info: Any) -> Value:
    for kind in ("coo_sparse", "composite_tensor"):
        if info.HasField(kind):
            return Value(name, kind.replace("_", " "), messages.shape(info.tensor_shape))
    known = info.HasField("tensor_shape")
    shape = messages.shape(info.tensor_shape) if known else None
    return Value(name, messages.dtype(info.dtype), shape)

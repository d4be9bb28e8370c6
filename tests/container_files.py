"""Small models in the containers of other frameworks, for tests: `write(name, folder)`.

Torch writes its own; Keras's and TensorFlow's are put together here as their documents say, so that
no TensorFlow is needed. The real ones are in the folder of real models.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from infc.frontends.containers import tensorflow_messages as messages

# ---------------------------------------------------------------- PyTorch


def _net() -> Any:
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3)
            self.head = torch.nn.Linear(4, 2)
            self.register_buffer("mean", torch.zeros(3, dtype=torch.float64))

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = self.conv(image).mean((2, 3))
            return self.head(features), features

    Net.__module__, Net.__qualname__ = "nets", "Net"
    torch.manual_seed(0)
    return Net().eval()


def traced(path: Path) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(_net(), (torch.zeros(1, 3, 8, 8),)).save(str(path))  # type: ignore[no-untyped-call]


def scripted(path: Path) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU())).save(
            str(path)
        )


def exported(path: Path) -> None:
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
    shapes = ({0: torch.export.Dim("batch", min=1, max=8)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(net, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=shapes)
        torch.export.save(program, path)


def _save(what: Callable[[], object], **options: bool) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import sys
        import types

        import torch

        net = _net()
        module = types.ModuleType("nets")
        module.Net = type(net)  # type: ignore[attr-defined]
        sys.modules["nets"] = module  # where pickle looks the class up
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(what() if what is not _net else net, path, **options)
        del sys.modules["nets"]

    return write


def _checkpoint() -> object:
    import torch

    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    return {"epoch": 3, "model": net.state_dict(), "optimizer": optimizer.state_dict()}


def safetensors(path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "head.weight": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
        "head.bias": {"dtype": "BF16", "shape": [2], "data_offsets": [32, 36]},
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(36))


def sharded(folder: Path) -> None:
    folder.mkdir()
    safetensors(folder / "model-00001-of-00002.safetensors")
    header = {"body.weight": {"dtype": "F16", "shape": [3], "data_offsets": [0, 6]}}
    text = json.dumps(header).encode()
    second = folder / "model-00002-of-00002.safetensors"
    second.write_bytes(len(text).to_bytes(8, "little") + text + bytes(6))
    places = {"body.weight": 2, "head.bias": 1, "head.weight": 1}
    index = {
        "metadata": {"total_size": 42},
        "weight_map": {k: f"model-0000{v}-of-00002.safetensors" for k, v in places.items()},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def tar(path: Path) -> None:
    import pickle

    rows = {
        "sys_info": {"little_endian": True},
        "pickle": {"w": [1.0]},
        "tensors": 0,
        "storages": 0,
    }
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        for name, value in rows.items():
            data = pickle.dumps(value, protocol=2)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def aotinductor(path: Path) -> None:
    rows = {"archive_format": "pt2", "archive_version": "0", "data/aotinductor/model/net.so": "ELF"}
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in rows.items():
            archive.writestr(f"net/{name}", text)


# ---------------------------------------------------------------- Keras


def _layer(kind: str, name: str, **config: object) -> dict[str, Any]:
    dtype = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}}
    row = {"class_name": kind, "module": "keras.layers", "registered_name": None, "name": name}
    return {**row, "config": {"name": name, "dtype": dtype, **config}}


def functional_config() -> dict[str, Any]:
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {
            "name": "functional",
            "layers": [
                _layer("InputLayer", "image", batch_shape=[None, 8, 8, 3]),
                _layer("Conv2D", "conv", filters=4),
                _layer("Dense", "scores", units=2),
            ],
            "input_layers": [["image", 0, 0]],
            "output_layers": [["scores", 0, 0]],
        },
    }


def _weights(group: Any) -> None:
    shapes = {"conv": [(3, 3, 3, 4), (4,)], "scores": [(4, 2), (2,)]}
    for name, rows in shapes.items():
        for index, shape in enumerate(rows):
            group.create_dataset(f"layers/{name}/vars/{index}", data=np.ones(shape, np.float32))


def keras_archive(path: Path, config: object = None) -> None:
    import h5py

    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        _weights(file)
    metadata = {"keras_version": "3.15.1", "date_saved": "2026-01-01@00:00:00"}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps(metadata))
        archive.writestr("config.json", json.dumps(config or functional_config()))
        archive.writestr("model.weights.h5", weights.getvalue())


def keras_h5(path: Path, config: object = None) -> None:
    import h5py

    sequential = {
        "class_name": "Sequential",
        "config": {
            "name": "net",
            "layers": [
                {
                    "class_name": "InputLayer",
                    "config": {"batch_input_shape": [None, 4], "dtype": "float32", "name": "x"},
                },
                {
                    "class_name": "Dense",
                    "config": {"name": "dense", "units": 2, "dtype": "float32"},
                },
            ],
        },
    }
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.4.0"
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(config or sequential)
        group = file.create_group("model_weights")
        group.create_dataset("dense/dense/kernel:0", data=np.ones((4, 2), np.float32))
        group.create_dataset("dense/dense/bias:0", data=np.ones(2, np.float32))


def keras_weights(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        _weights(file)


# ---------------------------------------------------------------- TensorFlow


def _graph() -> Any:
    graph = messages.message("GraphDef")()
    graph.versions.producer = 1882

    def node(name: str, op: str, *inputs: str) -> Any:
        row = graph.node.add(name=name.encode(), op=op.encode())
        row.input.extend(text.encode() for text in inputs)
        row.attr["T"].type = 1
        return row

    x = node("x", "Placeholder")
    x.attr["dtype"].type = 1
    for size in (-1, 4):
        x.attr["shape"].shape.dim.add(size=size)
    constant = node("w", "Const")
    constant.attr["value"].tensor.dtype = 1
    for size in (4, 2):
        constant.attr["value"].tensor.tensor_shape.dim.add(size=size)
    node("product", "MatMul", "x", "w")
    node("scores", "Softmax", "product")
    return graph


def graph_def(path: Path) -> None:
    path.write_bytes(_graph().SerializeToString())


def saved_model_bytes() -> bytes:
    model = messages.message("SavedModel")(saved_model_schema_version=1)
    meta = model.meta_graphs.add()
    meta.meta_info_def.tags.append(b"serve")
    meta.meta_info_def.tensorflow_version = b"2.21.0"
    meta.graph_def.CopyFrom(_graph())
    meta.object_graph_def.SetInParent()
    signature = meta.signature_def["serving_default"]
    for rows, name, size in ((signature.inputs, "x", 4), (signature.outputs, "scores", 2)):
        rows[name].name = f"{name}:0".encode()
        rows[name].dtype = 1
        rows[name].tensor_shape.dim.add(size=-1)
        rows[name].tensor_shape.dim.add(size=size)
    meta.asset_file_def.add(filename=b"words.txt")
    return bytes(model.SerializeToString())


def saved_model(folder: Path) -> None:
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(saved_model_bytes())
    checkpoint(folder / "variables" / "variables.index")


def saved_model_file(path: Path) -> None:
    path.write_bytes(saved_model_bytes())


def checkpoint(path: Path) -> None:
    """A table of one block, then the block that lists it."""
    entry = messages.message("BundleEntryProto")(dtype=1, size=32)
    for size in (4, 2):
        entry.shape.dim.add(size=size)
    rows = [
        (b"", b"\x08\x01"),
        (b"net/kernel/.ATTRIBUTES/VARIABLE_VALUE", entry.SerializeToString()),
    ]
    data = _block(rows)
    handles = _block([(b"net0", _varint(0) + _varint(len(data) - 5))])
    footer = _varint(0) * 2 + _varint(len(data)) + _varint(len(handles) - 5)
    magic = (0xDB4775248B80FB57).to_bytes(8, "little")
    path.write_bytes(data + handles + footer.ljust(40, b"\0") + magic)


def _block(rows: list[tuple[bytes, bytes]]) -> bytes:
    out = b"".join(
        _varint(0) + _varint(len(key)) + _varint(len(value)) + key + value for key, value in rows
    )
    restarts = struct.pack("<LL", 0, 1)
    return out + restarts + b"\0" + bytes(4)


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def tflite(path: Path) -> None:
    """FULLY_CONNECTED, quantised: schema.fbs by hand, from the leaves up."""
    import flatbuffers

    b = flatbuffers.Builder(1024)

    def table(*slots: tuple[int, str, Any]) -> int:
        b.StartObject(12)
        for slot, kind, value in slots:
            getattr(b, f"Prepend{kind}Slot")(slot, value, 0)
        return int(b.EndObject())

    def offsets(rows: list[int]) -> int:
        b.StartVector(4, len(rows), 4)
        for row in reversed(rows):
            b.PrependUOffsetTRelative(row)
        return int(b.EndVector())

    def numbers(rows: list[Any], kind: str = "Int32") -> int:
        b.StartVector(8 if kind == "Int64" else 4, len(rows), 8 if kind == "Int64" else 4)
        for row in reversed(rows):
            getattr(b, f"Prepend{kind}")(row)
        return int(b.EndVector())

    def tensor(name: str, shape: list[int], kind: int, buffer: int, scales: list[float]) -> int:
        text, dims = b.CreateString(name), numbers(shape)
        scale, zero = numbers(scales, "Float32"), numbers([3] * len(scales), "Int64")
        row = table((2, "UOffsetTRelative", scale), (3, "UOffsetTRelative", zero))
        return table(
            (0, "UOffsetTRelative", dims), (1, "Int8", kind), (2, "Uint32", buffer),
            (3, "UOffsetTRelative", text), (4, "UOffsetTRelative", row),
        )  # fmt: skip

    tensors = offsets(
        [
            tensor("input", [1, 4], 9, 0, [0.5]),
            tensor("weights", [2, 4], 9, 1, [0.25, 0.125]),
            tensor("output", [1, 2], 9, 0, [0.0625]),
        ]
    )
    ins, outs, both = numbers([0]), numbers([2]), numbers([0, 1])
    operator = table((1, "UOffsetTRelative", both), (2, "UOffsetTRelative", outs))
    operators = offsets([operator])
    graph = table(
        (0, "UOffsetTRelative", tensors), (1, "UOffsetTRelative", ins),
        (2, "UOffsetTRelative", outs), (3, "UOffsetTRelative", operators),
    )  # fmt: skip
    buffers = [table()]
    for data in (bytes(8), b"1.14.0".ljust(16, b"\0")):
        vector = b.CreateByteVector(data)
        buffers.append(table((0, "UOffsetTRelative", vector)))
    code = table((0, "Int8", 9), (3, "Int32", 9))
    name = b.CreateString("min_runtime_version")
    metadata = offsets([table((0, "UOffsetTRelative", name), (1, "Uint32", 2))])
    codes, graphs, held = offsets([code]), offsets([graph]), offsets(buffers)
    words = b.CreateString("made by hand")
    model = table(
        (0, "Uint32", 3), (1, "UOffsetTRelative", codes), (2, "UOffsetTRelative", graphs),
        (3, "UOffsetTRelative", words), (4, "UOffsetTRelative", held),
        (6, "UOffsetTRelative", metadata),
    )  # fmt: skip
    b.Finish(model, b"TFL3")
    path.write_bytes(bytes(b.Output()))


FILES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "torchscript-traced": ("traced.pt", traced, "torch"),
    "torchscript-scripted": ("scripted.pt", scripted, "torch"),
    "torch-export": ("program.pt2", exported, "torch"),
    "torch-state-dict": ("weights.pth", _save(lambda: _net().state_dict()), "torch"),
    "torch-checkpoint": ("checkpoint.pth", _save(_checkpoint), "torch"),
    "torch-module": ("module.pt", _save(_net), "torch"),
    "torch-legacy": (
        "legacy.pth",
        _save(lambda: _net().state_dict(), _use_new_zipfile_serialization=False),
        "torch",
    ),
    "torch-legacy-module": (
        "legacy_module.pth",
        _save(_net, _use_new_zipfile_serialization=False),
        "torch",
    ),
    "torch-tar": ("tar.pth", tar, ""),
    "aotinductor": ("compiled.pt2", aotinductor, ""),
    "safetensors": ("weights.safetensors", safetensors, ""),
    "sharded-checkpoint": ("sharded", sharded, ""),
    "keras": ("net.keras", keras_archive, "h5py"),
    "keras-h5": ("net.h5", keras_h5, "h5py"),
    "keras-weights": ("net.weights.h5", keras_weights, "h5py"),
    "saved-model": ("saved", saved_model, ""),
    "saved-model-file": ("graph.pb", saved_model_file, ""),
    "graph-def": ("frozen.pb", graph_def, ""),
    "tensorflow-checkpoint": ("net.index", checkpoint, ""),
    "tflite": ("net.tflite", tflite, "flatbuffers"),
}
"""Name: (file, what writes it, the module that takes)."""
SINGLE_FILES = [name for name in FILES if name not in ("saved-model", "sharded-checkpoint")]


def write(name: str, folder: Path) -> Path:
    """The file or folder of that name, written into `folder`."""
    file, writer, _ = FILES[name]
    writer(folder / file)
    return folder / file

"""External data: lazily mapped, hashed, and never outside the model's folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from infc import building, frontends
from infc.diagnostics import Diagnostic, InfcError
from infc.frontends import onnx_external

WEIGHTS = np.arange(4096, dtype=np.float32)


def write(folder: Path, entries: dict[str, str], dims: tuple[int, ...] = (4096,)) -> Path:
    """`y = x + w`, with `w` wherever `entries` say."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"], "add")],
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4096])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4096])],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(exist_ok=True)
    (folder / "w.bin").write_bytes(WEIGHTS.tobytes())
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def refusal(path: Path) -> Diagnostic:
    with pytest.raises(InfcError) as caught:
        frontends.load(path)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E103"
    return diagnostic


def test_data_stays_in_its_file_until_it_is_asked_for(tmp_path: Path) -> None:
    source = frontends.load(write(tmp_path / "m", {"location": "w.bin"}))
    tensor = source.model.graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert tensor.raw is None  # not mapped yet
    assert np.array_equal(tensor.numpy(), WEIGHTS)


def test_relative_path_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "m", {"location": "w.bin"})
    monkeypatch.chdir(tmp_path / "m")
    source = frontends.load(Path("model.onnx"))
    monkeypatch.chdir(tmp_path)
    tensor = source.model.graph.initializers["w"].const_value
    assert tensor is not None
    assert np.array_equal(tensor.numpy(), WEIGHTS)


def test_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    path = write(tmp_path / "m", {"location": "link"})
    (tmp_path / "m" / "link").symlink_to("w.bin")
    assert frontends.load(path).inputs[0].name == "x"


def test_missing(tmp_path: Path) -> None:
    assert "`none.bin` does not exist" in refusal(write(tmp_path, {"location": "none.bin"})).message


@pytest.mark.parametrize("location", ["../w.bin", "a/../../w.bin", "/etc/passwd", ".."])
def test_escaping_location(location: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m", {"location": location})
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    assert "lies outside the model's folder" in refusal(path).message


@pytest.mark.parametrize("location", ["", "\0", "w.bin\0"])
def test_no_location(location: str, tmp_path: Path) -> None:
    assert "has no location" in refusal(write(tmp_path, {"location": location})).message


def test_link_out_of_the_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "m", {"location": "link"})
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "m" / "link").symlink_to(tmp_path / "w.bin")
    assert "symbolic link" in refusal(path).message


def test_link_out_in_the_middle_of_the_path(tmp_path: Path) -> None:
    path = write(tmp_path / "m", {"location": "sub/w.bin"})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "w.bin").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "m" / "sub").symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in refusal(path).message


def test_link_to_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "m", {"location": "loop"})
    (tmp_path / "m" / "loop").symlink_to("loop")
    assert "cannot be reached" in refusal(path).message


def test_hard_link(tmp_path: Path) -> None:
    path = write(tmp_path / "m", {"location": "hard"})
    os.link(tmp_path / "m" / "w.bin", tmp_path / "m" / "hard")
    assert "has 2 hard links" in refusal(path).message


@pytest.mark.timeout(20)
def test_fifo_and_directory(tmp_path: Path) -> None:
    path = write(tmp_path / "m", {"location": "odd"})
    os.mkfifo(tmp_path / "m" / "odd")
    assert "is not a regular file" in refusal(path).message
    (tmp_path / "m" / "odd").unlink()
    (tmp_path / "m" / "odd").mkdir()
    assert "is not a regular file" in refusal(path).message


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ({"offset": "4"}, "has 16384 bytes; the tensor ends at byte 16388"),
        ({"offset": "99999999999"}, "the tensor ends at byte"),
        ({"offset": "-4"}, "has the offset `-4`, which is not a size"),
        ({"offset": "1e3"}, "which is not a size"),
        ({"offset": "9" * 5000}, "which is not a size"),
        ({"length": "-1"}, "has the length `-1`"),
        ({"length": "16380"}, "gives the tensor 16380 bytes; its shape and type need 16384"),
        ({"length": "99999999"}, "its shape and type need 16384"),
    ],
)
def test_wrong_size(entries: dict[str, str], what: str, tmp_path: Path) -> None:
    assert what in refusal(write(tmp_path, {"location": "w.bin", **entries})).message


def test_one_diagnostic_for_a_file_not_for_each_tensor(tmp_path: Path) -> None:
    path = write(tmp_path, {"location": "none.bin"})
    model = onnx.load(path, load_external_data=False)
    for i in range(50):
        model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
        model.graph.initializer[-1].name = f"w{i}"
    path.write_bytes(model.SerializeToString())
    refusal(path)


def test_hash_covers_the_bytes_that_are_used(tmp_path: Path) -> None:
    path = write(tmp_path, {"location": "w.bin", "offset": "0"})
    first = frontends.load(path).sha256
    assert first != hashlib.sha256(path.read_bytes()).hexdigest()
    assert frontends.load(path).sha256 == first
    with (tmp_path / "w.bin").open("r+b") as stream:
        stream.truncate(1 << 40)  # a hole of a terabyte, which no tensor uses
    assert frontends.load(path).sha256 == first
    with (tmp_path / "w.bin").open("r+b") as stream:
        stream.write(b"\1")
    assert frontends.load(path).sha256 != first


def test_hash_without_external_data_is_that_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"location": "w.bin"})
    embedded = tmp_path / "embedded.onnx"
    onnx.save(onnx.load(path), embedded)
    assert frontends.load(embedded).sha256 == hashlib.sha256(embedded.read_bytes()).hexdigest()


def test_overlapping_tensors_are_hashed_once(tmp_path: Path) -> None:
    file = tmp_path / "w.bin"
    file.write_bytes(bytes(range(100)))
    status = file.stat()
    identity = (status.st_dev, status.st_ino)
    pieces = [
        onnx_external.Piece("w.bin", file, offset, size, identity)
        for offset, size in ((0, 60), (20, 20), (30, 70))
    ]
    inner = hashlib.sha256(bytes(range(100))).hexdigest()
    expected = hashlib.sha256(f"feed  model\n{inner}  w.bin".encode()).hexdigest()
    assert onnx_external.sha256_with("feed", pieces) == expected


def test_a_file_that_changes_under_the_reader_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.bin"
    file.write_bytes(b"1234")
    piece = onnx_external.Piece("w.bin", file, 0, 4, (0, 0))
    with pytest.raises(InfcError, match=r"E103.*changed while it was read"):
        onnx_external.sha256_with("feed", [piece])


def test_tensor_without_elements_needs_no_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"location": "none.bin"}, dims=(0,))
    model = onnx.load(path, load_external_data=False)
    model.graph.node[0].op_type = "Concat"
    model.graph.node[0].attribute.add(name="axis", type=onnx.AttributeProto.INT, i=0)
    path.write_bytes(model.SerializeToString())
    assert frontends.load(path).outputs[0].shape == (4096,)


def test_saved_elsewhere_the_model_takes_its_weights_along(tmp_path: Path) -> None:
    source = frontends.load(write(tmp_path / "m", {"location": "w.bin"}))
    (tmp_path / "out").mkdir()
    building.save_model(source.model, tmp_path / "out" / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    (answer,) = session.run(None, {"x": WEIGHTS})
    assert np.array_equal(answer, WEIGHTS * 2)
    # The model in memory is as it was: its weights are still in their own file.
    assert isinstance(source.model.graph.initializers["w"].const_value, ir.ExternalTensor)

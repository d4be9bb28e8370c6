"""Input sets, reference vectors, and verification that can fail."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from infc import driver
from infc.bundle import open_bundle
from infc.diagnostics import ExitCode, InfcError, fail
from infc.feeds import make_feeds, typical_feeds
from infc.input_spec import InputSpec
from infc.request import Request, VerifyOptions
from infc.scratch import scratch_folder
from infc.signature import TensorSpec, load_tensors, save_tensors


def relu_model(path: Path, shape: str = "N, 4") -> Path:
    text = f"""<ir_version: 8, opset_import: ["": 13]>
    g (float[{shape}] x) => (float[{shape}] y) {{ y = Relu(x) }}"""
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def test_static_inputs_get_one_size() -> None:
    feeds = make_feeds([TensorSpec("x", "float32", (1, 3))], VerifyOptions(samples=3))
    assert [f["x"].shape for f in feeds] == [(1, 3)] * 3
    assert not np.array_equal(feeds[0]["x"], feeds[1]["x"])


def test_the_same_seed_gives_the_same_inputs() -> None:
    spec = [TensorSpec("x", "float32", (4,))]
    first, again = (make_feeds(spec, VerifyOptions(seed=7))[0]["x"] for _ in range(2))
    other = make_feeds(spec, VerifyOptions(seed=8))[0]["x"]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_bounded_dimensions_are_tried_at_low_typical_and_high() -> None:
    spec = TensorSpec("x", "float32", ("n", 3), {"n": (1, 4, 8)})
    feeds = make_feeds([spec], VerifyOptions(samples=1))
    assert [f["x"].shape for f in feeds] == [(1, 3), (4, 3), (8, 3)]


def test_inputs_that_share_a_dimension_agree() -> None:
    specs = [TensorSpec("a", "int64", ("n", "s")), TensorSpec("b", "bool", ("n", "s"))]
    for feeds in make_feeds(specs, VerifyOptions()):
        assert feeds["a"].shape == feeds["b"].shape
        assert set(np.unique(feeds["a"])) <= {0, 1}
        assert feeds["b"].dtype == np.bool_


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "uint8", "int32"])
def test_inputs_have_the_type_that_was_asked_for(dtype: str) -> None:
    (feeds,) = make_feeds([TensorSpec("x", dtype, (2,))], VerifyOptions(samples=1))
    assert feeds["x"].dtype.name == dtype


def test_an_unknown_dimension_is_e110() -> None:
    with pytest.raises(InfcError, match="no input has a dimension `m`"):
        typical_feeds([TensorSpec("x", "float32", ("n",))], {"m": 3})


def test_tensors_survive_the_disk(tmp_path: Path) -> None:
    import ml_dtypes

    tensors = {
        "scalar": np.float32(3.5),
        "empty": np.zeros((0, 2), np.int64),
        "flags": np.array([True, False]),
        "half": np.arange(4, dtype=ml_dtypes.bfloat16).reshape(2, 2),
        "transposed": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    }
    save_tensors(tmp_path / "t", tensors)
    loaded = load_tensors(tmp_path / "t")
    assert list(loaded) == list(tensors)
    for name, value in tensors.items():
        assert loaded[name].dtype == np.asarray(value).dtype
        assert np.array_equal(loaded[name], value)


def test_user_data_is_used_and_checked(tmp_path: Path) -> None:
    model = relu_model(tmp_path / "m.onnx")
    good, misnamed, mistyped = (tmp_path / f"{n}.npz" for n in ("good", "misnamed", "mistyped"))
    np.savez(good, x=np.float32([[1, -2, 3, -4]]))
    np.savez(misnamed, image=np.float32([[1, 2, 3, 4]]))
    np.savez(mistyped, x=np.float64([[1, 2, 3, 4]]))

    def request(data: Path) -> Request:
        return Request(model, ("cpu",), tmp_path / "out", verify=VerifyOptions(data=data))

    result = driver.compile(request(good))
    bundle = open_bundle(result.results[0].bundle or tmp_path)
    recorded = load_tensors(bundle.path / "reference" / "0" / "outputs")
    assert np.array_equal(recorded["y"], np.float32([[1, 0, 3, 0]]))
    for data, says in ((misnamed, "has no array `x`"), (mistyped, "is float64")):
        with pytest.raises(InfcError, match=says) as error:
            driver.compile(request(data))
        assert error.value.exit_code == ExitCode.USAGE


def test_a_reference_that_is_nan_throughout_is_e604(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 13]>
    g (float[4] x) => (float[4] y) { z = Sub(x, x)  y = Div(z, z) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "nan.onnx")
    with pytest.raises(InfcError) as error:
        driver.compile(Request(tmp_path / "nan.onnx", ("cpu",), tmp_path / "out"))
    assert error.value.diagnostics[0].code == "E604"
    assert error.value.exit_code == ExitCode.VERIFICATION_FAILED
    assert not (tmp_path / "out").exists()


def test_a_source_that_does_not_run_is_e107(tmp_path: Path) -> None:
    shape = helper.make_tensor("s", onnx.TensorProto.INT64, [1], [7])
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "s"], ["y"], name="reshape")],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [7])],
        [shape],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(InfcError) as error:
        driver.compile(Request(tmp_path / "m.onnx", ("cpu",), tmp_path / "out"))
    assert error.value.diagnostics[0].code == "E107"
    given = (InputSpec.parse("x=7"),)
    result = driver.compile(Request(tmp_path / "m.onnx", ("cpu",), tmp_path / "out", inputs=given))
    assert result.exit_code == ExitCode.DONE


@pytest.mark.parametrize(("ir_version", "opset"), [(14, 17), (8, 28)])
def test_a_source_too_new_for_its_runtime_is_not_told_to_give_shapes(
    tmp_path: Path, ir_version: int, opset: int
) -> None:
    model = onnx.load(relu_model(tmp_path / "m.onnx", "2"))
    model.ir_version = ir_version
    model.opset_import[0].version = opset
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(InfcError) as error:
        driver.compile(Request(tmp_path / "m.onnx", ("cpu",), tmp_path / "out"))
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == "E107"
    assert "--input" not in diagnostic.help
    assert "an earlier version of ONNX" in diagnostic.help


def test_a_recorded_reference_that_differs_is_e602(tmp_path: Path) -> None:
    model = relu_model(tmp_path / "m.onnx", "2")
    result = driver.compile(Request(model, ("cpu",), tmp_path / "out"))
    folder = result.results[0].bundle
    assert folder is not None
    assert driver.verify(folder).sets == 2
    # As a bundle would look whose artifact answers otherwise; its hashes are made to fit.
    import json

    from infc.bundle import sha256_of

    victim = folder / "reference" / "0" / "outputs" / "0.bin"
    victim.write_bytes(np.float32([5.0, 6.0]).tobytes())
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["reference/0/outputs/0.bin"]["sha256"] = sha256_of(victim)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InfcError) as error:
        driver.verify(folder)
    assert error.value.diagnostics[0].code == "E602"
    assert driver.verify(folder, source=model).errors[0].ok  # the source itself still agrees


def test_a_full_temporary_folder_is_e701(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it was that a worker or a compiler stumbled over."""
    usage = type("Usage", (), {"free": 0})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InfcError) as error, scratch_folder():
        raise fail("E703", "the compiler said something strange")
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == "E701"
    assert "TMPDIR" in diagnostic.help

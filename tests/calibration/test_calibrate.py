"""Calibration from end to end: a model and data in, a ranges file out, through a worker."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import psutil
import pytest
from onnx import numpy_helper

from infc.calibration import Calibration, calibrate
from infc.calibration.data import Samples, open_samples
from infc.diagnostics import InfcError
from infc.request import CalibrationOptions, WorkerLimits
from infc.signature import TensorSpec

LIMITS = WorkerLimits(timeout_s=300)
NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[batch,3,H,W] image) => (float[batch,4] y)
<float[4,4] w, float[4,3,3,3] k, float[4] b>
{
  conv = Conv<pads = [1,1,1,1]>(image, k, b)
  relu = Relu(conv)
  gap = GlobalAveragePool(relu)
  axes = Constant<value = int64[2] {2, 3}>()
  flat = Squeeze(gap, axes)
  y = MatMul(flat, w)
}
"""
OBSERVED = ["image", "relu", "flat", "y"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFC_HOME", str(tmp_path / "home"))


@pytest.fixture
def net(tmp_path: Path) -> Path:
    model = onnx.parser.parse_model(NET)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (4, 4)), ("k", (4, 3, 3, 3)), ("b", (4,))):
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    return path


SPEC = (TensorSpec("image", "float32", ("batch", 3, "H", "W")),)


def images(folder: Path, count: int, *, vary: bool = False) -> Samples:
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True)
    for i in range(count):
        side = 12 + (i % 5) * 7 if vary else 16
        array = rng.gamma(1 + i, 1, (3, side, side + 4)).astype(np.float32)
        np.save(folder / f"{i:04}.npy", array)
    return open_samples(CalibrationOptions(str(folder), method="minmax"), SPEC)


def by_hand(net: Path, samples: Samples, names: list[str]) -> dict[str, list[np.ndarray[Any, Any]]]:
    """What ONNX Runtime gives for the tensors that are observed."""
    model = onnx.load(net)
    for name in names:
        if name not in ("image", "y"):
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    outputs = [name for name in names if name != "image"]
    found: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in names}
    for feed in samples:
        values = feed | dict(zip(outputs, session.run(outputs, feed), strict=True))
        for name in names:
            found[name].append(values[name])
    return found


@pytest.mark.parametrize("vary", [False, True], ids=["one shape", "many shapes"])
def test_what_is_measured_is_what_the_model_computes(net: Path, tmp_path: Path, vary: bool) -> None:
    samples = images(tmp_path / "data", 11, vary=vary)
    seen: list[tuple[int, int | None]] = []
    done = calibrate(
        ir.load(net), OBSERVED, samples, tmp_path / "s", LIMITS, lambda k, n: seen.append((k, n))
    )
    assert not done.cached
    assert done.ranges.samples == 11
    assert set(done.ranges.tensors) == set(OBSERVED)
    for name, arrays in by_hand(net, samples, OBSERVED).items():
        found = done.ranges.tensors[name]
        assert found.samples == 11
        assert found.low == pytest.approx(min(a.min() for a in arrays), rel=1e-5)
        assert found.high == pytest.approx(max(a.max() for a in arrays), rel=1e-5)
        assert found.average_high == pytest.approx(np.mean([a.max() for a in arrays]), rel=1e-5)
        assert found.elements == sum(a.size for a in arrays)
        assert found.axis == 1
        assert found.means is not None
        channels = [np.moveaxis(a, 1, 0).reshape(a.shape[1], -1) for a in arrays]
        means = np.concatenate(channels, axis=1).mean(axis=1)
        np.testing.assert_allclose(found.means, means, rtol=1e-4)
    assert all(n == 11 for _, n in seen)
    assert [k for k, _ in seen] == sorted(k for k, _ in seen)
    assert not list(tmp_path.glob("**/observed.onnx*"))


def test_again_the_file_is_the_same_and_from_the_cache_it_is_not_run(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = images(tmp_path / "data", 6)
    first = calibrate(ir.load(net), OBSERVED, samples, tmp_path / "1", LIMITS)
    cached = calibrate(ir.load(net), OBSERVED, samples, tmp_path / "2", LIMITS)
    assert cached.cached
    assert not (tmp_path / "2").exists()
    assert cached.diagnostics == first.diagnostics
    assert any(d.code == "E409" for d in first.diagnostics)  # few samples
    monkeypatch.setenv("INFC_HOME", str(tmp_path / "another"))
    again = calibrate(ir.load(net), OBSERVED, samples, tmp_path / "3", LIMITS)
    assert not again.cached
    assert first.ranges.dump() == cached.ranges.dump() == again.ranges.dump()
    text = (tmp_path / "1" / "ranges.json").read_text()
    assert text == (tmp_path / "3" / "ranges.json").read_text()
    assert str(tmp_path) not in text


def test_another_model_other_data_and_other_tensors_are_not_in_the_cache(
    net: Path, tmp_path: Path
) -> None:
    samples = images(tmp_path / "data", 3)
    calibrate(ir.load(net), OBSERVED, samples, tmp_path / "1", LIMITS)
    assert not calibrate(ir.load(net), ["relu"], samples, tmp_path / "2", LIMITS).cached
    np.save(tmp_path / "data" / "0001.npy", np.ones((3, 16, 20), np.float32))
    changed = open_samples(CalibrationOptions(str(tmp_path / "data")), SPEC)
    assert not calibrate(ir.load(net), OBSERVED, changed, tmp_path / "3", LIMITS).cached
    model = onnx.load(net)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    onnx.save(model, net)
    assert not calibrate(ir.load(net), OBSERVED, changed, tmp_path / "4", LIMITS).cached


def test_a_damaged_cache_is_measured_again(net: Path, tmp_path: Path) -> None:
    samples = images(tmp_path / "data", 3)
    first = calibrate(ir.load(net), OBSERVED, samples, tmp_path / "1", LIMITS)
    (kept,) = (tmp_path / "home").rglob("ranges.json")
    kept.write_text(kept.read_text()[:-100])
    again = calibrate(ir.load(net), OBSERVED, samples, tmp_path / "2", LIMITS)
    assert not again.cached
    assert again.ranges.dump() == first.ranges.dump()
    assert calibrate(ir.load(net), OBSERVED, samples, tmp_path / "3", LIMITS).cached


def test_a_killed_run_goes_on_where_it_was(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    np.savez(tmp_path / "data.npz", image=rng.random((4000, 3, 8, 8), np.float32))
    options = CalibrationOptions(str(tmp_path / "data.npz"), samples=None)
    samples = open_samples(options, SPEC)

    def kill(_done: int, _total: int | None) -> None:
        if list((tmp_path / "home").rglob("*.partial")):
            for child in psutil.Process().children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)

    def run(folder: str, progress: Callable[[int, int | None], None] | None) -> Calibration:
        scratch = tmp_path / folder
        return calibrate(
            ir.load(net), OBSERVED, samples, scratch, LIMITS, progress, checkpoint_s=0.05
        )

    with pytest.raises(InfcError) as raised:
        run("killed", kill)
    assert raised.value.diagnostics[0].code == "E505"
    resumed = run("resumed", None)
    assert 0 < resumed.resumed < 4000
    assert resumed.ranges.samples == 4000
    assert not list((tmp_path / "home").rglob("*.partial"))
    monkeypatch.setenv("INFC_HOME", str(tmp_path / "another"))
    assert run("whole", None).ranges.dump() == resumed.ranges.dump()


def code_of(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(InfcError) as raised:
        call()
    (diagnostic,) = raised.value.diagnostics
    return diagnostic.code, diagnostic.message


def test_nan_names_the_tensor_and_the_sample(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[4] x) => (float[4] y) { root = Sqrt(x)  y = Neg(root) }
    """
    path = tmp_path / "net.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    data = np.ones((5, 4), np.float32)
    data[3, 2] = -1
    np.savez(tmp_path / "data.npz", x=data)
    spec = (TensorSpec("x", "float32", (4,)),)
    samples = open_samples(CalibrationOptions(str(tmp_path / "data.npz")), spec)
    code, message = code_of(
        lambda: calibrate(ir.load(path), ["x", "root", "y"], samples, tmp_path, LIMITS)
    )
    assert code == "E412"
    assert message == (
        "`root` and 1 more tensors of the float model holds NaN on calibration sample 3"
    )


def test_inf_is_a_warning_that_names_the_tensor(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[4] x) => (float[4] y) { inverse = Reciprocal(x)  y = Neg(inverse) }
    """
    path = tmp_path / "net.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    data = np.linspace(0, 3, 400, dtype=np.float32).reshape(100, 4)
    np.savez(tmp_path / "data.npz", x=data)
    spec = (TensorSpec("x", "float32", (4,)),)
    samples = open_samples(CalibrationOptions(str(tmp_path / "data.npz")), spec)
    done = calibrate(ir.load(path), ["x", "inverse"], samples, tmp_path / "s", LIMITS)
    (warning,) = done.diagnostics
    assert (warning.code, warning.severity) == ("E412", "warning")
    assert "`inverse`" in warning.message
    assert done.ranges.tensors["inverse"].infinities == 1
    assert done.ranges.tensors["inverse"].high == pytest.approx(1 / data[0, 1], rel=1e-5)


def test_a_sample_that_does_not_run_is_named(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (int64[2] ids) => (float[2,3] y) <float[5,3] table = {0,1,2,3,4,5,6,7,8,9,10,11,12,13,14}>
    { y = Gather(table, ids) }
    """
    path = tmp_path / "net.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    np.savez(tmp_path / "data.npz", ids=np.array([[0, 1], [4, 4], [2, 9]]))
    spec = (TensorSpec("ids", "int64", (2,)),)
    samples = open_samples(CalibrationOptions(str(tmp_path / "data.npz")), spec)
    code, message = code_of(
        lambda: calibrate(ir.load(path), ["y"], samples, tmp_path / "s", LIMITS)
    )
    assert code == "E413"
    assert message.startswith("the float model does not run on calibration sample 2: ")


def test_a_tensor_that_is_none_is_named(net: Path, tmp_path: Path) -> None:
    samples = images(tmp_path / "data", 2)
    code, message = code_of(
        lambda: calibrate(ir.load(net), ["relu", "b"], samples, tmp_path / "s", LIMITS)
    )
    assert (code, message) == ("E411", "the model computes no tensor `b`: nothing to observe")


def test_external_data_is_found_and_part_of_the_key(net: Path, tmp_path: Path) -> None:
    model = onnx.load(net)
    folder = tmp_path / "external"
    folder.mkdir()
    path = folder / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    samples = images(tmp_path / "data", 3)
    inside = calibrate(ir.load(net), OBSERVED, samples, tmp_path / "1", LIMITS)
    outside = calibrate(ir.load(path), OBSERVED, samples, tmp_path / "2", LIMITS)
    assert outside.cached, "the same model, wherever its weights lie"
    assert outside.ranges.dump() == inside.ranges.dump()
    assert {p.name for p in folder.iterdir()} == {"net.onnx", "weights.bin"}
    weights = bytearray((folder / "weights.bin").read_bytes())
    weights[-1] ^= 1
    (folder / "weights.bin").write_bytes(weights)
    assert not calibrate(ir.load(path), OBSERVED, samples, tmp_path / "3", LIMITS).cached


def test_only_inputs_may_be_observed(net: Path, tmp_path: Path) -> None:
    samples = images(tmp_path / "data", 2)
    done = calibrate(ir.load(net), ["image"], samples, tmp_path / "s", LIMITS)
    assert list(done.ranges.tensors) == ["image"]


def test_a_full_disk_is_what_is_said(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = images(tmp_path / "data", 2)

    def full(*_words: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    model = ir.load(net)
    monkeypatch.setattr(ir, "save", full)
    with pytest.raises(OSError, match="No space left"):
        calibrate(model, OBSERVED, samples, tmp_path / "s", LIMITS)

"""OpenVINO: bounds, names, fp16 weights, absent devices, refusals, and finding the SDK."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conformance_models import CASES, model, random

from infc import driver
from infc.diagnostics import InfcError
from infc.input_spec import InputSpec
from infc.request import Precision, Request
from infc.results import bundles
from infc.signature import TensorSpec
from infc.targets import BackEndError, BuildJob, RunJob, Target, look_up, openvino, openvino_sdk


@pytest.fixture(autouse=True)
def sdk(need_module: Any) -> None:
    need_module("openvino")


def compiled(
    folder: Path, case: str, target: str = "openvino", inputs: tuple[str, ...] = (), **options: Any
) -> driver.TargetResult:
    path = CASES[case].write(folder)
    specs = tuple(InputSpec.parse(text) for text in inputs)
    request = Request(path, (target,), folder / "build", inputs=specs, loaders=(), **options)
    (result,) = driver.compile(request).results
    return result


def read(result: driver.TargetResult) -> Any:
    import openvino as ov

    assert result.bundle is not None, [d.render() for d in result.diagnostics]
    return ov.Core().read_model(str(result.bundle / "model" / "model.xml"))


def test_bounds_are_in_the_ir(tmp_path: Path) -> None:
    network = read(compiled(tmp_path, "dynamic-batch", inputs=("x=1..4@2x3x8x8",)))
    dims = network.input("x").partial_shape
    assert (dims[0].get_min_length(), dims[0].get_max_length()) == (1, 4)
    assert [d.get_length() for d in list(dims)[1:]] == [3, 8, 8]


def test_a_dimension_without_bounds_stays_dynamic(tmp_path: Path) -> None:
    dims = read(compiled(tmp_path, "dynamic-batch")).input("x").partial_shape
    assert dims[0].is_dynamic
    assert dims[0].get_max_length() < 0


def test_a_fixed_dimension_is_static(tmp_path: Path) -> None:
    network = read(compiled(tmp_path, "dynamic-batch", inputs=("x=2x3x8x8",)))
    assert network.input("x").partial_shape.is_static


@pytest.mark.parametrize(
    "case", ["odd-names", "input-that-is-an-output", "one-tensor-as-two-outputs", "unused-input"]
)
def test_the_sources_names_are_in_the_ir(case: str, tmp_path: Path) -> None:
    network = read(compiled(tmp_path, case))
    source = CASES[case].make().graph
    weights = {t.name for t in source.initializer}
    inputs = [v.name for v in source.input if v.name not in weights]
    assert [p.get_names() for p in network.inputs] == [{name} for name in inputs]
    assert [p.get_names() for p in network.outputs] == [{v.name} for v in source.output]


def test_fp16_halves_the_weights_and_keeps_float32_arithmetic(tmp_path: Path) -> None:
    sizes, noise = [], []
    for precision in (Precision.FP32, Precision.FP16):
        folder = tmp_path / str(precision)
        folder.mkdir()
        result = compiled(folder, "big-constant", precision=precision)
        assert result.bundle is not None, [d.render() for d in result.diagnostics]
        sizes.append((result.bundle / "model" / "model.bin").stat().st_size)
        noise.append(result.verification["artifact"]["outputs"][0]["sqnr_db"])
    assert sizes == [4 << 20, 2 << 20]
    assert noise[0] > 110
    # Weights rounded to 11 bits; bfloat16 arithmetic (8 bits) would leave 50 dB.
    assert 65 < noise[1] < 90


def test_the_npu_profile_is_fp16(tmp_path: Path) -> None:
    assert look_up("intel-npu").precision is Precision.FP16


@pytest.mark.parametrize("device", ["FPGA", "HETERO:FPGA,CPU", "FPGA.1"])
def test_an_absent_device_is_verified_on_the_cpu_and_that_is_said(
    device: str, tmp_path: Path
) -> None:
    target = Target("board", "openvino", "", device=device)
    source = CASES["scalars"].write(tmp_path)
    (tmp_path / "out").mkdir()
    artifact = openvino.build(BuildJob(source, tmp_path / "out", target, (), ()))
    assert artifact.notes == {"verified_on": "CPU"}
    run = openvino.open(
        RunJob(tmp_path / "out" / artifact.entry, target, ("p", "q", "r"), ("a", "k", "v"))
    )
    feeds = {
        "a": np.array(1.0, np.float32),
        "k": np.array(2, np.int64),
        "v": np.arange(3, dtype=np.float32),
    }
    answers = run(feeds)
    np.testing.assert_allclose(answers["p"], np.exp(1.0), rtol=1e-6)
    assert (answers["q"], answers["r"]) == (2.0, 4)


@pytest.mark.parametrize("device", ["CPU", "AUTO", "AUTO:CPU", "HETERO:CPU", "MULTI:CPU"])
def test_a_device_that_is_there_is_used(device: str, tmp_path: Path) -> None:
    target = Target("host", "openvino", "", device=device)
    source = CASES["dynamic-batch"].write(tmp_path)
    (tmp_path / "out").mkdir()
    artifact = openvino.build(BuildJob(source, tmp_path / "out", target, (), ()))
    assert artifact.notes == {}
    run = openvino.open(RunJob(tmp_path / "out" / artifact.entry, target, ("y",), ("x",)))
    assert run({"x": random(2, 3, 8, 8)})["y"].shape == (2, 4)


def test_the_answers_of_one_run_outlive_the_next(tmp_path: Path) -> None:
    path = CASES["float64"].write(tmp_path)
    (tmp_path / "out").mkdir()
    target = look_up("openvino")
    artifact = openvino.build(BuildJob(path, tmp_path / "out", target, (), ()))
    run = openvino.open(RunJob(tmp_path / "out" / artifact.entry, target, ("p",), ("a",), 0))
    first = run({"a": np.ones((2, 4))})["p"]
    run({"a": np.full((2, 4), 3.0)})
    assert (first == 0).all()


def test_a_feed_outside_the_bounds_is_the_vendors_refusal(tmp_path: Path) -> None:
    path = CASES["dynamic-batch"].write(tmp_path)
    (tmp_path / "out").mkdir()
    target = look_up("openvino")
    spec = TensorSpec("x", "float32", ("N", 3, 8, 8), {"N": (1, 2, 4)})
    openvino.build(BuildJob(path, tmp_path / "out", target, (spec,), ()))
    run = openvino.open(RunJob(tmp_path / "out" / "model.xml", target, ("y",), ("x",)))
    with pytest.raises(BackEndError) as caught:
        run({"x": random(5, 3, 8, 8)})
    assert "src/" not in str(caught.value)


def test_every_node_whose_rule_is_missing_or_fails_is_listed(tmp_path: Path) -> None:
    """Two operators without a rule, and of three MaxPools the two whose attribute is wrong."""
    pool = 'MaxPool<kernel_shape=[2,2], auto_pad="{}">({})'
    source = model(
        f"""g (float[1,1,4,4] x, bool b) => (float y, float d) {{
            [fine] p = {pool.format("VALID", "x")}
            [bad] q = {pool.format("SIDEWAYS", "x")}
            [det] d = Det(x)
            y = If(b) <
                then_branch = yes () => (float t) {{ [inner] t = {pool.format("NOWHERE", "x")} }},
                else_branch = no () => (float e) {{ [inner2] e = Det(x) }}
            > }}"""
    )
    path = tmp_path / "m.onnx"
    onnx.save(source, path)
    found = {u.node: u.reason for u in openvino.check(path, look_up("openvino"))}
    assert list(found) == ["bad", "det", "inner", "inner2"]
    assert found["det"] == found["inner2"] == openvino.NO_RULE
    assert "'SIDEWAYS' is invalid" in found["bad"]
    assert "'NOWHERE' is invalid" in found["inner"]
    assert not any("src/" in reason for reason in found.values())


def test_a_model_that_is_taken_whole_has_nothing_to_list(tmp_path: Path) -> None:
    path = CASES["vision-operators"].write(tmp_path)
    assert openvino.check(path, look_up("openvino")) == ()


def test_the_manifest_says_where_it_was_verified(tmp_path: Path) -> None:
    import openvino as ov

    if "NPU" in ov.Core().available_devices:
        pytest.skip("missing: a machine without an NPU")
    result = compiled(tmp_path, "scalars", "intel-npu")
    assert result.bundle is not None, [d.render() for d in result.diagnostics]
    manifest = json.loads((result.bundle / "manifest.json").read_text())
    assert manifest["artifact"]["notes"] == {"verified_on": "CPU"}
    assert manifest["target"]["device"] == "NPU"
    verified = driver.verify(result.bundle)
    assert (verified.device, verified.ran_on) == ("NPU", "CPU")
    assert "input sets, on CPU: NPU is absent here" in bundles.verified(verified).text
    assert bundles.verified(verified).document["ran_on"] == "CPU"
    figures = driver.bench(result.bundle, runs=1, warmup=0)
    assert (figures["device"], figures["ran_on"]) == ("NPU", "CPU")
    assert "on CPU: NPU is absent here" in bundles.benched(figures).text


def test_the_wheel_is_an_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OpenVINO_DIR", "INTEL_OPENVINO_DIR"):
        monkeypatch.delenv(variable, raising=False)
    (folder,) = openvino.LOADER.sdk().values()
    assert (Path(folder) / "OpenVINOConfig.cmake").is_file()
    (libraries,) = openvino.LOADER.library_path()
    assert list(libraries.glob("libopenvino.so*"))


def test_an_installation_that_is_named_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "openvino"
    for folder in ("runtime/cmake", "runtime/lib/intel64", "runtime/3rdparty/tbb/lib"):
        (root / folder).mkdir(parents=True)
    (root / "runtime" / "cmake" / "OpenVINOConfig.cmake").touch()
    monkeypatch.delenv("OpenVINO_DIR", raising=False)
    monkeypatch.setenv("INTEL_OPENVINO_DIR", str(root))
    assert openvino.LOADER.sdk() == {"OpenVINO_DIR": str(root / "runtime" / "cmake")}
    assert openvino.LOADER.library_path() == [
        root / "runtime" / "lib" / "intel64",
        root / "runtime" / "3rdparty" / "tbb" / "lib",
    ]


def test_an_absent_sdk_is_a_missing_toolchain(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OpenVINO_DIR", "INTEL_OPENVINO_DIR"):
        monkeypatch.delenv(variable, raising=False)
    real = importlib.util.find_spec
    monkeypatch.setattr(openvino_sdk, "find_spec", lambda n: None if n == "openvino" else real(n))
    with pytest.raises(InfcError) as caught:
        openvino.LOADER.sdk()
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E501"
    assert "pip install openvino" in diagnostic.help
    assert openvino.LOADER.library_path() == []

"""ONNX Runtime: what is fused, what is not, both formats, refusals, and finding the SDK."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conformance_models import CASES, model, random

from infc import building, driver
from infc.diagnostics import InfcError
from infc.request import Request
from infc.signature import TensorSpec
from infc.targets import (
    Artifact,
    BackEndError,
    BuildJob,
    RunJob,
    Target,
    onnxruntime,
    onnxruntime_sdk,
)
from infc.targets.onnxruntime_fusion import fuse_conv_activation

TARGET = Target("onnxruntime", "onnxruntime", "")
ACTIVATIONS = {
    "Relu": ("Relu(c)", []),
    "Clip": ("Clip(c, low, high)", [-0.25, 0.5]),
    "Clip without a lower bound": ("Clip(c, , high)", [np.finfo(np.float32).min, 0.5]),
    "LeakyRelu": ("LeakyRelu<alpha=0.2>(c)", [0.2]),
    "Sigmoid": ("Sigmoid(c)", []),
    "Tanh": ("Tanh(c)", []),
    "HardSigmoid": ("HardSigmoid<alpha=0.3, beta=0.4>(c)", [0.3, 0.4]),
}


def convolution(tail: str, rank: int = 4, dtype: str = "float") -> onnx.ModelProto:
    spatial = ",".join("7" for _ in range(rank - 2))
    kind = {"float": np.float32, "double": np.float64, "float16": np.float16}[dtype]
    return model(
        f"g ({dtype}[1,3,{spatial}] x) => ({dtype}[1,8,M] y) {{ c = Conv(x, w, b) {tail} }}"
        if rank == 3
        else f"g ({dtype}[1,3,{spatial}] x) => ({dtype} y) {{ c = Conv(x, w, b) {tail} }}",
        {
            "w": random(8, 3, *(3 for _ in range(rank - 2))).astype(kind),
            "b": random(8).astype(kind),
            "low": np.array(-0.25, kind),
            "high": np.array(0.5, kind),
        },
    )


def fused(source: onnx.ModelProto) -> tuple[int, ir.Model]:
    graph = ir.from_proto(source)
    return fuse_conv_activation(graph), graph


def answer(source: onnx.ModelProto, x: Any, level: str) -> Any:
    session = onnxruntime._session(source.SerializeToString(), level=level)
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("rank", [3, 4, 5])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fused_answers_as_the_two_nodes_do(activation: str, rank: int) -> None:
    text, parameters = ACTIVATIONS[activation]
    source = convolution(f"y = {text}", rank)
    source.graph.output[0].type.tensor_type.ClearField("shape")
    count, graph = fused(source)
    assert count == 1
    (node,) = (n for n in graph.graph if n.op_type == "FusedConv")
    assert node.domain == "com.microsoft"
    assert graph.opset_imports["com.microsoft"] == 1
    assert node.attributes["activation"].value == activation.partition(" ")[0]
    if parameters:
        found = node.attributes["activation_params"].value
        np.testing.assert_allclose(found, parameters, rtol=1e-6)
    else:
        assert "activation_params" not in node.attributes
    x = random(1, 3, *(7 for _ in range(rank - 2)), scale=1.0, seed=3)
    for level in ("off", "all"):
        # The blocked layout sums in another order; 27 to 81 products of order one.
        np.testing.assert_allclose(
            answer(ir.to_proto(graph), x, level), answer(source, x, "off"), atol=2e-5
        )


@pytest.mark.parametrize(
    ("tail", "dtype", "why"),
    [
        ("y = Elu(c)", "float", "not an activation of the kernel"),
        ("r = Relu(c) y = Add(r, c)", "float", "the convolution is read twice"),
        ("y = Relu(c)", "double", "the kernel is float32 only"),
        ("y = Relu(c)", "float16", "the kernel is float32 only"),
        ("l = ReduceMin<keepdims=0>(c) y = Clip(c, l)", "float", "the bound is not constant"),
    ],
)
def test_not_fused(tail: str, dtype: str, why: str) -> None:
    count, graph = fused(convolution(tail, dtype=dtype))
    assert count == 0, why
    assert "com.microsoft" not in graph.opset_imports


def test_a_convolution_that_is_an_output_is_not_fused() -> None:
    source = convolution("y = Relu(c)")
    source.graph.output.append(onnx.helper.make_empty_tensor_value_info("c"))
    assert fused(source)[0] == 0


def test_fused_in_the_body_of_an_if() -> None:
    source = model(
        """g (bool f, float[1,3,7,7] x) => (float y) {
            y = If(f) <
                then_branch = yes () => (float t) { c = Conv(x, w)  t = Relu(c) },
                else_branch = no () => (float e) { e = Identity(x) }
            > }""",
        {"w": random(8, 3, 3, 3)},
    )
    assert fused(source)[0] == 1


def test_the_blocked_layout_is_not_lost(tmp_path: Path) -> None:
    """Where the session makes blocked convolutions of a graph, it makes as many when fused."""
    import onnxruntime as ort

    source = CASES["convolutions-with-activations"].make()
    wide = model(
        "g (float[1,32,9,9] x) => (float y) { c = Conv(x, w) r = Relu(c) d = Conv(r, v) "
        "y = Clip(d, low) }",
        {
            "w": random(32, 32, 3, 3),
            "v": random(32, 32, 3, 3, seed=1),
            "low": np.array(0.1, np.float32),
        },
    )

    def blocked(graph: onnx.ModelProto) -> int:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        ort.InferenceSession(graph.SerializeToString(), options, ["CPUExecutionProvider"])
        nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
        return sum(n.op_type == "Conv" and n.domain == "com.microsoft.nchwc" for n in nodes)

    for case in (source, wide):
        assert blocked(ir.to_proto(fused(case)[1])) == blocked(case)


def compiled(folder: Path, source: onnx.ModelProto, **options: Any) -> driver.TargetResult:
    path = folder / "m.onnx"
    onnx.save(source, path)
    request = Request(path, ("onnxruntime",), folder / "build", loaders=(), **options)
    (result,) = driver.compile(request).results
    return result


def test_the_flatbuffer_is_verified_and_reproducible(tmp_path: Path) -> None:
    source = CASES["convolutions-with-activations"].make()
    artifacts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        result = compiled(tmp_path / name, source, options={"format": "ort"})
        assert result.bundle is not None, [d.render() for d in result.diagnostics]
        manifest = json.loads((result.bundle / "manifest.json").read_text())
        assert manifest["artifact"]["entry"] == "model/model.ort"
        assert manifest["artifact"]["files"] == ["model/model.ort"]
        artifacts.append((result.bundle / "model" / "model.ort").read_bytes())
    assert artifacts[0][4:8] == b"ORTM"
    assert artifacts[0] == artifacts[1]


@pytest.mark.parametrize(
    "options",
    [
        {"format": "fastest"},
        {"graph-optimization": "fastest"},
        {"format": "ort", "graph-optimization": "all"},
    ],
)
def test_an_unknown_value_of_an_option_is_refused(options: dict[str, str], tmp_path: Path) -> None:
    """Before anything is read or run: the model need not even be there."""
    request = Request(tmp_path / "absent.onnx", ("cpu",), tmp_path / "out", options=options)
    with pytest.raises(InfcError) as caught:
        driver.compile(request)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E205"
    assert list(options.values())[-1] in diagnostic.message
    assert not (tmp_path / "out").exists()


def test_every_node_without_a_kernel_is_listed(tmp_path: Path) -> None:
    """Conv has no double kernel: both are named, and the float one between them is not."""
    source = model(
        """g (double[1,3,7,7] x) => (double y) {
            [first] c = Conv(x, w)  d = Cast<to=1>(c)  [fine] e = Conv(d, v)
            f = Cast<to=11>(e)  [last] y = Conv(f, w2) }""",
        {
            "w": random(3, 3, 1, 1).astype(np.float64),
            "v": random(3, 3, 1, 1),
            "w2": random(3, 3, 3, 3).astype(np.float64),
        },
    )
    path = tmp_path / "m.onnx"
    onnx.save(source, path)
    found = onnxruntime.check(path, TARGET)
    assert [u.node for u in found] == ["first", "last"]
    assert all("Could not find an implementation for Conv" in u.reason for u in found)


def test_an_error_that_is_no_nodes_fault_is_the_vendors(tmp_path: Path) -> None:
    source = model("g (float[2] x) => (float[2] y) { y = Relu(x) }", opset=99)
    onnx.save(source, tmp_path / "m.onnx")
    with pytest.raises(BackEndError) as caught:
        onnxruntime.check(tmp_path / "m.onnx", TARGET)
    assert str(caught.value).startswith("ONNX Runtime only *guarantees* support for models")
    assert "/" not in str(caught.value)


def test_weights_beside_the_model_stay_beside_it(tmp_path: Path) -> None:
    graph = ir.from_proto(CASES["big-constant"].make())
    for folder in ("scratch", "output"):
        (tmp_path / folder).mkdir()
    building.save_model(graph, tmp_path / "scratch" / "model.onnx", external_data=True)
    spec = TensorSpec("x", "float32", (1, 1024))
    job = BuildJob(tmp_path / "scratch" / "model.onnx", tmp_path / "output", TARGET, (spec,), ())
    artifact = onnxruntime.build(job)
    assert artifact == Artifact("model.onnx", ("model.onnx", "model.onnx.data"))
    (tmp_path / "output").rename(tmp_path / "elsewhere")
    run = onnxruntime.open(
        RunJob(tmp_path / "elsewhere" / artifact.entry, TARGET, ("y",), ("x",), threads=0)
    )
    assert run({"x": random(1, 1024)})["y"].shape == (1, 1024)


def test_wrong_feeds_are_the_vendors_refusal(tmp_path: Path) -> None:
    path = CASES["scalars"].write(tmp_path)
    run = onnxruntime.open(RunJob(path, TARGET, ("p",), ("a",)))
    with pytest.raises(BackEndError, match="Required inputs"):
        run({"a": np.zeros((), np.float32)})


def release(folder: Path) -> Path:
    """What an unpacked release archive of ONNX Runtime looks like."""
    for file in ("include/onnxruntime_c_api.h", "lib/libonnxruntime.so"):
        (folder / file).parent.mkdir(parents=True)
        (folder / file).touch()
    return folder


def test_the_sdk_that_is_named_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = release(tmp_path / "release")
    monkeypatch.setenv("ONNXRUNTIME_ROOT", str(root))
    assert onnxruntime.LOADER.sdk() == {
        "ONNXRUNTIME_INCLUDE_DIR": str(root / "include"),
        "ONNXRUNTIME_LIBRARY": str(root / "lib" / "libonnxruntime.so"),
    }
    assert onnxruntime.LOADER.library_path() == [root / "lib"]


def test_the_wheels_library_serves_where_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime as wheel

    monkeypatch.delenv("ONNXRUNTIME_ROOT", raising=False)
    monkeypatch.setenv("INFC_HOME", str(tmp_path))
    release(tmp_path / "sdk" / "onnxruntime")
    found = onnxruntime.LOADER.sdk()
    assert found["ONNXRUNTIME_INCLUDE_DIR"] == str(tmp_path / "sdk" / "onnxruntime" / "include")
    assert Path(found["ONNXRUNTIME_LIBRARY"]).parent == Path(str(wheel.__file__)).parent / "capi"


def test_absent_headers_are_a_missing_toolchain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ONNXRUNTIME_ROOT", raising=False)
    monkeypatch.setenv("INFC_HOME", str(tmp_path))
    monkeypatch.setattr(onnxruntime_sdk, "SYSTEM", (str(tmp_path / "include"),))
    with pytest.raises(InfcError) as caught:
        onnxruntime.LOADER.sdk()
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E501"
    assert "apt install libonnxruntime-dev" in diagnostic.help
    assert "ONNXRUNTIME_ROOT" in diagnostic.help

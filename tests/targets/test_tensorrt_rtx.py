"""`tensorrt-rtx` from the command line: what it prints and writes where there is no GPU."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command import infc
from onnx import numpy_helper

from infc.targets import tensorrt_worker

NET = """<ir_version: 8, opset_import: ["": 17]>
net (float[N, 3, 8, 8] image) => (float[N, 5] scores) {
    c = Conv <pads = [1, 1, 1, 1]> (image, w)
    r = Relu (c)
    p = GlobalAveragePool (r)
    f = Flatten (p)
    scores = Gemm (f, m, b)
}"""


@pytest.fixture(autouse=True)
def _installed(need_module: Callable[[str], None]) -> None:
    need_module("tensorrt_rtx")


@pytest.fixture
def no_gpu() -> None:
    if not tensorrt_worker.absence():
        pytest.skip("there is a GPU here: what is said without one is not")


@pytest.fixture
def net(tmp_path: Path) -> Path:
    proto = onnx.parser.parse_model(NET)
    rng = np.random.default_rng(0)
    for name, shape in {"w": (4, 3, 3, 3), "m": (4, 5), "b": (5,)}.items():
        array = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(proto, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def compiled(net: Path, *words: str) -> tuple[Path, dict[str, Any], str]:
    done = infc("compile", net, "-o", net.parent, "--loader", "none", "--samples", "1", *words)
    assert done.status == 0, done.err
    (bundle,) = net.parent.glob("net-*[!g]")
    return bundle, json.loads((bundle / "manifest.json").read_text()), done.out


def test_without_a_gpu_the_graph_is_verified_and_the_verdict_says_so(
    net: Path, no_gpu: None
) -> None:
    bundle, manifest, out = compiled(net, "-t", "rtx-any")
    proof = manifest["verification"]
    assert proof["verdict"] == "graph"
    assert proof["reason"] == tensorrt_worker.absence()
    assert proof["graph"]["ok"] is True
    assert "artifact" not in proof
    assert "the graph only, not the artifact: " in out
    assert "the graph passed on 3 input sets" in out
    assert manifest["artifact"]["entry"] == "model/model.engine"
    assert manifest["artifact"]["notes"]["profiles"] == 1
    report = (bundle / "report.html").read_text()
    assert "the artifact was built and not run" in report
    # The same is said of a bundle that lies there.
    assert "the graph only, not the artifact: " in infc("inspect", bundle).out
    done = infc("verify", bundle)
    assert done.status != 0
    assert proof["reason"] in done.err


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_precisions(net: Path, precision: str, no_gpu: None) -> None:
    words = ("--calibration", "random") if precision == "int8" else ()
    _, manifest, _ = compiled(net, "-t", "rtx-any", "--precision", precision, *words)
    assert manifest["target"]["precision"] == precision
    assert manifest["verification"]["graph"]["ok"] is True


def test_int8_twice_is_the_same_bytes(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--precision", "int8", "--calibration", "random", "--no-verify")
    bundle, _, _ = compiled(net, "-t", "rtx-any", *words)
    first = (bundle / "model" / "model.engine").read_bytes()
    # Neither the length of a path nor what else is in the environment moves anything.
    elsewhere = tmp_path / "a-folder-with-a-name-that-is-much-longer" / "and-another-one"
    elsewhere.mkdir(parents=True)
    monkeypatch.setenv("SOMETHING_ELSE", "x" * 5000)
    bundle, _, _ = compiled(Path(shutil.copy(net, elsewhere)), "-t", "rtx-any", *words)
    assert (bundle / "model" / "model.engine").read_bytes() == first


def test_several_profiles_and_a_workspace(net: Path) -> None:
    words = ("-X", "profiles=N=1;N=2..8@4", "-X", "workspace=256M", "-X", "profiling=detailed")
    bundle, manifest, _ = compiled(net, "-t", "rtx-any", "--no-verify", *words)
    assert manifest["artifact"]["notes"]["profiles"] == 2
    assert (bundle / "model" / "model.engine").stat().st_size > 0


def failed(net: Path, *words: str) -> str:
    done = infc("compile", net, "-o", net.parent, "--loader", "none", "--no-verify", *words)
    assert done.status != 0
    assert not list(net.parent.glob("net-*[!g]"))
    return done.err


def test_turing_multiplies_no_matrices_in_float32(net: Path) -> None:
    err = failed(net, "-t", "rtx-20xx", "--precision", "fp32")
    assert "error[E204]: `tensorrt-rtx` while building: " in err
    assert "FP32 GEMM is not supported" in err
    assert "`--precision fp16`" in err


def test_a_dimension_without_a_range(net: Path) -> None:
    proto = onnx.load(net)
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    onnx.save(proto, net)
    err = failed(net, "-t", "rtx-any")
    assert "error[E206]: nothing says what dimension 2 of input `image`, `H`, lies between" in err
    assert "--input image=1..16,3,16..512@128,8" in err
    words = ("--input", "image=1..4,3,8..64@16,8")
    assert compiled(net, "-t", "rtx-any", "--no-verify", *words)


def test_a_node_that_is_not_taken_is_named(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    net (float[1, 6, 4] boxes, float[1, 1, 6] scores) => (int64[n, 3] chosen) {
        r = Relu (boxes)
        chosen = NonMaxSuppression (r, scores)
    }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.node[1].name = "nms"
    onnx.save(proto, tmp_path / "net.onnx")
    err = failed(tmp_path / "net.onnx", "-t", "rtx-any")
    assert "error[E203]: `NonMaxSuppression` is not supported by `tensorrt-rtx`" in err
    assert "--> net.onnx:net/nms (NonMaxSuppression-17)" in err


def test_latency_cannot_be_asked_for_where_nothing_runs(net: Path, no_gpu: None) -> None:
    words = ("--precision", "int8", "--calibration", "random", "--max-latency", "5ms")
    err = failed(net, "-t", "rtx-any", *words)
    assert "error[E205]: `--max-latency` times the artifact" in err
    assert tensorrt_worker.absence() in err

"""The command line over PyTorch sources: every verb that reads a model, none of the noise."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from command import infc
from conftest import ROOT

from infc.bundle import open_bundle

SOURCE = f"{ROOT / 'tests' / 'frontends' / 'torch_sources.py'}:Cnn"
NOISE = re.compile(r"Warning|torch\.onnx\]|\[torch|s\d\d\b|Traceback|deprecat", re.IGNORECASE)


@pytest.fixture(scope="module", autouse=True)
def _pytorch() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    done = infc("compile", SOURCE, "--input", "x=1..4x3x8x8", "-t", "cpu", "-o", folder)
    assert done.status == 0, done.err
    assert not NOISE.search(done.out + done.err)
    return folder / "Cnn-cpu"


@pytest.mark.slow
def test_the_manifest_says_how_it_was_imported(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    source = manifest["source"]
    assert source["kind"] == "python"
    assert source["import"]["framework"] == "pytorch"
    assert source["import"]["exporter"] == "torch.export"
    assert {"torch", "onnxscript", "opset"} <= source["import"]["versions"].keys()
    assert str(ROOT) not in (bundle / "manifest.json").read_text(encoding="utf-8")
    assert manifest["verification"]["sets"] == 6


@pytest.mark.slow
def test_verify_against_the_code(bundle: Path) -> None:
    done = infc("verify", bundle, "--source", SOURCE)
    assert done.status == 0, done.err
    assert "passed" in done.out


@pytest.mark.slow
def test_verify_against_other_code(bundle: Path) -> None:
    done = infc("verify", bundle, "--source", SOURCE.replace("Cnn", "Nested"))
    assert done.status != 0
    assert "error[" in done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_debug_accuracy(bundle: Path) -> None:
    done = infc("debug-accuracy", bundle, "--source", SOURCE)
    assert done.status == 0, done.err
    assert "head/Gemm" in done.out


@pytest.mark.slow
def test_optimize_and_quantize(tmp_path: Path, need_back_end: Callable[[str], None]) -> None:
    words = (SOURCE, "--input", "x=1..4x3x8x8")
    done = infc("optimize", *words, "-o", tmp_path / "float.onnx")
    assert done.status == 0, done.err
    graph = onnx.load(tmp_path / "float.onnx").graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["x", "output"]
    random = ("--calibration", "random", "--scheme", "onnxruntime")
    done = infc("quantize", *words, *random, "-o", tmp_path / "int8.onnx")
    assert done.status == 0, done.err
    nodes = onnx.load(tmp_path / "int8.onnx").graph.node
    assert "QuantizeLinear" in {node.op_type for node in nodes}


@pytest.mark.slow
def test_a_pickled_module_needs_leave(tmp_path: Path) -> None:
    import sys

    import torch

    sys.path.insert(0, str(ROOT / "tests" / "frontends"))
    from torch_sources import Cnn

    path = tmp_path / "module.pt"
    torch.save(Cnn(), path)
    done = infc("compile", path, "--input", "x=1x3x8x8", "-t", "cpu", "-o", tmp_path / "b")
    assert done.status == 1
    assert done.err.startswith("error[E113]: loading `")
    assert "`torch_sources.Cnn`" in done.err


def test_a_missing_shape_is_usage() -> None:
    done = infc("compile", SOURCE, "-t", "cpu")
    assert done.status == 2
    assert "error[E115]: `x` has no shape" in done.err
    assert "--input x=1..8x3x224x224" in done.err

"""ResNet-18's and MobileNetV2's shapes as torch exports them, each one way, in every back end."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import verdicts
from conftest import ROOT

from infc import driver
from infc.request import Request
from infc.targets import BACK_ENDS

IMAGE = 64
"""Pixels: every layer is there at this size, in a twelfth of the time."""


@pytest.fixture(scope="module")
def bench_models(need_module: Callable[[str], None]) -> Any:
    need_module("transformers")
    spec = importlib.util.spec_from_file_location(
        "bench_models", ROOT / "scripts" / "bench_models.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "dynamo"),
    [("resnet18", False), ("mobilenetv2", True)],
    ids=["resnet18-torchscript", "mobilenetv2-export"],
)
def test_an_exported_network(
    bench_models: Any,
    tmp_path: Path,
    name: str,
    dynamo: bool,
    need_tool: Callable[[str], str],
    need_back_end: Callable[[str], None],
) -> None:
    import torch

    need_tool("cmake")
    for back_end in BACK_ENDS:
        need_back_end(back_end)
    make = dict(bench_models.architectures())[name]
    torch.manual_seed(0)
    module, _, names = make()
    path = tmp_path / f"{name}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (torch.randn(1, 3, IMAGE, IMAGE),),
            path,
            input_names=names,
            dynamo=dynamo,
            external_data=False,
            verbose=False,
        )
    result = driver.compile(Request(path, BACK_ENDS, tmp_path / "build", loaders=("cpp",)))
    for row in result.results:
        assert row.bundle is not None, "\n".join(d.render() for d in row.diagnostics)
        assert row.verification["verdict"] == verdicts.expected(row.target)
        if row.verification["verdict"] == "passed":
            assert all(e.ok for e in driver.verify(row.bundle, through="cpp").errors)

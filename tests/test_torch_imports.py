"""Models of the transformers library: imported, optimised, compiled and verified at three sizes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from torch_model_inputs import INPUTS

from infc import driver
from infc.bundle import open_bundle
from infc.input_spec import InputSpec
from infc.request import Request

MODELS = ROOT / "tests" / "torch_models.py"
TARGETS = ("cpu", "openvino")
SCRIPTED = ("bert", "gpt2_with_cache", "mobilenet_v2", "swin")
"""Those that are compiled for TorchScript, too, on both of its paths."""
OUTPUTS = {
    "bert": ["last_hidden_state", "pooler_output"],
    "whisper_encoder": ["last_hidden_state"],
    "t5_encoder": ["last_hidden_state"],
    "detr": ["logits", "pred_boxes", "last_hidden_state", "encoder_last_hidden_state"],
    "gpt2_with_cache": [
        "logits",
        *(f"past_key_values_layers_{i}_{part}" for i in range(2) for part in ("keys", "values")),
    ],
}
GENERATED = re.compile(r"[su]\d+|arg\d+|getitem|flat|tensors_|dim_\d+")


@pytest.mark.slow
@pytest.mark.parametrize("name", INPUTS)
def test_a_model_of_the_library(
    name: str,
    tmp_path: Path,
    need_module: Callable[[str], None],
    need_back_end: Callable[[str], None],
) -> None:
    need_module("transformers")
    targets = (*TARGETS, "torchscript") if name in SCRIPTED else TARGETS
    for back_end in targets[1:]:
        need_back_end(back_end)
    inputs = tuple(map(InputSpec.parse, INPUTS[name]))
    source = Path(f"{MODELS}:{name}")
    done = driver.compile(Request(source, targets, tmp_path, inputs=inputs, loaders=()))
    for row in done.results:
        assert row.bundle is not None, "\n".join(d.render() for d in row.diagnostics)
        manifest = open_bundle(row.bundle).manifest
        assert manifest["source"]["import"]["exporter"] == "torch.export"
        assert manifest["verification"]["verdict"] == "passed"
        assert manifest["verification"]["sets"] == 6
        assert [i["name"] for i in manifest["inputs"]] == [spec.name for spec in inputs]
        assert [o["name"] for o in manifest["outputs"]] == OUTPUTS.get(name, ["logits"])
        for spec in (*manifest["inputs"], *manifest["outputs"]):
            assert spec["shape"][0] == "batch"
            assert not any(GENERATED.fullmatch(str(dim)) for dim in spec["shape"])

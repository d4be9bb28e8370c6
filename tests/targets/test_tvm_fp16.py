"""float16 and bfloat16 through TVM: weights of 16 bits, sums in float32."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import weighted
from command import infc

from infc.diagnostics import InfcError
from infc.passes.precision.store import store
from infc.request import Precision
from infc.targets import Target, configure, look_up, tvm

NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1,3,17,13] x, float[5,64] s) => (float[1,64,17,13] y, float[5,10] p, float[5,48] m) {
  a = Conv<pads=[1,1,1,1]>(x, w1)
  b = Relu(a)
  c = Conv<pads=[1,1,1,1]>(b, w2)
  d = Conv<pads=[1,1,1,1], group=64>(c, w3)
  y = Add(c, d)
  p = Gemm<transB=1, alpha=0.5, beta=2.0>(s, w4, w5)
  m = MatMul(s, w6)
}
"""
SHAPES = {
    "w1": (32, 3, 3, 3),
    "w2": (64, 32, 3, 3),
    "w3": (64, 1, 3, 3),
    "w4": (10, 64),
    "w5": (10,),
    "w6": (64, 48),
}


@pytest.fixture
def tvm_is_there(need_module: Callable[[str], None], need_tool: Callable[[str], str]) -> None:
    need_module("tvm")
    need_tool("cc")


def net(folder: Path) -> Path:
    weighted.save(folder / "net.onnx", NET, SHAPES)
    return folder / "net.onnx"


@pytest.mark.parametrize(("precision", "decibels"), [("fp16", 60), ("bf16", 42)])
def test_half_the_weights_and_answers_as_of_the_stored_ones(
    tvm_is_there: None, tmp_path: Path, precision: str, decibels: float
) -> None:
    model = net(tmp_path)
    sizes = {}
    for wanted in ("fp32", precision):
        done = infc(
            *("compile", model, "-t", "tvm", "--precision", wanted, "-o", tmp_path / wanted),
            *("--loader", "none", "--samples", "1", "-q"),
        )
        assert done.status == 0, done.err
        manifest = json.loads((tmp_path / wanted / "net-tvm" / "manifest.json").read_text())
        sizes[wanted] = manifest["artifact"]["notes"]["weight_bytes"]
    # Those of the depthwise convolution and the smallest stay.
    assert sizes[precision] < 0.55 * sizes["fp32"]
    rows = {row["name"]: row for row in manifest["verification"]["artifact"]["outputs"]}
    assert min(rows[name]["sqnr_db"] for name in ("y", "m")) > decibels
    assert rows["p"]["max_abs_error"] < 1e-5  # its weights are less than a page


def test_no_weight_is_widened_before_it_is_multiplied(tvm_is_there: None, tmp_path: Path) -> None:
    model = ir.from_proto(onnx.load(net(tmp_path)))
    assert store(model, "float16") == ()
    tvm.legalize(model, Target("tvm", "tvm", ""))
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("StoredMatMul") == 1  # the Gemm's are less than a page
    assert not {"Widened", "MatMul"} & set(kinds)
    read = [n.inputs[1] for n in model.graph if n.op_type == "ChannelsLastConv"]
    stored = [v.dtype for v in read if v is not None and np.prod(v.shape or ()) > 1024]
    assert stored == [ir.DataType.FLOAT16]


@pytest.mark.parametrize("cpu", ["x86-64-v2", "armv7", "riscv64"])
def test_a_processor_that_cannot_widen_float16_is_refused(cpu: str) -> None:
    with pytest.raises(InfcError, match="no instruction that widens float16") as caught:
        configure(look_up("tvm"), Precision.FP16, {"cpu": cpu})
    assert caught.value.diagnostics[0].code == "E205"
    assert "bf16" in (caught.value.diagnostics[0].help or "")
    configure(look_up("tvm"), Precision.BF16, {"cpu": cpu})

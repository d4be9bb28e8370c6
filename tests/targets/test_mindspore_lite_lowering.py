"""Each rule of the MindSpore Lite lowering against the real converter and runtime.

Without the rule the answer is wrong, refused or a crash; with it, right at one thread and at four.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from mindspore_lite_cases import CASES, Case
from onnx import helper, parser
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplemented_

from infc import building, comparison, workers
from infc.comparison import THRESHOLDS
from infc.diagnostics import InfcError
from infc.request import Precision, WorkerLimits
from infc.signature import load_tensors, save_tensors
from infc.targets import Target, back_end
from infc.targets.mindspore_lite_lowering import lower
from infc.targets.mindspore_lite_operators import unsupported
from infc.verification.running import run_artifact
from infc.verification.sets import Sets

NAME = "mindspore-lite"
TARGET = Target(NAME, NAME, "")
LIMITS = WorkerLimits(timeout_s=60)


@pytest.fixture(autouse=True)
def _toolchain(need_back_end: Callable[[str], None], request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("slow"):
        need_back_end(NAME)


def expected(case: Case) -> dict[str, Any]:
    """ONNX Runtime's answer, nothing optimised; ONNX's own where that has no kernel."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    names = [v.name for v in case.model().graph.output]
    try:
        session = onnxruntime.InferenceSession(case.model().SerializeToString(), options)
        answers = session.run(names, case.feeds())
    except NotImplemented_:
        answers = ReferenceEvaluator(case.model()).run(None, case.feeds())
    return dict(zip(names, answers, strict=True))


def is_right(case: Case, model: ir.Model, folder: Path) -> bool:
    """Convert, run at one thread and at four, compare; a refusal or a crash is not right."""
    folder.mkdir()
    building.save_model(model, folder / "model.onnx")
    payload = {
        "model": str(folder / "model.onnx"),
        "output": str(folder / "artifact"),
        "target": TARGET.to_json(),
        "inputs": [],
        "outputs": [],
    }
    place = back_end(NAME).worker(TARGET)
    wanted = expected(case)
    save_tensors(folder / "feeds", case.feeds())
    save_tensors(folder / "wanted", wanted)
    sets = Sets((folder / "feeds",), (folder / "wanted",))
    try:
        job = workers.Call(
            "infc.targets.mindspore_lite",
            "build",
            payload,
            folder / "build",
            folder / "log",
            "the converter",
            place,
        )
        entry = folder / "artifact" / workers.call(job, LIMITS)["entry"]
        for threads in (1, 4):
            (answers,), _ = run_artifact(sets, TARGET, entry, folder, LIMITS, threads)
            errors = comparison.compare(
                [(wanted, load_tensors(answers))], THRESHOLDS[Precision.FP32]
            )
            if not all(e.ok for e in errors):
                return False
    except InfcError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_rule_makes_it_right(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model = ir.from_proto(case.model())
    lower(model)
    assert unsupported(model) == []
    assert is_right(case, model, tmp_path / "lowered")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_rule_it_is_not(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    inferred = onnx.shape_inference.infer_shapes(case.model(), data_prop=True)
    assert not is_right(case, ir.from_proto(inferred), tmp_path / "raw")


@pytest.mark.parametrize("name", CASES)
def test_lowering_computes_the_same(name: str) -> None:
    """Judged by ONNX Runtime, which needs no lowering: the rules are right as mathematics."""
    case = CASES[name]
    model = ir.from_proto(case.model())
    lower(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    fed = {v.name: case.feeds()[v.name] for v in session.get_inputs()}
    wanted = expected(case)
    answers = dict(zip(wanted, session.run(list(wanted), fed), strict=True))
    errors = comparison.compare([(wanted, answers)], THRESHOLDS[Precision.FP32])
    comparison.require(errors, "E602", name, "")


@pytest.mark.parametrize("name", CASES)
def test_lowering_twice_is_lowering_once(name: str) -> None:
    model = ir.from_proto(CASES[name].model())
    lower(model)
    once = ir.to_proto(model).SerializeToString()
    lower(model)
    assert ir.to_proto(model).SerializeToString() == once


REFUSED = {
    "If": "g (bool c, float[3] x) => (float[3] y) { y = If (c) <then_branch = "
    "a () => (float[3] p) { p = Abs(x) }, else_branch = b () => (float[3] q) { q = Neg(x) }> }",
    "Abs": "g (double[3] x) => (double[3] y) { y = Abs(x) }",
    "Relu": "g (float[0,3] x) => (float[0,3] y) { y = Relu(x) }",
    "Det": "g (float[3,3] x) => (float y) { y = Det(x) }",
    "ReduceSum": "g (float[3,3] x, int64[1] a) => (float[N,M] y) { y = ReduceSum(x, a) }",
    "Div": "g (int64[3] a, int64[3] b) => (int64[3] y) { y = Div(a, b) }",
}


@pytest.mark.parametrize("operator", REFUSED)
def test_what_is_not_taken_is_named(operator: str) -> None:
    text = f'<ir_version: 8, opset_import: ["": 18]> {REFUSED[operator]}'
    model = ir.from_proto(parser.parse_model(text))
    lower(model)
    rows = unsupported(model)
    assert operator in [row[1] for row in rows]
    assert all(reason for *_, reason in rows)


def test_an_integer_beyond_int32_is_refused() -> None:
    text = (
        '<ir_version: 8, opset_import: ["": 18]> g (int64[1] x) => (int64[1] y) { y = Add(x, c) }'
    )
    proto = parser.parse_model(text)
    proto.graph.initializer.append(helper.make_tensor("c", onnx.TensorProto.INT64, [1], [2**31]))
    model = ir.from_proto(proto)
    lower(model)
    (row,) = unsupported(model)
    assert "int32" in row[3]


def test_a_shared_weight_is_copied_for_each_convolution() -> None:
    """The runtime packs it once, for one of the sizes it is used at; DenseNet found that."""
    text = """<ir_version: 8, opset_import: ["": 18]>
        g (float[1,2,8,8] x) => (float[1,2,2,2] y) {
            a = Conv(x, w)  b = Conv(a, w)  y = Conv(b, w) }"""
    proto = parser.parse_model(text)
    weight = np.ones((2, 2, 3, 3), np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    model = ir.from_proto(proto)
    lower(model)
    used = [node.inputs[1] for node in model.graph if node.op_type == "Conv"]
    assert len(used) == len({v.name for v in used if v is not None}) == 3

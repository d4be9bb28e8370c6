"""Models on which rounding alone changes the answer, and models on which it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from infc import conditioning, driver
from infc.bundle import open_bundle
from infc.diagnostics import InfcError, Severity
from infc.reference import Reference
from infc.request import Request, VerifyOptions


def softmax_classifier(path: Path, gain: float, bias: float) -> Path:
    """Softmax(gain * (x @ w) + bias): unstable where the logits are large."""
    rng = np.random.default_rng(1)
    weights = (gain * (1 + 1e-5 * rng.standard_normal((16, 8)))).astype(np.float32)
    biases = np.full(8, bias, np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(biases, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def reference_of(path: Path, scratch: Path, options: VerifyOptions | None = None) -> Reference:
    from infc import frontends

    request = Request(path, ("cpu",), scratch, verify=options or VerifyOptions())
    return Reference(frontends.load(path), request.verify, scratch, request.limits)


def test_jitter_changes_every_sum_by_its_size_and_nothing_else(tmp_path: Path) -> None:
    import onnxruntime

    path = softmax_classifier(tmp_path / "m.onnx", 1.0, 0.0)
    model = ir.load(path)
    model.graph.outputs.append(model.graph.node(0).outputs[0])
    jittered = conditioning.jitter(model, seed=0)
    assert [n.op_type for n in jittered.graph] == ["Gemm", "Mul", "Softmax"]
    assert [n.op_type for n in model.graph] == ["Gemm", "Softmax"]
    x = np.random.default_rng(2).standard_normal((4, 16)).astype(np.float32)
    plain, other = (
        onnxruntime.InferenceSession(ir.to_proto(m).SerializeToString()).run(["y"], {"x": x})[0]
        for m in (model, jittered)
    )
    assert 0 < np.abs(plain - other).max() < 10 * conditioning.JITTER * 16


def test_a_failed_check_of_a_stable_model_stays_failed(tmp_path: Path) -> None:
    path = softmax_classifier(tmp_path / "m.onnx", 1.0, 0.0)
    reference = reference_of(path, tmp_path)
    calls = []

    def check(sets: object) -> tuple[()]:
        calls.append(sets)
        from infc.diagnostics import fail

        raise fail("E602", "it answers otherwise")

    with pytest.raises(InfcError, match="answers otherwise"):
        reference.require(check, ir.load(path))
    assert len(calls) == 1
    assert reference.warnings() == ()


def failing_at_scale_one(reference: Reference) -> object:
    from infc.diagnostics import fail

    def check(sets: object) -> tuple[()]:
        if sets is first:
            raise fail("E602", "rounding made it answer otherwise")
        return ()

    first = reference.sets
    return check


def test_large_logits_are_verified_on_smaller_inputs(tmp_path: Path) -> None:
    path = softmax_classifier(tmp_path / "m.onnx", 1e5, 0.0)
    reference = reference_of(path, tmp_path)
    check = failing_at_scale_one(reference)
    assert reference.require(check, ir.load(path)) == ()  # type: ignore[arg-type]
    assert reference.sets.scale_log2 < 0
    assert reference.sets.noise == {}


def test_a_model_that_no_input_helps_is_held_to_its_noise(tmp_path: Path) -> None:
    path = softmax_classifier(tmp_path / "m.onnx", 1.0, 3e8)
    reference = reference_of(path, tmp_path)
    check = failing_at_scale_one(reference)
    assert reference.require(check, ir.load(path)) == ()  # type: ignore[arg-type]
    assert reference.sets.scale_log2 == 0
    (warning,) = reference.warnings()
    assert warning.severity is Severity.WARNING
    assert warning.code == "E605"
    assert reference.sets.noise["y"] > 1e-4


def test_the_light_squeezenet_is_verified(tmp_path: Path, need_module: object) -> None:
    """Its logits are 1e9, all of them equal: one unit in the last place decides the softmax."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    need_module("openvino")  # type: ignore[operator]
    request = Request(folder / "light_squeezenet.onnx", ("openvino",), tmp_path, loaders=())
    result = driver.compile(request)
    (row,) = result.results
    assert row.bundle is not None, row.diagnostics
    held = open_bundle(row.bundle).manifest["verification"].get("noise", {})
    assert set(held) == {n.message.split("`")[1] for n in result.notes if n.code == "E605"}
    assert driver.verify(row.bundle).errors[0].ok

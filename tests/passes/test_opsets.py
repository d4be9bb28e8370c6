"""A model converted to a later opset: the same weights, the same answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from infc.passes.opsets import LARGE_BYTES, OpsetError, at_opset

CAPTURED = """
<ir_version: 7, opset_import: ["" : 11]>
g (float[2,200] x, bool c) => (float[2,200] y) {
  s = ReduceSum <axes = [1]> (x)
  m = If (c) <
    then_branch = t () => (float[2,200] p) { p = MatMul(x, w) },
    else_branch = e () => (float[2,200] q) { q = Identity(x) }
  >
  n = Add(m, b)
  y = Add(n, s)
}
"""


def model() -> ir.Model:
    proto = onnx.parser.parse_model(CAPTURED)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (200, 200)), ("b", (200,))):
        array = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


def answer(found: ir.Model, taken: bool) -> Any:
    feed = {"x": np.linspace(-1, 1, 400, dtype=np.float32).reshape(2, 200), "c": np.array(taken)}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(ir.to_proto(found).SerializeToString(), options).run(
        None, feed
    )[0]


def test_a_large_weight_that_only_a_branch_reads_is_still_there() -> None:
    before = model()
    raised = at_opset(before, 17)
    assert before.opset_imports[""] == 11, "the source is left alone"
    assert raised.opset_imports[""] == 17
    assert [v.name for v in raised.graph.inputs] == ["x", "c"]
    names = list(before.graph.initializers)
    assert list(raised.graph.initializers)[: len(names)] == names
    for name in names:
        tensor = before.graph.initializers[name].const_value
        assert tensor is not None
        assert raised.graph.initializers[name].const_value is tensor, "not copied"
    weight = before.graph.initializers["w"].const_value
    assert weight is not None
    assert weight.nbytes > LARGE_BYTES
    for taken in (True, False):
        np.testing.assert_array_equal(answer(raised, taken), answer(before, taken))


def test_types_and_shapes_that_the_converter_forgets_are_kept() -> None:
    before = model()
    node = next(n for n in before.graph if n.op_type == "ReduceSum")
    node.outputs[0].shape = ir.Shape([2, 1])
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    (after,) = (v for n in at_opset(before, 13).graph for v in n.outputs if v.name == "s")
    assert after.shape == ir.Shape([2, 1])


def test_a_model_that_is_there_is_itself() -> None:
    before = model()
    assert at_opset(before, 11) is before
    assert at_opset(before, 7) is before


def test_an_operator_that_cannot_be_converted_is_an_error() -> None:
    text = """
    <ir_version: 7, opset_import: ["" : 9]>
    g (float[1,1,4,4] x) => (float[1,1,8,8] y) <float[4] s = {1, 1, 2, 2}>
    { y = Upsample <mode = "linear"> (x, s) }
    """
    before = ir.from_proto(onnx.parser.parse_model(text))
    before.graph[0].op_type = "NoSuchOperator"
    with pytest.raises(OpsetError, match="NoSuchOperator"):
        at_opset(before, 17)

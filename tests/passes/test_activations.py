"""Which activation a convolution's unit has."""

from __future__ import annotations

import math

import onnx.parser
import onnx_ir as ir
import pytest

from infc.passes.activations import activation_of


def convolution(body: str, outputs: str = "float[1,2,3,3] y") -> ir.Node:
    """The Conv of a graph whose `body` goes on from its output `c`."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        f"g (float[1,2,3,3] x, float h, float[1,2,3,3] z) => ({outputs}) "
        "<float[2,2,1,1] w = {1,2,3,4}, float low = {0}, float high = {6}> "
        f"{{ c = Conv(x, w) {body} }}"
    )
    return ir.from_proto(model).graph.node(0)


@pytest.mark.parametrize(
    ("body", "kind", "parameters"),
    [
        ("y = Relu(c)", "Relu", ()),
        ("y = Sigmoid(c)", "Sigmoid", ()),
        ("y = Clip(c, low, high)", "Clip", (0.0, 6.0)),
        ("y = Clip(c, low)", "Clip", (0.0, math.inf)),
        ("y = LeakyRelu(c)", "LeakyRelu", (0.01,)),
        ("y = HardSigmoid<alpha=0.25>(c)", "HardSigmoid", (0.25, 0.5)),
    ],
)
def test_unit(body: str, kind: str, parameters: tuple[float, ...]) -> None:
    found = activation_of(convolution(body))
    assert found is not None
    assert (found.kind, found.node.op_type) == (kind, kind)
    assert found.parameters == pytest.approx(parameters)


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("y = Clip(c, low, h)", "float[1,2,3,3] y"),
        ("y = Add(c, z)", "float[1,2,3,3] y"),
        ("y = Relu(c)", "float[1,2,3,3] y, float[1,2,3,3] c"),
        ("r = Relu(c) y = Mul(c, r)", "float[1,2,3,3] y"),
    ],
    ids=["variable bound", "no activation", "product is an output", "product read twice"],
)
def test_no_unit(body: str, outputs: str) -> None:
    assert activation_of(convolution(body, outputs)) is None

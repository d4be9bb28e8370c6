"""What activations do not tell apart is not given integers."""

from __future__ import annotations

import math

import networks
import numpy as np
import onnx_ir as ir
import pytest

from infc.passes.quantization import quantize
from infc.passes.quantization.saturation import EVERYTHING, useful
from infc.targets import schemes


def before(kind: str, **attributes: object) -> ir.Value:
    n = networks.Network()
    c = n.conv("x", 3, 4)
    y = n.op(kind, c, **attributes)
    return value(n.model({"x": (1, 3, 8, 8)}, [y]), c)


def value(model: ir.Model, name: str) -> ir.Value:
    return next(v for node in model.graph for v in node.outputs if v.name == name)


@pytest.mark.parametrize(
    ("kind", "span"),
    [
        ("HardSwish", (-3, math.inf)),
        ("Sigmoid", (-8, 8)),
        ("Relu", (0, math.inf)),
        ("Exp", EVERYTHING),
    ],
)
def test_one_activation(kind: str, span: tuple[float, float]) -> None:
    assert useful(before(kind)) == span


def test_a_hard_sigmoid_has_its_own_ends() -> None:
    assert useful(before("HardSigmoid", alpha=0.25, beta=0.5)) == (-2, 2)
    assert useful(before("HardSigmoid", alpha=-0.25, beta=0.5)) == EVERYTHING


@pytest.mark.parametrize(("kind", "low"), [("HardSigmoid", -2.5), ("Sigmoid", -8)])
def test_a_gate_of_itself(kind: str, low: float) -> None:
    n = networks.Network()
    c = n.conv("x", 3, 4)
    y = n.op("Mul", c, n.op(kind, c))
    assert useful(value(n.model({"x": (1, 3, 8, 8)}, [y]), c)) == (low, math.inf)


def test_a_gate_of_another_and_another_reader_see_everything() -> None:
    n = networks.Network()
    c, d = n.conv("x", 3, 4), n.conv("x", 3, 4)
    y = n.op("Mul", c, n.op("HardSigmoid", d))
    e = n.op("HardSwish", n.conv("x", 3, 4))
    model = n.model({"x": (1, 3, 8, 8)}, [y, e, n.nodes[-2].output[0]])
    assert useful(value(model, c)) == EVERYTHING
    assert useful(value(model, n.nodes[-2].output[0])) == EVERYTHING


def test_what_the_activation_gives_gains() -> None:
    """MobileNetV3: a HardSwish after a convolution whose output goes far below -3."""
    n = networks.Network()
    c = n.conv("x", 3, 8)
    model = n.model({"x": (1, 3, 16, 16)}, [n.op("Mul", c, n.op("HardSigmoid", c, alpha=1 / 6))])
    bias = model.graph.initializers["w1"]
    bias.const_value = ir.tensor(np.linspace(-12, 2, 8, dtype=np.float32), name="w1")
    data = networks.feeds(model, 8)
    ranges, means = networks.measured(model, schemes.ONNXRUNTIME, data)
    assert ranges[c].low < -10
    reference = networks.run(model, data)
    record = quantize(model, ranges, schemes.ONNXRUNTIME, means=means)
    tensor = record.tensors[c]
    assert -3.1 < -tensor.zero_point * tensor.scale < -2.9
    assert networks.sqnr_db(reference, networks.run(model, data))[0] > 35

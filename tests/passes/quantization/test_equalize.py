"""Equalisation keeps the float function to the last bit, and helps where it rewrites."""

from __future__ import annotations

import networks
import numpy as np
import onnx_ir as ir
import pytest

from infc.passes.quantization import equalize, quantize
from infc.targets import schemes


def uneven(*, kind: str = "Relu", depthwise: bool = False, spread: int = 5) -> ir.Model:
    """Two convolutions whose channels between them are of very different size."""
    n = networks.Network(4)
    a = n.conv("x", 4, 16)
    b = a if kind == "none" else n.relu6(a) if kind == "Clip" else n.op(kind, a)
    y = n.conv(b, 16, 16, group=16) if depthwise else n.conv(b, 16, 8)
    model = n.model({"x": (1, 4, 12, 12)}, [y])
    sizes = 2.0 ** np.linspace(-spread, 0, 16)
    for name, shape in (("w0", (-1, 1, 1, 1)), ("w1", (-1,))):
        value = model.graph.initializers[name]
        array = value.const_value.numpy() * sizes.reshape(shape)
        value.const_value = ir.tensor(array.astype(np.float32), name=name)
    return model


@pytest.mark.parametrize("kind", ["Relu", "LeakyRelu", "none"])
@pytest.mark.parametrize("depthwise", [False, True])
def test_the_float_function_stays_and_int8_gains(kind: str, depthwise: bool) -> None:
    model = uneven(kind=kind, depthwise=depthwise)
    data = networks.feeds(model, 8)
    reference = networks.run(model, data)
    equal = model.clone()
    assert equalize(equal) == (("n_v0", "n_v1" if kind == "none" else "n_v2"),)
    for expected, found in zip(reference, networks.run(equal, data), strict=True):
        np.testing.assert_array_equal(found[0], expected[0])
    scheme = schemes.OPENVINO
    noise = []
    for subject in (model, equal):
        ranges, means = networks.measured(subject, scheme, data)
        result = subject.clone()
        quantize(result, ranges, scheme, means=means)
        noise.append(networks.sqnr_db(reference, networks.run(result, data))[0])
    if depthwise:
        # Each output channel gains by itself, and the loud ones, which the ratio of the whole
        # output is made of, had nothing to gain.
        assert noise[1] > noise[0] - 0.5
    else:
        assert noise[1] > noise[0] + 0.5


def test_the_quiet_channels_of_a_depthwise_convolution_gain() -> None:
    model = uneven(depthwise=True, spread=8)
    data = networks.feeds(model, 8)
    reference = networks.run(model, data)
    equal = model.clone()
    assert equalize(equal)
    quiet = []
    for subject in (model, equal):
        ranges, _ = networks.measured(subject, schemes.OPENVINO, data)
        result = subject.clone()
        quantize(result, ranges, schemes.OPENVINO)
        found = networks.run(result, data)
        pick = [[[r[0][:, 0]] for r in side] for side in (reference, found)]
        quiet.append(networks.sqnr_db(*pick)[0])
    assert quiet[1] > quiet[0] + 10


def test_a_gemm_is_equalised_too() -> None:
    n = networks.Network(5)
    h = n.op("Relu", n.dense("x", 8, 16))
    model = n.model({"x": (4, 8)}, [n.dense(h, 16, 8)])
    value = model.graph.initializers["w0"]
    array = value.const_value.numpy() * 2.0 ** np.linspace(-8, 0, 16)
    value.const_value = ir.tensor(array.astype(np.float32), name="w0")
    data = networks.feeds(model, 4)
    reference = networks.run(model, data)
    assert equalize(model) == (("n_v0", "n_v2"),)
    for expected, found in zip(reference, networks.run(model, data), strict=True):
        np.testing.assert_array_equal(found[0], expected[0])


def test_a_depthwise_convolution_is_not_the_first_of_a_pair() -> None:
    """FastestDet lost 1 dB by it: what its channels read differs in size."""
    n = networks.Network(4)
    a = n.op("Relu", n.conv("x", 16, 16, group=16))
    model = n.model({"x": (1, 16, 12, 12)}, [n.conv(a, 16, 8)])
    value = model.graph.initializers["w0"]
    array = value.const_value.numpy() * 2.0 ** np.linspace(-8, 0, 16).reshape(-1, 1, 1, 1)
    value.const_value = ir.tensor(array.astype(np.float32), name="w0")
    assert equalize(model) == ()


def test_even_channels_are_left_alone() -> None:
    assert equalize(uneven(spread=0)) == ()


def test_a_clip_is_not_homogeneous() -> None:
    assert equalize(uneven(kind="Clip")) == ()


def test_what_others_read_is_left_alone() -> None:
    n = networks.Network(4)
    a = n.op("Relu", n.conv("x", 4, 16))
    model = n.model({"x": (1, 4, 12, 12)}, [n.conv(a, 16, 8), a])
    value = model.graph.initializers["w0"]
    array = value.const_value.numpy() * 2.0 ** np.linspace(-8, 0, 16).reshape(-1, 1, 1, 1)
    value.const_value = ir.tensor(array.astype(np.float32), name="w0")
    assert equalize(model) == ()


def test_shared_weights_are_left_alone() -> None:
    n = networks.Network(4)
    a = n.conv("x", 8, 8)
    shared = n.nodes[-1].input[1]
    b = n.op("Conv", n.op("Relu", a), shared, pads=[1] * 4)
    model = n.model({"x": (1, 8, 12, 12)}, [b])
    value = model.graph.initializers[shared]
    array = value.const_value.numpy() * 2.0 ** np.linspace(-8, 0, 8).reshape(-1, 1, 1, 1)
    value.const_value = ir.tensor(array.astype(np.float32), name=shared)
    assert equalize(model) == ()


def test_what_came_quantised_is_left_alone() -> None:
    model = uneven()
    ranges, _ = networks.measured(model, schemes.OPENVINO, networks.feeds(model, 1))
    quantize(model, ranges, schemes.OPENVINO)
    assert equalize(model) == ()

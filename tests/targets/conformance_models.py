"""The small models that every back end is asked to compile: one for each thing that can go wrong.

Each is a function that returns a ModelProto, registered under its name with dashes. Weights are
random with a fixed seed. Inputs are drawn by infc: floats are standard normal, integers 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper, parser

OPSET = 17


@dataclass(frozen=True)
class Case:
    """A model, the `--input` it is compiled with, and whether its weights lie in another file."""

    name: str
    make: Callable[[], ModelProto]
    inputs: tuple[str, ...] = ()
    external_data: bool = False

    def write(self, folder: Path) -> Path:
        path = folder / f"{self.name}.onnx"
        options: dict[str, Any] = {}
        if self.external_data:
            options = {"save_as_external_data": True, "size_threshold": 64, "location": "weights"}
        onnx.save(self.make(), path, **options)
        return path


CASES: dict[str, Case] = {}


def case(
    *, inputs: tuple[str, ...] = (), external_data: bool = False
) -> Callable[[Callable[[], ModelProto]], Callable[[], ModelProto]]:
    def register(make: Callable[[], ModelProto]) -> Callable[[], ModelProto]:
        name = make.__name__.replace("_", "-")
        CASES[name] = Case(name, make, inputs, external_data)
        return make

    return register


def model(
    text: str,
    weights: dict[str, Any] | None = None,
    *,
    opset: int = OPSET,
    ir_version: int = 8,
    domains: str = "",
) -> ModelProto:
    """Parse `NAME (inputs) => (outputs) { nodes }` and add the weights as initializers."""
    header = f'<ir_version: {ir_version}, opset_import: ["": {opset}{domains}]>'
    parsed: ModelProto = parser.parse_model(f"{header} {text}")
    for name, array in (weights or {}).items():
        parsed.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return parsed


def rename(whole: ModelProto, names: dict[str, str]) -> ModelProto:
    """Give values other names; the textual form allows identifiers only."""
    graph = whole.graph
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names.get(n, n) for n in node.output]
    return whole


def random(*shape: int, scale: float = 0.5, seed: int = 0) -> Any:
    generator = np.random.default_rng(seed)
    return (scale * generator.standard_normal(shape)).astype(np.float32)


@case()
def several_inputs_and_outputs() -> ModelProto:
    return model(
        """g (float[2,3] a, float[2,3] b, float[3] c) => (float[2,3] p, float[2,3] q, float[2] r) {
            p = Add(a, b)  t = Mul(p, c)  q = Tanh(t)  r = ReduceMax<axes=[1], keepdims=0>(q) }"""
    )


@case()
def signed_integers() -> ModelProto:
    return model(
        """g (int8[4] a, int16[4] b, int32[4] c, int64[4] d)
            => (int8[2,4] p, int16[2,4] q, int32[4] r, int64[4] s) <int64[2] two = {2, 4}> {
            p = Expand(a, two)  b2 = Unsqueeze(b, zero)  q = Concat<axis=0>(b2, b2)
            r = Sub(c, ten)  s = Mul(d, big) }""",
        {
            "ten": np.array([10], np.int32),
            "big": np.array([-3, 7, 2**20, -(2**30)], np.int64),
            "zero": np.array([0], np.int64),
        },
    )


@case()
def unsigned_integers() -> ModelProto:
    return model(
        """g (uint8[4] a, uint16[4] b, uint32[4] c, uint64[4] d)
            => (uint8[8] p, uint16[8] q, uint32[8] r, uint64[8] s) {
            p = Concat<axis=0>(a, a)  q = Concat<axis=0>(b, b)
            r = Concat<axis=0>(c, c)  s = Concat<axis=0>(d, d) }"""
    )


@case()
def booleans() -> ModelProto:
    return model(
        """g (bool[2,3] a, bool[2,3] b, float[2,3] x) => (bool[2,3] p, float[2,3] q) {
            p = And(a, b)  n = Not(p)  z = Neg(x)  q = Where(n, x, z) }"""
    )


@case()
def float16() -> ModelProto:
    return model("g (float16[2,4] a) => (float16[4,2] p) { t = Transpose(a) p = Add(t, t) }")


@case()
def bfloat16() -> ModelProto:
    return model("g (bfloat16[2,4] a) => (bfloat16[4,4] p) { p = Concat<axis=0>(a, a) }")


@case()
def float64() -> ModelProto:
    return model("g (double[2,4] a) => (double[2,4] p) { t = Mul(a, a) p = Sub(t, a) }")


@case()
def integer_beyond_32_bits() -> ModelProto:
    return model(
        "g (int64[4] a) => (int64[4] p) { p = Add(a, big) }", {"big": np.array([2**40], np.int64)}
    )


def _convolution(batch: str) -> ModelProto:
    return model(
        f"""g (float[{batch},3,8,8] x) => (float[{batch},4] y) {{
            c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)  r = Relu(c)
            p = GlobalAveragePool(r)  y = Flatten(p) }}""",
        {"w": random(4, 3, 3, 3), "b": random(4)},
    )


@case()
def dynamic_batch() -> ModelProto:
    return _convolution("N")


@case(inputs=("x=1..4@2x3x8x8",))
def bounded_batch() -> ModelProto:
    return _convolution("N")


@case(inputs=("x=2x3x8x8",))
def fixed_batch() -> ModelProto:
    return _convolution("N")


@case()
def dynamic_shapes() -> ModelProto:
    return model(
        """g (float[N,T,8] x) => (float[N,M] y, int64[3] s) {
            s = Shape(x)  n = Gather<axis=0>(s, zero)  k = Unsqueeze(n, axes)
            t = Concat<axis=0>(k, rest)  y = Reshape(x, t) }""",
        {
            "zero": np.array(0, np.int64),
            "axes": np.array([0], np.int64),
            "rest": np.array([-1], np.int64),
        },
    )


@case()
def scalars() -> ModelProto:
    return model(
        """g (float a, int64 k, float[3] v) => (float p, float q, int64 r) {
            p = Exp(a)  q = Gather<axis=0>(v, k)  r = Add(k, k) }"""
    )


@case()
def input_that_is_an_output() -> ModelProto:
    return model("g (float[2,3] x) => (float[2,3] x, float[2,3] y) { y = Relu(x) }")


@case()
def one_tensor_as_two_outputs() -> ModelProto:
    return model(
        """g (float[2,3] x) => (float[2,3] y, float[2,3] z, float[2,3] w) {
            y = Relu(x)  z = Identity(y)  w = Relu(x) }"""
    )


@case()
def initializer_as_output() -> ModelProto:
    return model(
        "g (float[2] x) => (float[2] y, float[2] c, float[2] d) { y = Add(x, c) d = Identity(c) }",
        {"c": np.array([1, -2], np.float32)},
    )


@case()
def empty_tensors() -> ModelProto:
    return model(
        """g (float[0,3] x, float[2,3] z) => (float[0,3] y, float[2,3] w, float[2] s) {
            y = Relu(x)  w = Concat<axis=0>(x, z)  t = ReduceSum(w, axes)
            s = Squeeze(t, axes) }""",
        {"axes": np.array([1], np.int64)},
    )


@case()
def unused_input() -> ModelProto:
    return model("g (float[2,3] x, int64[4] unused) => (float[2,3] y) { y = Sigmoid(x) }")


@case()
def odd_names() -> ModelProto:
    whole = model(
        """g (float[2] a, float[2] b) => (float[2] p, float[2] q) {
            p = Add(a, c)  q = Mul(b, p) }""",
        {"c": np.array([1, 2], np.float32)},
    )
    return rename(
        whole,
        {"a": "input.1", "b": "x:0", "p": "a/b c", "q": "onnx::Mul_7", "c": "w,<&\">'"},
    )


@case()
def opset_7_with_initializers_as_inputs() -> ModelProto:
    names = ("scale", "shift", "mean", "var")
    weights = {"w": random(4, 3, 1, 1), **{n: np.abs(random(4, seed=i)) + 0.5
                                           for i, n in enumerate(names)}}  # fmt: skip
    whole = model(
        """g (float[1,3,6,6] x) => (float[1,4] y) {
            c = Conv(x, w)  n = BatchNormalization<epsilon=0.001>(c, scale, shift, mean, var)
            r = Clip<min=0.0, max=6.0>(n)  p = AveragePool<kernel_shape=[6,6]>(r)
            f = Flatten(p)  d = Dropout<ratio=0.5>(f)  y = Softmax(d) }""",
        weights,
        opset=7,
        ir_version=3,
    )
    for name, array in weights.items():
        whole.graph.input.append(
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape)
        )
    return whole


@case()
def conditional() -> ModelProto:
    return model(
        """g (bool[1] flag, float[2,3] x) => (float[2,3] y) {
            h = Relu(x)
            y = If(flag) <
                then_branch = yes () => (float[2,3] t) { t = Add(h, x) },
                else_branch = no () => (float[2,3] e) { e = Neg(h) }
            > }"""
    )


@case()
def loop() -> ModelProto:
    return model(
        """g (float[2] x) => (float[2] last, float[3,2] all) {
            last, all = Loop(three, yes, x) <
                body = step (int64 i, bool on, float[2] s) => (bool more, float[2] t, float[2] o) {
                    more = Identity(on)  k = Cast<to=1>(i)  t = Add(s, k)  o = Mul(t, s) }
            > }""",
        {"three": np.array(3, np.int64), "yes": np.array(True)},
    )


@case()
def lstm() -> ModelProto:
    return model(
        """g (float[5,N,4] x) => (float[5,2,N,3] y, float[2,N,3] h, float[2,N,3] c) {
            y, h, c = LSTM<hidden_size=3, direction="bidirectional">(x, w, r, b) }""",
        {"w": random(2, 12, 4), "r": random(2, 12, 3, seed=1), "b": random(2, 24, seed=2)},
    )


@case()
def gru() -> ModelProto:
    return model(
        """g (float[5,2,4] x) => (float[5,1,2,3] y) {
            y, h = GRU<hidden_size=3, linear_before_reset=1>(x, w, r, b) }""",
        {"w": random(1, 9, 4), "r": random(1, 9, 3, seed=1), "b": random(1, 18, seed=2)},
    )


@case()
def big_constant() -> ModelProto:
    return model(
        "g (float[1,1024] x) => (float[1,1024] y) { y = MatMul(x, w) }",
        {"w": random(1024, 1024, scale=0.03)},
    )


@case(external_data=True)
def external_data() -> ModelProto:
    return model(
        "g (float[N,64] x) => (float[N,32] y) { t = Gemm(x, w, b) y = Relu(t) }",
        {"w": random(64, 32), "b": random(32)},
    )


@case()
def convolutions_with_activations() -> ModelProto:
    """Every activation that a convolution may be fused with, and one read by two nodes."""
    acts = {
        "Relu": "Relu(c{i})",
        "Clip": "Clip(c{i}, low, high)",
        "Open": "Clip(c{i}, low)",
        "LeakyRelu": "LeakyRelu<alpha=0.2>(c{i})",
        "Sigmoid": "Sigmoid(c{i})",
        "Tanh": "Tanh(c{i})",
        "HardSigmoid": "HardSigmoid<alpha=0.3, beta=0.4>(c{i})",
        "Elu": "Elu(c{i})",
    }
    lines = [
        f"c{i} = Conv<kernel_shape=[3,3], strides=[2,2]>(x, w{i}, b)  y{i} = " + text.format(i=i)
        for i, text in enumerate(acts.values())
    ]
    outputs = ", ".join(f"float[1,4,3,3] y{i}" for i in range(len(acts)))
    return model(
        f"""g (float[1,2,8,8] x) => ({outputs}, float[1,4,3,3] z) {{
            {" ".join(lines)}
            k = Conv<strides=[2,2]>(x, w9, b)  m = Relu(k)  z = Add(k, m) }}""",
        {
            **{f"w{i}": random(4, 2, 3, 3, seed=i) for i in (*range(len(acts)), 9)},
            "b": random(4),
            "low": np.array(-0.1, np.float32),
            "high": np.array(0.4, np.float32),
        },
    )


@case()
def vision_operators() -> ModelProto:
    return model(
        """g (float[1,4,8,8] x) => (float[1,4,16,16] y, float[1,4,4,4] p, float[1,8] s) {
            d = Conv<group=4, pads=[1,1,1,1]>(x, dw)  h = HardSwish(d)
            u = ConvTranspose<strides=[2,2], kernel_shape=[2,2]>(h, up)
            r = Resize<mode="linear", coordinate_transformation_mode="half_pixel">(h, , scales)
            y = Add(u, r)  q = Pad<mode="reflect">(h, pads)
            p = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=0>(q)
            a, b = Split<axis=1>(p, halves)  m = Concat<axis=1>(b, a)
            l = LeakyRelu(m)  g1 = GlobalMaxPool(l)  g2 = GlobalAveragePool(l)
            g3 = Concat<axis=1>(g1, g2)  f = Flatten(g3)  s = Softmax<axis=1>(f) }""",
        {
            "dw": random(4, 1, 3, 3),
            "up": random(4, 4, 2, 2, seed=1),
            "scales": np.array([1, 1, 2, 2], np.float32),
            "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
            "halves": np.array([2, 2], np.int64),
        },
    )


@case()
def transformer_block() -> ModelProto:
    return model(
        """g (int64[N,6] ids) => (float[N,6,8] y) {
            e = Gather<axis=0>(table, ids)
            n = LayerNormalization<axis=-1, epsilon=0.00001>(e, gamma, beta)
            q = MatMul(n, wq)  k = MatMul(n, wk)  v = MatMul(n, wv)
            q4 = Reshape(q, heads)  k4 = Reshape(k, heads)  v4 = Reshape(v, heads)
            qt = Transpose<perm=[0,2,1,3]>(q4)  kt = Transpose<perm=[0,2,3,1]>(k4)
            vt = Transpose<perm=[0,2,1,3]>(v4)
            a = MatMul(qt, kt)  b = Mul(a, half)  c = Softmax<axis=-1>(b)
            d = MatMul(c, vt)  f = Transpose<perm=[0,2,1,3]>(d)  h = Reshape(f, flat)
            r = Add(e, h)  i = Div(r, root)  j = Erf(i)  l = Add(j, one)  m = Mul(r, l)
            y = Mul(m, half) }""",
        {
            "table": random(10, 8, scale=1.0),
            "gamma": np.abs(random(8)) + 0.5,
            "beta": random(8),
            **{f"w{c}": random(8, 8, seed=i) for i, c in enumerate("qkv")},
            "heads": np.array([0, 6, 2, 4], np.int64),
            "flat": np.array([0, 6, 8], np.int64),
            "half": np.array(0.5, np.float32),
            "root": np.array(np.sqrt(2), np.float32),
            "one": np.array(1, np.float32),
        },
    )


@case()
def determinant() -> ModelProto:
    return model("g (float[2,3,3] x) => (float[2] y) { y = Det(x) }")


def foreign_operators() -> ModelProto:
    """Three nodes that no back end knows, one in the body of an If, one without a name."""
    return model(
        """g (float[2] x, bool b) => (float[2] z) {
            [first] a = maker.Strange(x)
            t = Relu(a)
            [third] y = If(b) <
                then_branch = yes () => (float[2] p) { [inner] p = maker.Stranger<k=2>(t) },
                else_branch = no () => (float[2] q) { q = Neg(t) }
            >
            unnamed = maker.Strange(y)
            z = Abs(unnamed) }""",
        domains=', "maker": 1',
    )

"""One operator for each rule of mindspore_lite_lowering: alone and unlowered it goes wrong.

Each is ONNX's textual form of a graph, and its constants. Inputs are standard normal with a fixed
seed, integers from -3 to 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser


@dataclass(frozen=True)
class Case:
    """`negative` makes all float inputs so; `opset` is that of the standard operators."""

    graph: str
    constants: dict[str, Any] = field(default_factory=dict)
    negative: bool = False
    opset: int = 18

    def model(self) -> onnx.ModelProto:
        text = f'<ir_version: 8, opset_import: ["": {self.opset}]> g {self.graph}'
        model = parser.parse_model(text)
        for name, array in self.constants.items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return model

    def feeds(self) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        out = {}
        for value in self.model().graph.input:
            tensor = value.type.tensor_type
            shape = [d.dim_value for d in tensor.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            if dtype == np.bool_:
                out[value.name] = rng.integers(0, 2, shape).astype(dtype)
            elif np.issubdtype(dtype, np.integer):
                out[value.name] = rng.integers(-3, 4, shape).astype(dtype)
            else:
                drawn = rng.standard_normal(shape).astype(dtype)
                out[value.name] = -np.abs(drawn) - 1 if self.negative else drawn
        return out


def weights(*shape: int) -> Any:
    return (0.3 * np.random.default_rng(1).standard_normal(shape)).astype(np.float32)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


_SEQUENCE = {"w": weights(1, 16, 3), "r": weights(1, 16, 4), "b": weights(1, 32)}
_GRU = {"w": weights(1, 12, 3), "r": weights(1, 12, 4), "b": weights(1, 24)}
_RNN = {"w": weights(1, 4, 3), "r": weights(1, 4, 4), "b": weights(1, 8)}

CASES: dict[str, Case] = {
    "argmin": Case("(float[3,5] x) => (int64[3,1] y) { y = ArgMin<axis=1>(x) }"),
    "argmax-keepdims-by-default": Case(
        "(float[3,5] x) => (int64[3,1] y) { y = ArgMax<axis=1>(x) }"
    ),
    "atan": Case("(float[3,5] x) => (float[3,5] y) { y = Atan(x) }"),
    "averagepool-counts-padding": Case(
        """(float[1,2,6,7] x) => (float[1,2,6,7] y) { y = AveragePool<kernel_shape=[3,3],
            pads=[1,1,1,1], count_include_pad=1>(x) }"""
    ),
    "averagepool-of-three-dimensions": Case(
        """(float[1,2,4,6,8] x) => (float[1,2,2,3,4] y) {
            y = AveragePool<kernel_shape=[2,2,2], strides=[2,2,2]>(x) }"""
    ),
    "batchnorm-of-computed-parameters": Case(
        """(float[2,3,4,5] x, float[3] s, float[3] b, float[3] m) => (float[2,3,4,5] y) {
            v = Exp(m)  y = BatchNormalization(x, s, b, m, v) }"""
    ),
    "clip-above-only": Case(
        '(float[3,5] x) => (float[3,5] y) { y = Clip(x, "", high) }', {"high": np.float32(0.1)}
    ),
    "compress": Case(
        "(float[3,4] x) => (float[2,4] y) { y = Compress<axis=0>(x, c) }",
        {"c": [True, False, True]},
    ),
    "conv-without-attributes": Case(
        "(float[1,2,6,7] x) => (float[1,3,4,5] y) { y = Conv(x, w) }", {"w": weights(3, 2, 3, 3)}
    ),
    "conv-same-lower": Case(
        """(float[1,2,6,7] x) => (float[1,3,6,7] y) { y = Conv<auto_pad="SAME_LOWER",
            kernel_shape=[4,4], strides=[1,1], dilations=[1,1]>(x, w) }""",
        {"w": weights(3, 2, 4, 4)},
    ),
    "conv-of-computed-bias": Case(
        """(float[1,2,6,7] x, float[3] b) => (float[1,3,4,5] y) { y = Conv<kernel_shape=[3,3],
            strides=[1,1], dilations=[1,1], pads=[0,0,0,0]>(x, w, b) }""",
        {"w": weights(3, 2, 3, 3)},
    ),
    "convtranspose-output-shape": Case(
        """(float[1,2,5,6] x) => (float[1,3,10,12] y) { y = ConvTranspose<kernel_shape=[3,3],
            strides=[2,2], dilations=[1,1], output_shape=[10,12]>(x, w) }""",
        {"w": weights(2, 3, 3, 3)},
    ),
    "convtranspose-of-groups": Case(
        """(float[1,4,5,6] x) => (float[1,6,7,8] y) { y = ConvTranspose<kernel_shape=[3,3],
            strides=[1,1], dilations=[1,1], pads=[0,0,0,0], group=2>(x, w) }""",
        {"w": weights(4, 3, 3, 3)},
    ),
    "cos": Case("(float[50,50] x) => (float[50,50] y) { y = Cos(x) }"),
    "cumsum-exclusive": Case(
        "(float[3,5] x) => (float[3,5] y) { y = CumSum<exclusive=1>(x, one) }", {"one": np.int64(1)}
    ),
    "cumsum-reverse": Case(
        "(float[3,5] x) => (float[3,5] y) { y = CumSum<reverse=1>(x, one) }", {"one": np.int64(1)}
    ),
    "dropout": Case("(float[3,5] x) => (float[3,5] y) { y = Dropout(x) }"),
    "elu-by-default": Case("(float[3,5] x) => (float[3,5] y) { y = Elu(x) }"),
    "equal-of-booleans": Case("(bool[3,5] a, bool[3,5] b) => (bool[3,5] y) { y = Equal(a, b) }"),
    "einsum-of-one": Case('(float[3,5] x) => (float[3] y) { y = Einsum<equation="ij->i">(x) }'),
    "flatten-by-the-last-axis": Case(
        "(float[2,3,4] x) => (float[24,1] y) { y = Flatten<axis=3>(x) }"
    ),
    "gathernd-of-batches": Case(
        "(float[2,3,4] x) => (float[2,4] y) { y = GatherND<batch_dims=1>(x, i) }",
        {"i": np.array([[1], [-1]])},
    ),
    "gelu-tanh": Case(
        '(float[50,50] x) => (float[50,50] y) { y = Gelu<approximate="tanh">(x) }', opset=20
    ),
    "gemm-scaled": Case(
        "(float[3,4] a, float[5] c) => (float[3,5] y) { y = Gemm<alpha=0.5, beta=2.0>(a, b, c) }",
        {"b": weights(4, 5)},
    ),
    "globalaveragepool-of-rank-3": Case(
        "(float[2,3,5] x) => (float[2,3,1] y) { y = GlobalAveragePool(x) }"
    ),
    "gru": Case(
        """(float[5,2,3] x) => (float[5,1,2,4] y, float[1,2,4] h) {
            y, h = GRU<hidden_size=4, linear_before_reset=1>(x, w, r, b) }""",
        _GRU,
    ),
    "hardsigmoid": Case("(float[3,5] x) => (float[3,5] y) { y = HardSigmoid<alpha=0.3>(x) }"),
    "hardswish": Case("(float[3,5] x) => (float[3,5] y) { y = HardSwish(x) }"),
    "identity": Case("(float[3,5] x) => (float[3,5] y) { y = Identity(x) }"),
    "instancenorm-of-rank-3": Case(
        "(float[2,3,5] x) => (float[2,3,5] y) { y = InstanceNormalization(x, s, b) }",
        {"s": weights(3), "b": weights(3)},
    ),
    "layernorm": Case(
        "(float[8,16] x) => (float[8,16] y) { y = LayerNormalization(x, s, b) }",
        {"s": weights(16), "b": weights(16)},
    ),
    "leakyrelu-by-default": Case("(float[3,5] x) => (float[3,5] y) { y = LeakyRelu(x) }"),
    "lrn": Case("(float[1,4,5,6] x) => (float[1,4,5,6] y) { y = LRN<size=3, alpha=0.5>(x) }"),
    "lstm-of-one-output": Case(
        "(float[5,2,3] x) => (float[5,1,2,4] y) { y = LSTM<hidden_size=4>(x, w, r, b) }", _SEQUENCE
    ),
    "lstm-backwards": Case(
        """(float[5,2,3] x) => (float[5,1,2,4] y) {
            y = LSTM<hidden_size=4, direction="reverse">(x, w, r, b) }""",
        _SEQUENCE,
    ),
    "lstm-of-one-step": Case(
        "(float[1,2,3] x) => (float[1,1,2,4] y) { y = LSTM<hidden_size=4>(x, w, r, b) }", _SEQUENCE
    ),
    "matmul-of-vectors": Case("(float[4] a, float[4] b) => (float y) { y = MatMul(a, b) }"),
    "matmul-by-a-vector": Case("(float[3,4] a, float[4] b) => (float[3] y) { y = MatMul(a, b) }"),
    "max-of-three": Case(
        "(float[3,5] a, float[5] b, float[3,1] c) => (float[3,5] y) { y = Max(a, b, c) }"
    ),
    "maxpool-with-dilations-of-one": Case(
        """(float[1,2,6,7] x) => (float[1,2,5,6] y) {
            y = MaxPool<kernel_shape=[2,2], dilations=[1,1]>(x) }"""
    ),
    "maxpool-of-one-dimension": Case(
        "(float[1,2,9] x) => (float[1,2,4] y) { y = MaxPool<kernel_shape=[3], strides=[2]>(x) }"
    ),
    "mod-of-mixed-signs": Case(
        "(int32[20] a) => (int32[20] y) { y = Mod(a, b) }", {"b": np.full(20, 2, np.int32)}
    ),
    "onehot-of-negative-indices": Case(
        "(int64[6] i) => (float[6,4] y) { y = OneHot(i, d, v) }",
        {"d": np.int64(4), "v": np.array([0, 1], np.float32)},
    ),
    "pad-with-edges": Case(
        '(float[3,5] x) => (float[6,5] y) { y = Pad<mode="edge">(x, p) }', {"p": ints(1, 0, 2, 0)}
    ),
    "pad-negative": Case(
        "(float[3,5] x) => (float[3,3] y) { y = Pad(x, p) }", {"p": ints(0, -1, 0, -1)}
    ),
    "pow-of-an-integer": Case("(float[3,5] x) => (float[3,5] y) { y = Pow(x, e) }", {"e": ints(3)}),
    "prelu-of-computed-slope": Case(
        "(float[3,5] x, float[5] s) => (float[3,5] y) { y = PRelu(x, s) }"
    ),
    "reducemax-of-negatives": Case(
        "(float[2,3,5] x) => (float[2,1,5] y) { y = ReduceMax(x, a) }",
        {"a": ints(1)},
        negative=True,
    ),
    "reversesequence": Case(
        "(float[4,3,2] x) => (float[4,3,2] y) { y = ReverseSequence(x, n) }", {"n": ints(4, 2, 1)}
    ),
    "resize-cubic": Case(
        """(float[1,2,4,5] x) => (float[1,2,8,10] y) {
            y = Resize<mode="cubic">(x, "", s) }""",
        {"s": np.array([1, 1, 2, 2], np.float32)},
    ),
    "resize-nearest-by-halves": Case(
        """(float[1,2,4,6] x) => (float[1,2,6,9] y) { y = Resize<mode="nearest",
            nearest_mode="ceil">(x, "", s) }""",
        {"s": np.array([1, 1, 1.5, 1.5], np.float32)},
    ),
    "rnn": Case(
        "(float[5,2,3] x) => (float[5,1,2,4] y) { y = RNN<hidden_size=4>(x, w, r, b) }", _RNN
    ),
    "round-of-halves": Case(
        "(int64[3] i) => (float[3] y) { x = Cast<to=1>(i)  h = Mul(x, x)  "
        "o = Add(h, half)  y = Round(o) }",
        {"half": np.float32(0.5)},
    ),
    "scatter-elements": Case(
        "(float[3,4] x, float[1,4] u) => (float[3,4] y) { y = ScatterElements(x, i, u) }",
        {"i": np.array([[0, 2, -1, 1]])},
    ),
    "selu": Case("(float[3,5] x) => (float[3,5] y) { y = Selu(x) }"),
    "sign": Case("(float[3,5] x) => (float[3,5] y) { y = Sign(x) }"),
    "slice-of-booleans": Case(
        "(bool[3,5] x) => (bool[2,5] y) { y = Slice(x, a, b) }", {"a": ints(1), "b": ints(3)}
    ),
    "softmax-of-rank-6": Case(
        "(float[1,2,1,2,3,4] x) => (float[1,2,1,2,3,4] y) { y = Softmax<axis=3>(x) }"
    ),
    "softsign": Case("(float[3,5] x) => (float[3,5] y) { y = Softsign(x) }"),
    "topk-of-the-least": Case(
        "(float[3,9] x) => (float[3,2] y, int64[3,2] i) { y, i = TopK<largest=0>(x, k) }",
        {"k": ints(2)},
    ),
    "where-that-broadcasts": Case(
        "(bool[2,3,5] c, float[5] x) => (float[2,3,5] y) { y = Where(c, x, minus) }",
        {"minus": np.float32(-1)},
    ),
    "where-of-booleans": Case(
        "(bool[3,5] c, bool[3,5] x, bool[3,5] z) => (bool[3,5] y) { y = Where(c, x, z) }"
    ),
    "unread-input": Case("(float[3] x, float[3] z) => (float[3] y) { y = Abs(x) }"),
}

"""Small networks with random weights, and what running them gives."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnx.checker
import onnx.shape_inference
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from infc.passes.quantization import observed
from infc.quantization import Range, Scheme

Array = np.ndarray


class Network:
    """Nodes and weights, added one after the other; values are named v0, v1, ..."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, array: Array) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"n_{name}", **attributes))
        return name

    def conv(
        self,
        x: str,
        i: int,
        o: int,
        k: int = 3,
        group: int = 1,
        kind: str = "Conv",
        stride: int = 1,
    ) -> str:
        shape = (o, i // group, k, k) if kind == "Conv" else (i, o // group, k, k)
        w = self.rng.standard_normal(shape) * np.sqrt(2 / (i // group * k * k))
        w = w * self.rng.uniform(0.3, 2, (shape[0], 1, 1, 1))
        pad = k // 2
        return self.op(
            kind,
            x,
            self.weight(w.astype(np.float32)),
            self.weight((self.rng.standard_normal(o) * 0.1).astype(np.float32)),
            group=group,
            pads=[pad] * 4,
            kernel_shape=[k, k],
            strides=[stride] * 2,
        )

    def relu6(self, x: str) -> str:
        return self.op("Clip", x, self.weight(np.float32(0)), self.weight(np.float32(6)))

    def dense(self, x: str, i: int, o: int, kind: str = "Gemm") -> str:
        w = self.weight((self.rng.standard_normal((i, o)) / np.sqrt(i)).astype(np.float32))
        b = self.weight((self.rng.standard_normal(o) * 0.1).astype(np.float32))
        return (
            self.op("Gemm", x, w, b) if kind == "Gemm" else self.op("Add", self.op(kind, x, w), b)
        )

    def model(self, inputs: dict[str, tuple[int, ...]], outputs: Iterable[str]) -> ir.Model:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in inputs.items()],
            [helper.make_tensor_value_info(k, TensorProto.FLOAT, None) for k in outputs],
            self.weights,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return ir.from_proto(onnx.shape_inference.infer_shapes(made, data_prop=True))


def mobile() -> ir.Model:
    """Inverted residuals with depthwise convolutions and Relu6, a squeeze and excitation."""
    n = Network()
    x = n.relu6(n.conv("x", 3, 16, stride=2))
    for _ in range(2):
        h = n.relu6(n.conv(x, 16, 48, 1))
        h = n.relu6(n.conv(h, 48, 48, 3, group=48))
        x = n.op("Add", n.conv(h, 48, 16, 1), x)
    gate = n.op("GlobalAveragePool", n.op("Relu", n.conv(x, 16, 32, 1)))
    return n.model({"x": (1, 3, 32, 32)}, [n.dense(n.op("Flatten", gate), 32, 10)])


def mixed() -> ir.Model:
    """Branches: pooling, Concat, upsampling, an excitation, two heads."""
    n = Network(1)
    a = n.op("Relu", n.conv("x", 3, 16))
    b = n.op("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2])
    c = n.op("Relu", n.conv(b, 16, 16))
    up = n.op("Resize", c, "", n.weight(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    d = n.op("Concat", up, a, axis=1)
    e = n.conv(d, 32, 16)
    gate = n.op("Sigmoid", n.conv(n.op("GlobalAveragePool", e), 16, 16, 1))
    f = n.op("Relu", n.conv(n.op("Mul", e, gate), 16, 8))
    g = n.op("Sigmoid", n.conv(f, 8, 4, 1))
    return n.model({"x": (1, 3, 16, 16)}, [n.conv(f, 8, 4, 2, kind="ConvTranspose"), g])


def attention() -> ir.Model:
    """One head of attention, and what follows it."""
    n = Network(2)
    q, k, v = (n.dense("x", 32, 32, "MatMul") for _ in range(3))
    scores = n.op("MatMul", q, n.op("Transpose", k, perm=[0, 2, 1]))
    scores = n.op("Mul", scores, n.weight(np.float32(32**-0.5)))
    mixed = n.op("MatMul", n.op("Softmax", scores, axis=-1), v)
    h = n.op("Relu", n.dense(n.op("Add", n.dense(mixed, 32, 32, "MatMul"), "x"), 32, 64, "MatMul"))
    return n.model({"x": (2, 12, 32)}, [n.dense(h, 64, 32, "MatMul")])


def feeds(model: ir.Model, count: int, seed: int = 0) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    return [
        {
            v.name: rng.standard_normal([int(d) for d in v.shape]).astype(np.float32)
            for v in model.graph.inputs
        }
        for _ in range(count)
    ]


def session(model: ir.Model, *, optimized: str | None = None, off: bool = False):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if optimized:
        options.optimized_model_filepath = optimized
    if off:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, ["CPUExecutionProvider"]
    )


def run(model: ir.Model, data: list[dict[str, Array]]) -> list[list[Array]]:
    plain = session(model, off=True)
    return [plain.run(None, feed) for feed in data]


def measured(
    model: ir.Model, scheme: Scheme, data: list[dict[str, Array]]
) -> tuple[dict[str, Range], dict[str, Array]]:
    """The extremes and the means along axis 1 of what the scheme wants to know."""
    names = observed(model, scheme)
    given = {v.name for v in model.graph.inputs}
    whole = ir.to_proto(model)
    there = {v.name for v in whole.graph.output}
    whole.graph.output.extend(
        helper.make_empty_tensor_value_info(n) for n in names if n not in there | given
    )
    wide = ir.from_proto(whole)
    outputs = [v.name for v in wide.graph.outputs]
    found: dict[str, list[Array]] = {name: [] for name in names}
    for feed, answers in zip(data, _plain(whole, data), strict=True):
        values = {**feed, **dict(zip(outputs, answers, strict=True))}
        for name in names:
            found[name].append(values[name])
    ranges = {n: Range(min(a.min() for a in s), max(a.max() for a in s)) for n, s in found.items()}
    means = {
        n: np.mean([np.moveaxis(a, 1, 0).reshape(a.shape[1], -1).mean(1) for a in s], axis=0)
        for n, s in found.items()
    }
    return ranges, means


def _plain(proto: onnx.ModelProto, data: list[dict[str, Array]]) -> list[list[Array]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    opened = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, ["CPUExecutionProvider"]
    )
    return [opened.run(None, feed) for feed in data]


def sqnr_db(reference: list[list[Array]], found: list[list[Array]]) -> list[float]:
    """Of each output, over all feeds."""
    result = []
    for expected, got in zip(zip(*reference, strict=True), zip(*found, strict=True), strict=True):
        signal = sum(float((e.astype(np.float64) ** 2).sum()) for e in expected)
        noise = sum(
            float(((e.astype(np.float64) - g) ** 2).sum())
            for e, g in zip(expected, got, strict=True)
        )
        result.append(10 * np.log10(signal / max(noise, 1e-30)))
    return result

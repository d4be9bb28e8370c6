"""Networks whose channels go every way there is, made from a seed, and a few by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray


class Net:
    """A network in the making; `values` are (name, channels, height)."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.values: list[tuple[str, int, int]] = [("x", 3, 8)]

    def const(self, array: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def normal(self, *shape: int) -> str:
        scale = 1 / np.sqrt(max(1, int(np.prod(shape[1:]))))
        return self.const((self.numbers.standard_normal(shape) * scale).astype(np.float32))

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        title = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, names, name=title, **attributes))
        return names[0] if outputs == 1 else names

    def add(self, name: str, channels: int, height: int) -> None:
        self.values.append((name, channels, height))

    def conv(self, x: str, i: int, o: int, k: int = 3, group: int = 1) -> str:
        bias = [self.normal(o)] if self.rng.random() < 0.7 else []
        w = self.normal(o, i // group, k, k)
        return str(self.op("Conv", x, w, *bias, group=group, pads=[k // 2] * 4))

    def model(self, outputs: Sequence[str], inputs: dict[str, Sequence[int]]) -> ir.Model:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.weights,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        return ir.from_proto(onnx.shape_inference.infer_shapes(made, data_prop=True))


Step = Callable[[Net, str, int, int], None]


def convolve(n: Net, x: str, c: int, h: int) -> None:
    o = n.rng.choice((4, 6, 8, 12))
    groups = [g for g in (1, 1, 2, 4) if c % g == 0 and o % g == 0]
    n.add(n.conv(x, c, o, n.rng.choice((1, 3)), n.rng.choice(groups)), o, h)


def depthwise(n: Net, x: str, c: int, h: int) -> None:
    times = n.rng.choice((1, 1, 2))
    n.add(n.conv(x, c, c * times, 3, c), c * times, h)


def up(n: Net, x: str, c: int, h: int) -> None:
    o = n.rng.choice((4, 8))
    group = n.rng.choice([g for g in (1, 2, c) if c % g == 0])
    if group == c:
        o = c
    elif o % group:
        group = 1
    w = n.normal(c, o // group, 1, 1)
    n.add(n.op("ConvTranspose", x, w, n.normal(o), group=group), o, h)


def activate(n: Net, x: str, c: int, h: int) -> None:
    n.add(n.op(n.rng.choice(("Relu", "Sigmoid", "Tanh", "HardSwish", "Exp", "Neg")), x), c, h)


def normalize(n: Net, x: str, c: int, h: int) -> None:
    kind = n.rng.choice(("BatchNormalization", "InstanceNormalization", "PRelu", "Scale"))
    if kind == "BatchNormalization":
        variance = n.const(n.numbers.uniform(0.5, 2, c).astype(np.float32))
        x = n.op(kind, x, *(n.normal(c) for _ in range(3)), variance)
    elif kind == "InstanceNormalization":
        x = n.op(kind, x, n.normal(c), n.normal(c))
    elif kind == "PRelu":
        x = n.op(kind, x, n.normal(c, 1, 1))
    else:
        x = n.op("Add", n.op("Mul", n.normal(1, c, 1, 1), x), n.normal(c, 1, 1))
    n.add(x, c, h)


def add(n: Net, x: str, c: int, h: int) -> None:
    same = [v for v, d, g in n.values if (d, g) == (c, h)]
    kind = n.rng.choice(("Add", "Add", "Mul", "Sub", "Max"))
    n.add(n.op(kind, x, n.rng.choice(same)), c, h)


def join(n: Net, x: str, c: int, h: int) -> None:
    other, d, _ = n.rng.choice([v for v in n.values if v[2] == h])
    if c + d <= 32:
        n.add(n.op("Concat", x, other, axis=1), c + d, h)


def split(n: Net, x: str, c: int, h: int) -> None:
    if c < 2:
        return
    first = n.rng.randint(1, c - 1)
    sizes = n.const(np.array([first, c - first], np.int64))
    a, b = n.op("Split", x, sizes, axis=1, outputs=2)
    n.add(a, first, h)
    n.add(b, c - first, h)


def cut(n: Net, x: str, c: int, h: int) -> None:
    start = n.rng.randint(0, c - 1)
    end = n.rng.randint(start + 1, c)
    bounds = [n.const(np.array([i], np.int64)) for i in (start, end, 1)]
    n.add(n.op("Slice", x, *bounds), end - start, h)


def pick(n: Net, x: str, c: int, h: int) -> None:
    wanted = [n.rng.randrange(c) for _ in range(n.rng.randint(1, c))]
    n.add(n.op("Gather", x, n.const(np.array(wanted, np.int64)), axis=1), len(wanted), h)


def pad(n: Net, x: str, c: int, h: int) -> None:
    before, after = n.rng.randint(0, 3), n.rng.randint(0, 3)
    pads = n.const(np.array([0, before, 0, 0, 0, after, 0, 0], np.int64))
    n.add(n.op("Pad", x, pads), c + before + after, h)


def excite(n: Net, x: str, c: int, h: int) -> None:
    inner = n.op("Relu", n.conv(n.op("GlobalAveragePool", x), c, 4, 1))
    n.add(n.op("Mul", x, n.op("Sigmoid", n.conv(inner, 4, c, 1))), c, h)


def shuffle(n: Net, x: str, c: int, h: int) -> None:
    groups = [g for g in (2, 3, 4) if c % g == 0]
    if not groups:
        return
    g = n.rng.choice(groups)
    apart = n.op("Reshape", x, n.const(np.array([0, g, c // g, h, h], np.int64)))
    turned = n.op("Transpose", apart, perm=[0, 2, 1, 3, 4])
    n.add(n.op("Reshape", turned, n.const(np.array([0, -1, h, h], np.int64))), c, h)


def deepen(n: Net, x: str, c: int, h: int) -> None:
    if c % 4 == 0 and h < 16:
        mode = n.rng.choice(("DCR", "CRD"))
        n.add(n.op("DepthToSpace", x, blocksize=2, mode=mode), c // 4, 2 * h)
    elif h % 2 == 0 and c <= 8:
        n.add(n.op("SpaceToDepth", x, blocksize=2), 4 * c, h // 2)


def pool(n: Net, x: str, c: int, h: int) -> None:
    kind = n.rng.choice(("MaxPool", "AveragePool"))
    n.add(n.op(kind, x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), c, h)


def attend(n: Net, x: str, c: int, h: int) -> None:
    """Tokens of c channels, two heads of q, k and v."""
    wide = n.rng.choice((8, 12))
    flat = n.op("Reshape", x, n.const(np.array([0, c, -1], np.int64)))
    tokens = n.op("Transpose", flat, perm=[0, 2, 1])
    heads = n.const(np.array([0, 0, 2, wide // 2], np.int64))
    q, k, v = (
        n.op(
            "Reshape", n.op("Add", n.op("MatMul", tokens, n.normal(c, wide)), n.normal(wide)), heads
        )
        for _ in range(3)
    )
    q, v = (n.op("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
    scores = n.op("MatMul", q, n.op("Transpose", k, perm=[0, 2, 3, 1]))
    mixed = n.op("MatMul", n.op("Softmax", scores, axis=-1), v)
    back = n.op("Transpose", mixed, perm=[0, 2, 1, 3])
    joined = n.op("Reshape", back, n.const(np.array([0, 0, wide], np.int64)))
    out = n.op("Transpose", n.op("MatMul", joined, n.normal(wide, c)), perm=[0, 2, 1])
    n.add(n.op("Reshape", out, n.const(np.array([0, c, h, h], np.int64))), c, h)


STEPS: tuple[Step, ...] = (
    *(convolve, convolve, convolve, depthwise, up, activate, activate, normalize, add, add),
    *(join, split, cut, pick, pad, excite, shuffle, deepen, pool, attend),
)


def dense(n: Net, x: str, c: int, h: int) -> str:
    """A classifier over all places, or over their mean."""
    if n.rng.random() < 0.5:
        x, h = n.op("GlobalAveragePool", x), 1
    flat = n.op("Flatten", x)
    hidden = n.op("Relu", n.op("Gemm", flat, n.normal(10, c * h * h), n.normal(10), transB=1))
    return str(n.op("Gemm", hidden, n.normal(10, 5), n.normal(5)))


def random_network(seed: int) -> ir.Model:
    """A network of 4 to 16 steps with two or three outputs."""
    n = Net(seed)
    convolve(n, "x", 3, 8)
    for _ in range(n.rng.randint(4, 16)):
        recent = n.values[-4:] if n.rng.random() < 0.8 else n.values
        n.rng.choice(STEPS)(n, *n.rng.choice(recent))
    name, c, h = n.values[-1]
    outputs = [n.conv(name, c, 3, 1), dense(n, name, c, h)]
    other, d, _ = n.rng.choice(n.values[1:])
    outputs.append(n.conv(other, d, 2, 3))
    return n.model(outputs, {"x": (2, 3, 8, 8)})


def transformer() -> ir.Model:
    """A block with layer normalisation, two heads, and an MLP with Gelu and a gate."""
    n = Net(7)
    tokens, wide = 6, 16

    def linear(x: str, i: int, o: int) -> str:
        return str(n.op("Add", n.op("MatMul", x, n.normal(i, o)), n.normal(o)))

    def normed(x: str) -> str:
        return str(n.op("LayerNormalization", x, n.normal(wide), n.normal(wide), axis=-1))

    stream = linear("x", 8, wide)
    inner = normed(stream)
    hidden = n.op("Mul", n.op("Sigmoid", linear(inner, wide, 48)), linear(inner, wide, 48))
    stream = n.op("Add", stream, linear(hidden, 48, wide))
    return n.model([linear(normed(stream), wide, 4)], {"x": (2, tokens, 8)})


def run(model: ir.Model, feeds: dict[str, Array]) -> list[Array]:
    """The outputs, in ONNX Runtime with nothing optimised."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    serialized = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(serialized, options, ["CPUExecutionProvider"])
    return list(session.run(None, feeds))

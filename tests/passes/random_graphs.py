"""Small valid graphs made from a seed: what the passes rewrite, in combinations nobody wrote down.

A graph is grown operator by operator. Every value has a shape that is known here; the model states
it, or leaves some input dimensions symbolic, or all. Operators are spelled as their opset spells
them. Any value may be read again, be captured by an If, or be an output.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSETS = (9, 11, 12, 13, 15, 17, 18, 20, 21, 22, 23)
MAX_ELEMENTS = 4000
END = 2**63 - 1

Shape = tuple[int, ...]
Value = tuple[str, Shape]


@dataclass
class Graph:
    """A graph in the making: `values` are those that may be read, with their shapes."""

    rng: random.Random
    numbers: np.random.Generator
    opset: int
    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    names: int = 0

    def name(self) -> str:
        self.names += 1
        return f"v{self.names}"

    def constant(self, array: Any) -> str:
        name, tensor = self.name(), numpy_helper.from_array(np.asarray(array))
        if self.rng.random() < 0.3:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            tensor.name = name
            self.initializers.append(tensor)
        return name

    def ints(self, values: Sequence[int]) -> str:
        return self.constant(np.array(values, np.int64))

    def weights(self, *shape: int) -> str:
        """Multiples of a quarter: sums of few are exact in float32."""
        return self.constant((self.numbers.integers(-8, 9, shape) / 4).astype(np.float32))

    def emit(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        out = self.name()
        self.nodes.append(helper.make_node(op, inputs, [out], **attributes))
        return out

    def add(self, op: str, inputs: Sequence[str], shape: Sequence[int], **attributes: Any) -> None:
        self.values.append((self.emit(op, inputs, **attributes), tuple(shape)))

    def with_ints(
        self, op: str, x: str, since: int, name: str, values: Sequence[int], **attributes: Any
    ) -> str:
        """`values` are an attribute called `name` before opset `since`, and an input from there."""
        if self.opset < since:
            return self.emit(op, [x], **{name: list(values)}, **attributes)
        return self.emit(op, [x, self.ints(values)], **attributes)

    def pick(self, rank: int | None = None) -> Value | None:
        """A value to read, more often a late one."""
        found = [v for v in self.values if rank is None or len(v[1]) == rank]
        recent = found[-3:] if self.rng.random() < 0.75 else found
        return self.rng.choice(recent) if found else None

    def like(self, shape: Shape) -> str:
        return self.rng.choice([name for name, s in self.values if s == shape])

    def axis(self, axis: int, rank: int) -> int:
        """The same axis, counted from either end."""
        return axis - rank if self.rng.random() < 0.4 and self.opset >= 11 else axis


def unary(g: Graph, x: str, shape: Shape) -> None:
    ops = ("Relu", "Sigmoid", "Neg", "Abs", "Tanh", "Identity", "Erf", "Softplus", "HardSigmoid")
    g.add(g.rng.choice(ops), [x], shape)


def with_constant(g: Graph, x: str, shape: Shape) -> None:
    op = g.rng.choice(("Add", "Sub", "Mul", "Div", "Pow"))
    axis = g.rng.randrange(len(shape))
    along = tuple(d if i == axis else 1 for i, d in enumerate(shape))
    dims = g.rng.choice(((), (1,), along, along[axis:], shape))
    plain = g.rng.choice((0.0, 1.0, 2.0, 0.5, -1.0, 3.0))
    array = np.full(dims, plain, np.float32)
    if g.rng.random() < 0.6:
        array = (g.numbers.integers(-8, 9, dims) / 4).astype(np.float32)
    if op == "Pow":
        array = np.full(dims, g.rng.choice((1.0, 2.0, 3.0)), np.float32)
    if op == "Div":
        array = np.where(array == 0, 1, array).astype(np.float32)
    inputs = [x, g.constant(array)]
    if op in ("Add", "Mul", "Sub") and g.rng.random() < 0.4:
        inputs.reverse()
    g.add(op, inputs, shape)


def with_another(g: Graph, x: str, shape: Shape) -> None:
    inputs = [x, g.like(shape)]
    g.rng.shuffle(inputs)
    g.add(g.rng.choice(("Add", "Sub", "Mul", "Max", "Min")), inputs, shape)


def transpose(g: Graph, x: str, shape: Shape) -> None:
    perm = g.rng.sample(range(len(shape)), len(shape))
    g.add("Transpose", [x], [shape[i] for i in perm], perm=perm)


def transposed_region(g: Graph, x: str, shape: Shape) -> None:
    """A transpose, some work, and the transpose back."""
    perm = g.rng.sample(range(len(shape)), len(shape))
    inner = tuple(shape[i] for i in perm)
    g.add("Transpose", [x], inner, perm=perm)
    for _ in range(g.rng.randint(1, 4)):
        last = g.values[-1][0]
        g.rng.choice((unary, with_constant, with_another, softmax, clip))(g, last, inner)
    back = [perm.index(i) for i in range(len(perm))]
    g.add("Transpose", [g.values[-1][0]], shape, perm=back)


def reshape(g: Graph, x: str, shape: Shape) -> None:
    dims = list(shape)
    if len(dims) > 1 and g.rng.random() < 0.7:
        at = g.rng.randrange(len(dims) - 1)
        dims[at : at + 2] = [dims[at] * dims[at + 1]]
    if g.rng.random() < 0.4:
        dims.insert(g.rng.randrange(len(dims) + 1), 1)
    stated = list(dims)
    if g.rng.random() < 0.5:
        stated[g.rng.randrange(len(dims))] = -1
    g.add("Reshape", [x, g.ints(stated)], dims)


def reshape_by_shape(g: Graph, x: str, shape: Shape) -> None:
    """(d0, -1), where d0 is read off the shape at run time: what exporters write."""
    first = g.emit("Gather", [g.emit("Shape", [x]), g.constant(np.int64(0))], axis=0)
    parts = [g.with_ints("Unsqueeze", first, 13, "axes", [0]), g.ints([-1])]
    dims = (shape[0], math.prod(shape[1:]))
    g.add("Reshape", [x, g.emit("Concat", parts, axis=0)], dims)


def squeeze(g: Graph, x: str, shape: Shape) -> None:
    ones = [i for i, d in enumerate(shape) if d == 1]
    if ones and len(shape) > 1:
        at = g.rng.choice(ones)
        out = g.with_ints("Squeeze", x, 13, "axes", [g.axis(at, len(shape))])
        g.values.append((out, shape[:at] + shape[at + 1 :]))
    else:
        at = g.rng.randrange(len(shape) + 1)
        out = g.with_ints("Unsqueeze", x, 13, "axes", [g.axis(at, len(shape) + 1)])
        g.values.append((out, (*shape[:at], 1, *shape[at:])))


def cut(g: Graph, x: str, start: int, end: int, axis: int) -> str:
    if g.opset < 10:
        return g.emit("Slice", [x], starts=[start], ends=[end], axes=[axis])
    return g.emit("Slice", [x, *(g.ints([i]) for i in (start, end, axis))])


def slices(g: Graph, x: str, shape: Shape) -> None:
    """One slice, or both parts of the whole, put together again or not."""
    axis = g.rng.randrange(len(shape))
    size = shape[axis]
    at = g.rng.randint(0, size - 1)
    head, tail = (*shape[:axis], at, *shape[axis + 1 :]), list(shape)
    tail[axis] = size - at
    end = g.rng.choice((size, END))
    g.values.append((cut(g, x, g.rng.choice((at, at - size)), end, axis), tuple(tail)))
    if at and g.rng.random() < 0.6:
        g.values.append((cut(g, x, 0, at, axis), head))
        if g.rng.random() < 0.4:
            g.add("Concat", [g.values[-1][0], g.values[-2][0]], shape, axis=axis)


def gather(g: Graph, x: str, shape: Shape) -> None:
    axis = g.rng.randrange(len(shape))
    if len(shape) > 1 and g.rng.random() < 0.6:
        at = g.constant(np.int64(g.rng.randrange(shape[axis])))
        g.add("Gather", [x, at], shape[:axis] + shape[axis + 1 :], axis=axis)
    else:
        dims = (*shape[:axis], 2, *shape[axis + 1 :])
        g.add("Gather", [x, g.ints([0, shape[axis] - 1])], dims, axis=axis)


def concat(g: Graph, x: str, shape: Shape) -> None:
    axis = g.rng.randrange(len(shape))
    dims = (*shape[:axis], 2 * shape[axis], *shape[axis + 1 :])
    g.add("Concat", [x, g.like(shape)], dims, axis=g.axis(axis, len(shape)))


def reduce(g: Graph, x: str, shape: Shape) -> None:
    axes = sorted(g.rng.sample(range(len(shape)), g.rng.randint(1, len(shape))))
    keep = len(axes) == len(shape) or g.rng.random() < 0.5
    dims = [1 if i in axes else d for i, d in enumerate(shape) if keep or i not in axes]
    op = g.rng.choice(("ReduceMean", "ReduceMax", "ReduceSum"))
    since = 13 if op == "ReduceSum" else 18
    out = g.with_ints(op, x, since, "axes", axes, keepdims=int(keep))
    g.values.append((out, tuple(dims)))


def softmax(g: Graph, x: str, shape: Shape) -> None:
    axis = len(shape) - 1 if g.opset < 13 else g.rng.randrange(len(shape))
    g.add("Softmax", [x], shape, axis=g.axis(axis, len(shape)))


def clip(g: Graph, x: str, shape: Shape) -> None:
    low, high = g.rng.choice(((0.0, 6.0), (-1.0, 1.0), (0.0, 3.0), (0.5, 2.0)))
    for _ in range(g.rng.randint(1, 2)):
        if g.rng.random() < 0.4:
            g.add("Relu", [x], shape)
        elif g.opset < 11:
            g.add("Clip", [x], shape, min=low, max=high)
        else:
            bounds = [g.constant(np.float32(low)), g.constant(np.float32(high))]
            g.add("Clip", [x, *bounds], shape)
        x = g.values[-1][0]


def conditional(g: Graph, x: str, shape: Shape) -> None:
    """Both branches capture values of the graph around them."""
    branches = {}
    for name in ("then_branch", "else_branch"):
        out = g.name()
        node = helper.make_node(g.rng.choice(("Add", "Mul")), [x, g.like(shape)], [out])
        info = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
        branches[name] = helper.make_graph([node], name, [], [info])
    g.add("If", ["condition"], shape, **branches)


def hard_swish(g: Graph, x: str, shape: Shape) -> None:
    shifted = g.emit("Add", [x, g.constant(np.float32(3))])
    if g.opset < 11:
        gate = g.emit("Clip", [shifted], min=0.0, max=6.0)
    else:
        bounds = [g.constant(np.float32(0)), g.constant(np.float32(6))]
        gate = g.emit("Clip", [shifted, *bounds])
    g.add("Div", [g.emit("Mul", [x, gate]), g.constant(np.float32(6))], shape)


def layer_norm(g: Graph, x: str, shape: Shape) -> None:
    def mean(value: str) -> str:
        return g.with_ints("ReduceMean", value, 18, "axes", [len(shape) - 1], keepdims=1)

    centred = g.emit("Sub", [x, mean(x)])
    variance = mean(g.emit("Pow", [centred, g.constant(np.float32(2))]))
    root = g.emit("Sqrt", [g.emit("Add", [variance, g.constant(np.float32(1e-2))])])
    scaled = g.emit("Mul", [g.emit("Div", [centred, root]), g.weights(shape[-1])])
    g.add("Add", [scaled, g.weights(shape[-1])], shape)


def product(g: Graph, x: str, shape: Shape) -> None:
    columns = g.rng.randint(1, 4)
    if len(shape) == 2 and g.rng.random() < 0.6:
        turned = g.rng.random() < 0.5
        dims = (columns, shape[1]) if turned else (shape[1], columns)
        bias = g.weights(*g.rng.choice(((columns,), (1, columns), ())))
        alpha, beta = g.rng.choice((1.0, 0.5)), g.rng.choice((1.0, 2.0))
        inputs = [x, g.weights(*dims), bias]
        g.add("Gemm", inputs, (shape[0], columns), transB=int(turned), alpha=alpha, beta=beta)
    elif len(shape) > 1:
        g.add("MatMul", [x, g.weights(shape[-1], columns)], (*shape[:-1], columns))


def convolution(g: Graph, x: str, shape: Shape) -> None:
    batch, channels, *size = shape
    edges = [g.rng.randint(0, 1) for _ in range(4)]
    if g.rng.random() < 0.4:
        pads = [0, 0, *edges[:2], 0, 0, *edges[2:]]
        x = g.with_ints("Pad", x, 11, "pads", pads)
        size = [size[i] + edges[i] + edges[i + 2] for i in range(2)]
    group = g.rng.choice([q for q in {1, channels} if channels % q == 0])
    made = group * g.rng.randint(1, 2)
    kernel = g.rng.randint(1, min(3, *size))
    inputs = [x, g.weights(made, channels // group, kernel, kernel)]
    if g.rng.random() < 0.5:
        inputs.append(g.weights(made))
    g.add("Conv", inputs, (batch, made, *(d - kernel + 1 for d in size)), group=group)


def up_convolution(g: Graph, x: str, shape: Shape) -> None:
    batch, channels, *size = shape
    made = g.rng.randint(1, 2)
    inputs = [x, g.weights(channels, made, 2, 2)]
    g.add("ConvTranspose", inputs, (batch, made, *(d + 1 for d in size)))


def batch_norm(g: Graph, x: str, shape: Shape) -> None:
    parameters = [g.weights(shape[1]) for _ in range(3)]
    variance = g.constant(g.numbers.uniform(0.5, 2, shape[1]).astype(np.float32))
    g.add("BatchNormalization", [x, *parameters, variance], shape)


def pool(g: Graph, x: str, shape: Shape) -> None:
    if min(shape[2:]) > 1:
        dims = (*shape[:2], *(d - 1 for d in shape[2:]))
        g.add(g.rng.choice(("MaxPool", "AveragePool")), [x], dims, kernel_shape=[2, 2])


Step = Callable[[Graph, str, Shape], None]

ANY_RANK: tuple[Step, ...] = (
    *(unary, with_constant, with_constant, with_another, transpose, transpose, transposed_region),
    *(reshape, reshape_by_shape, squeeze, slices, gather, concat, reduce, softmax, clip),
    *(conditional, hard_swish, layer_norm, product),
)
IMAGES: tuple[Step, ...] = (convolution, convolution, up_convolution, batch_norm, batch_norm, pool)


def random_graph(seed: int) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The model of `seed`, and inputs for it."""
    rng = random.Random(seed)
    g = Graph(rng, np.random.default_rng(seed), rng.choice(OPSETS))
    for i in range(rng.randint(1, 2)):
        rank = rng.choice((2, 3, 4, 4, 4))
        g.values.append((f"x{i}", tuple(rng.choice((1, 2, 3, 4, 6)) for _ in range(rank))))
    inputs = list(g.values)
    for _ in range(rng.randint(4, 16)):
        images = rng.random() < 0.35
        picked = g.pick(4 if images else None)
        if picked and 0 < math.prod(picked[1]) < MAX_ELEMENTS and picked[1]:
            rng.choice(IMAGES if images else ANY_RANK)(g, *picked)
    if len(g.values) == len(inputs):
        unary(g, *inputs[0])
    made = g.values[len(inputs) :]
    outputs = [made[-1], *(v for v in made[:-1] if rng.random() < 0.12)]
    feeds: dict[str, Any] = {
        name: g.numbers.standard_normal(shape).astype(np.float32) for name, shape in inputs
    }
    infos = [_input(rng, name, shape) for name, shape in inputs]
    if any(n.op_type == "If" for n in g.nodes):
        infos.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
        feeds["condition"] = np.array(rng.random() < 0.5)
    graph = helper.make_graph(
        g.nodes,
        f"seed{seed}",
        infos,
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * len(shape))
            for name, shape in outputs
        ],
        g.initializers,
    )
    opset = [helper.make_opsetid("", g.opset)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8), feeds


def _input(rng: random.Random, name: str, shape: Shape) -> Any:
    """All dimensions fixed, the first one symbolic, or all of them."""
    symbolic = rng.choice((0, 0, 1, len(shape)))
    dims = [f"{name}_{i}" if i < symbolic else d for i, d in enumerate(shape)]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)

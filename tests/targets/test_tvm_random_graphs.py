"""Random graphs of what TVM takes, against ONNX Runtime: fusion and schedules as they come.

`INFC_GRAPHS=100:400 pytest -n0 tests/targets/test_tvm_random_graphs.py` runs the graphs of other
seeds. A graph that is wrong gets a test of its own, named after the bug.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from infc.signature import TensorSpec
from infc.targets import BuildJob, RunJob, Target, tvm

SEEDS = range(*map(int, os.environ.get("INFC_GRAPHS", "0:4").split(":")))
NODES = 14
TARGET = Target("tvm", "tvm", "")
TOLERANCE = 2e-5
"""Of the largest answer: a chain of fourteen operators in float32, summed in another order."""

ELEMENTWISE = (
    "Relu",
    "Sigmoid",
    "Tanh",
    "Neg",
    "Abs",
    "HardSwish",
    "Softplus",
    "Elu",
    "Erf",
    "Gelu",
)
BINARY = ("Add", "Sub", "Mul", "Max", "Min")


class Graph:
    """A graph that grows: values with their static shapes, float32 throughout."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        size = self.dice.choice((5, 8, 13))
        self.shapes = {"x": (1, self.dice.choice((3, 8, 16)), size, size + 3), "s": (4, 24)}
        for _ in range(NODES):
            self.dice.choice(STEPS)(self)

    def pick(self, rank: int = 0) -> str:
        """A value, of this rank if one is given; recent ones rather than old ones."""
        names = [n for n, s in self.shapes.items() if not rank or len(s) == rank]
        return self.dice.choice(names[-3:])

    def constant(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weights(self, *shape: int) -> str:
        spread = np.sqrt(np.prod(shape[1:]))
        return self.constant((self.numbers.standard_normal(shape) / spread).astype(np.float32))

    def add(self, op: str, inputs: list[str], shape: Any, **attributes: Any) -> None:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        self.shapes[name] = tuple(int(n) for n in shape)

    def model(self) -> onnx.ModelProto:
        read = {n for node in self.nodes for n in node.input}
        ends = [n for n in self.shapes if n not in read and n not in ("x", "s")]
        sides = [
            [helper.make_tensor_value_info(n, 1, self.shapes[n]) for n in names]
            for names in (("x", "s"), ends)
        ]
        graph = helper.make_graph(self.nodes, "random", *sides, self.constants)
        opsets = [helper.make_opsetid("", 20)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model


def elementwise(g: Graph) -> None:
    x = g.pick()
    g.add(g.dice.choice(ELEMENTWISE), [x], g.shapes[x])


def binary(g: Graph) -> None:
    x = g.pick()
    shape = g.shapes[x]
    same = [n for n, s in g.shapes.items() if s == shape]
    kept = [n if g.dice.random() < 0.5 else 1 for n in shape[g.dice.randrange(len(shape)) :]]
    other = g.dice.choice([g.dice.choice(same), g.weights(*kept)])
    g.add(g.dice.choice(BINARY), g.dice.sample([x, other], 2), shape)


def reduction(g: Graph) -> None:
    x = g.pick()
    shape = g.shapes[x]
    axis = g.dice.randrange(1, len(shape))
    op = g.dice.choice(("ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2"))
    out = [1 if i == axis else n for i, n in enumerate(shape)]
    g.add(op, [x, g.constant(np.array([axis], np.int64))], out)


def softmax(g: Graph) -> None:
    x = g.pick()
    g.add("Softmax", [x], g.shapes[x], axis=g.dice.randrange(1, len(g.shapes[x])))


def convolution(g: Graph) -> None:
    x = g.pick(4)
    n, c, h, w = g.shapes[x]
    k, s = g.dice.choice((1, 3)), g.dice.choice((1, 2))
    group = g.dice.choice((1, c))
    out = c if group == c else g.dice.choice((4, 10, 16))
    size = [(d + 2 * (k // 2) - k) // s + 1 for d in (h, w)]
    operands = [x, g.weights(out, c // group, k, k), g.weights(out)]
    attributes = {"group": group, "strides": [s, s], "pads": [k // 2] * 4}
    g.add("Conv", operands, (n, out, *size), kernel_shape=[k, k], **attributes)


def pooling(g: Graph) -> None:
    x = g.pick(4)
    n, c, h, w = g.shapes[x]
    op = g.dice.choice(("MaxPool", "AveragePool"))
    size = [(d - 1) // 2 + 1 for d in (h, w)]
    g.add(op, [x], (n, c, *size), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)


def product(g: Graph) -> None:
    x = g.pick()
    *rest, depth = g.shapes[x]
    columns = g.dice.choice((1, 7, 32))
    g.add("MatMul", [x, g.weights(depth, columns)], (*rest, columns))


def turn(g: Graph) -> None:
    x = g.pick()
    shape = g.shapes[x]
    order = [0, *g.dice.sample(range(1, len(shape)), len(shape) - 1)]
    g.add("Transpose", [x], [shape[i] for i in order], perm=order)


def join(g: Graph) -> None:
    x = g.pick()
    shape = g.shapes[x]
    axis = g.dice.randrange(len(shape))
    out = [2 * n if i == axis else n for i, n in enumerate(shape)]
    if np.prod(out) < 1 << 15:
        g.add("Concat", [x, x], out, axis=axis)


def part(g: Graph) -> None:
    x = g.pick()
    shape = g.shapes[x]
    axis = g.dice.randrange(len(shape))
    step = g.dice.choice((1, 2, -1))
    found = np.arange(shape[axis])[1::step] if step > 0 else np.arange(shape[axis])[::-1]
    if not found.size:
        return
    ends = (1, 1 << 40, axis, step) if step > 0 else (-1, -(1 << 40), axis, step)
    operands = [g.constant(np.array([n], np.int64)) for n in ends]
    out = [found.size if i == axis else n for i, n in enumerate(shape)]
    g.add("Slice", [x, *operands], out)


def pad(g: Graph) -> None:
    x = g.pick(4)
    shape = g.shapes[x]
    mode = g.dice.choice(("constant", "edge"))
    pads = g.constant(np.array([0, 0, 1, 0, 0, 1, 0, 2], np.int64))
    out = (shape[0], shape[1] + 1, shape[2] + 1, shape[3] + 2)
    g.add("Pad", [x, pads], out, mode=mode)


def resize(g: Graph) -> None:
    x = g.pick(4)
    n, c, h, w = g.shapes[x]
    out = (n, c, 2 * h, w + 1)
    if np.prod(out) < 1 << 15:
        mode = g.dice.choice(("nearest", "linear"))
        g.add("Resize", [x, "", "", g.constant(np.array(out, np.int64))], out, mode=mode)


def normalization(g: Graph) -> None:
    x = g.pick()
    width = g.shapes[x][-1]
    operands = [x, g.weights(width), g.weights(width)]
    g.add("LayerNormalization", operands, g.shapes[x], epsilon=1e-2)


def flat(g: Graph) -> None:
    x = g.pick()
    rows, rest = g.shapes[x][0], int(np.prod(g.shapes[x][1:]))
    g.add("Reshape", [x, g.constant(np.array([rows, rest], np.int64))], (rows, rest))


STEPS: tuple[Callable[[Graph], None], ...] = (
    *(elementwise, elementwise, binary, binary, reduction, softmax, convolution, convolution),
    *(pooling, product, turn, join, part, pad, resize, normalization, flat),
)


def specs(values: Any) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(v.name, "float32", tuple(d.dim_value for d in v.type.tensor_type.shape.dim))
        for v in values
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_graph(
    seed: int,
    tmp_path: Path,
    need_module: Callable[[str], None],
    need_tool: Callable[[str], str],
) -> None:
    need_module("tvm")
    need_tool("cc")
    graph = Graph(seed)
    model = graph.model()
    lowered = ir.from_proto(model)
    tvm.legalize(lowered, TARGET)
    ir.save(lowered, tmp_path / "in.onnx")
    assert tvm.check(tmp_path / "in.onnx", TARGET) == []
    (tmp_path / "model").mkdir()
    inputs, outputs = specs(model.graph.input), specs(model.graph.output)
    job = BuildJob(tmp_path / "in.onnx", tmp_path / "model", TARGET, inputs, outputs)
    entry = tmp_path / "model" / tvm.build(job).entry
    names = tuple(s.name for s in outputs), tuple(s.name for s in inputs)
    feeds = {s.name: graph.numbers.standard_normal(s.shape).astype(np.float32) for s in inputs}
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, feeds)
    for threads in (1, 3):
        answers = tvm.open(replace(RunJob(entry, TARGET, *names), threads=threads))(feeds)
        for name, right in zip(names[0], expected, strict=True):
            most = max(1.0, float(np.abs(right).max()))
            np.testing.assert_allclose(
                answers[name], right, rtol=0, atol=TOLERANCE * most, err_msg=name
            )

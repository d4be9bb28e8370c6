"""Nodes for the TorchScript lowerings, each with the inputs that tell a wrong one from a right one.

A case is `Case(op, inputs, attributes, opset)`. An input that is wrapped in `Const` is an
initializer; every case runs with fixed and with symbolic dimensions, and those with constants also
with the constants as inputs, so that both ways of reading them are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(7)


@dataclass(frozen=True)
class Const:
    value: Array


@dataclass(frozen=True)
class Case:
    op: str
    inputs: Sequence[Array | Const | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 20
    outputs: int = 1
    tolerance: float = 1e-5
    also_as_inputs: bool = True


def f(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def i64(*values: Any) -> Const:
    return Const(np.array(values, np.int64))


def vec(values: Any, dtype: Any = np.float32) -> Array:
    return np.array(values, dtype)


def elementwise() -> Iterator[Case]:
    positive = np.abs(f(2, 3)) + 0.5
    for op in (
        "Abs",
        "Ceil",
        "Cos",
        "Erf",
        "Exp",
        "Floor",
        "Neg",
        "Sigmoid",
        "Sign",
        "Sin",
        "Tanh",
    ):
        yield Case(op, [f(2, 3)])
    for op in ("Log", "Reciprocal", "Sqrt", "Softplus", "Softsign", "Acosh"):
        yield Case(op, [positive + 1])
    yield Case("Round", [vec([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.4999])])
    yield Case("Softplus", [vec([-50, -21, 0, 21, 50, 100])])
    for op in ("Add", "Sub", "Mul", "Div", "Max", "Min"):
        yield Case(op, [f(2, 1, 3), f(4, 1)])
        yield Case(op, [vec([7, -7, 7, -7], np.int64), vec([2, 2, -2, -2], np.int64)])
    yield Case("Sum", [f(2, 3), f(3), f(1, 1)])
    yield Case("Mean", [f(2, 3), f(3), f(1, 1)])
    signs = [vec([7, -7, 7, -7], np.int32), vec([3, 3, -3, -3], np.int32)]
    yield Case("Mod", signs)
    yield Case("Mod", signs, {"fmod": 1})
    yield Case("Mod", [vec([5.5, -5.5, 5.5]), vec([2.0, 2.0, -2.0])], {"fmod": 1})
    yield Case("Pow", [positive, f(2, 3)])
    yield Case("Pow", [positive, Const(vec(2.0))])
    yield Case("Pow", [positive, Const(vec([2], np.int64))])
    yield Case("Pow", [vec([2, 3, 4], np.int32), vec([2, 3, 0], np.int32)])
    yield Case("Pow", [vec([2, 3, 4], np.int64), vec([0.5, 1.5, 2.5])])
    yield Case(
        "BitShift", [vec([16, 4, 255], np.uint8), vec([1, 2, 3], np.uint8)], {"direction": "RIGHT"}
    )
    yield Case(
        "BitShift", [vec([16, 4, 255], np.uint8), vec([1, 2, 3], np.uint8)], {"direction": "LEFT"}
    )
    odd = vec([np.inf, -np.inf, np.nan, 1.0])
    yield Case("IsNaN", [odd])
    for negative in (0, 1):
        for above in (0, 1):
            yield Case("IsInf", [odd], {"detect_negative": negative, "detect_positive": above})
    for op in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"):
        yield Case(op, [vec([1, 2, 3]), vec([[3], [2]])])
    yield Case("Where", [vec([[True], [False]], bool), f(3), f(2, 1)])
    for op in ("And", "Or", "Xor"):
        yield Case(
            op, [vec([True, True, False, False], bool), vec([True, False], bool)[[0, 1, 0, 1]]]
        )


def activations() -> Iterator[Case]:
    x = f(2, 5) * 3
    for op, attributes in (
        ("Relu", {}),
        ("LeakyRelu", {}),
        ("LeakyRelu", {"alpha": 0.3}),
        ("Elu", {"alpha": 0.7}),
        ("Celu", {"alpha": 0.7}),
        ("Selu", {}),
        ("Selu", {"alpha": 1.1, "gamma": 2.0}),
        ("ThresholdedRelu", {"alpha": 0.4}),
        ("HardSigmoid", {}),
        ("HardSwish", {}),
        ("Mish", {}),
        ("HardSigmoid", {"alpha": 0.4, "beta": 0.1}),
        ("Gelu", {}),
        ("Gelu", {"approximate": "tanh"}),
        ("Shrink", {"lambd": 1.0, "bias": 0.5}),
    ):
        yield Case(op, [x], attributes)
    yield Case("PRelu", [f(2, 3, 4), Const(f(3, 1))])
    yield Case("PRelu", [f(2, 3, 4), Const(f(1))])
    for opset in (11, 20):
        for axis in (0, 1, 2, -1, -2):
            for op in ("Softmax", "LogSoftmax", "Hardmax"):
                yield Case(op, [f(2, 3, 4)], {"axis": axis}, opset)
        yield Case("Softmax", [f(2, 3, 4)], {}, opset)
    yield Case("Clip", [x], {"min": -1.0, "max": 1.0}, 9)
    yield Case("Clip", [x], {"min": 0.1}, 7)
    yield Case("Clip", [x, Const(vec(-1.0)), Const(vec(1.0))])
    yield Case("Clip", [x, None, Const(vec(1.0))])
    yield Case("Clip", [x, Const(vec(2.0)), Const(vec(1.0))])
    yield Case(
        "Clip", [vec([-9, 0, 9], np.int64), Const(vec(-3, np.int64)), Const(vec(4, np.int64))]
    )


def shapes() -> Iterator[Case]:
    x = f(2, 3, 4)
    yield Case("Reshape", [x, i64(0, -1)])
    yield Case("Reshape", [x, i64(4, 0, 2)])
    yield Case("Reshape", [f(0, 3), i64(3, 0)], {"allowzero": 1})
    yield Case("Transpose", [x])
    yield Case("Transpose", [x], {"perm": [1, 2, 0]})
    for axis in (-2, 0, 1, 3):
        yield Case("Flatten", [x], {"axis": axis})
    yield Case("Squeeze", [f(1, 2, 1)])
    yield Case("Squeeze", [f(1, 2, 1)], {"axes": [0]}, 11)
    yield Case("Squeeze", [f(1, 2, 1), i64(-1, 0)])
    yield Case("Unsqueeze", [x], {"axes": [3, 0]}, 11)
    yield Case("Unsqueeze", [x, i64(-1, 1)])
    yield Case("Unsqueeze", [x, i64(4, 0)])
    yield Case("Unsqueeze", [vec(3.0), i64(0)])
    yield Case("Expand", [f(3, 1), i64(2, 1, 4)])
    yield Case("Expand", [f(2, 3), i64(1)])
    yield Case("Tile", [f(2, 3), i64(2, 1)])
    yield Case("Shape", [x], {"start": -2})
    yield Case("Shape", [x], {"start": 1, "end": -1})
    yield Case("Shape", [x], {"start": -9, "end": 9})
    yield Case("Size", [x])
    yield Case("Range", [vec(1.0), vec(2.05), vec(0.1)], also_as_inputs=False)
    yield Case("Range", [vec(5, np.int64), vec(-4, np.int64), vec(-2, np.int64)])
    yield Case("Range", [vec(5, np.int32), vec(5, np.int32), vec(1, np.int32)])
    yield Case("Range", [vec(5, np.int32), vec(1, np.int32), vec(1, np.int32)])
    yield Case("EyeLike", [f(3, 4)], {"k": -1})
    yield Case("Trilu", [f(2, 3, 4)], {"upper": 0})
    yield Case("Trilu", [f(3, 3), Const(vec(1, np.int64))])
    for mode in ("DCR", "CRD"):
        yield Case("DepthToSpace", [f(1, 12, 2, 3)], {"blocksize": 2, "mode": mode}, 13)
    yield Case("SpaceToDepth", [f(2, 3, 4, 6)], {"blocksize": 2}, 13)
    yield Case("Concat", [f(2, 3), f(2, 1)], {"axis": -1})
    yield Case("CenterCropPad", [f(5, 2), i64(2, 5)], {}, 18)


def indices() -> Iterator[Case]:
    x = f(4, 5, 6)
    top = np.iinfo(np.int64).max
    low = np.iinfo(np.int64).min
    yield Case("Slice", [x], {"starts": [1, -3], "ends": [top, -1], "axes": [0, 2]}, 9)
    yield Case("Slice", [x], {"starts": [1], "ends": [3]}, 7)
    yield Case("Slice", [x, i64(0), i64(top), i64(1), i64(2)])
    yield Case("Slice", [x, i64(-1), i64(low), i64(-1), i64(-1)])
    yield Case("Slice", [x, i64(3), i64(0), i64(2), i64(-2)])
    yield Case("Slice", [x, i64(100), i64(-100), i64(1), i64(-3)])
    yield Case("Slice", [x, i64(4), i64(2)])
    yield Case("Slice", [x, i64(-100, 1), i64(2, 100)])
    yield Case("Split", [x], {"axis": 1, "split": [2, 3]}, 11, outputs=2)
    yield Case("Split", [x, i64(1, 2, 3)], {"axis": -1}, 13, outputs=3)
    yield Case("Split", [x], {"axis": 1, "num_outputs": 3}, 18, outputs=3)
    yield Case("Split", [x], {"axis": 0}, 11, outputs=2)
    yield Case("Pad", [x], {"pads": [0, 1, 0, 1, -1, 2], "value": 0.5}, 10)
    for mode in ("constant", "edge", "reflect", "wrap"):
        yield Case("Pad", [f(3, 4), i64(1, 2, 0, 3)], {"mode": mode}, 19)
        yield Case("Pad", [f(3, 4), i64(2, 1), None, i64(-1)], {"mode": mode}, 19)
    yield Case("Pad", [f(3, 4), i64(-1, 1, 0, -2), Const(vec(1.5))])
    yield Case("Pad", [vec([[1, 2]], np.int64), i64(0, 1, 0, 1), Const(vec(-3, np.int64))])
    yield Case("Gather", [x, vec([[0, -1], [2, 1]], np.int64)], {"axis": 1})
    yield Case("Gather", [x, i64(1, 3)], {"axis": -1})
    yield Case("Gather", [x, Const(vec(-2, np.int64))], {"axis": 1})
    yield Case("Gather", [x, Const(vec([[-2]], np.int32))])
    yield Case("GatherElements", [f(3, 3), vec([[0, -1], [2, 1]], np.int64)], {"axis": 1})
    yield Case("GatherND", [x, vec([[0, -1], [3, 1]], np.int64)])
    yield Case(
        "GatherND", [x, vec([[[0, -1]], [[3, 1]], [[0, 0]], [[1, 2]]], np.int64)], {"batch_dims": 1}
    )
    for mode in ("none", "add", "mul", "max", "min"):
        yield Case(
            "ScatterElements",
            [f(3, 3), vec([[0, -1, 1]], np.int64), f(1, 3)],
            {"axis": 1, "reduction": mode},
            18,
        )
        yield Case(
            "ScatterND",
            [x, vec([[0, 1], [-1, 2], [1, 1]], np.int64), f(3, 6)],
            {"reduction": mode},
            18,
        )
    ties = vec([[3, 1, 3, 2, 3], [0, 0, 0, 0, 0]])
    for largest in (0, 1):
        yield Case("TopK", [ties, i64(3)], {"largest": largest}, outputs=2)
        yield Case("TopK", [ties, i64(2)], {"largest": largest, "axis": 0}, outputs=2)
    yield Case("TopK", [f(3, 6)], {"k": 2, "axis": 1}, 9, outputs=2)
    yield Case("OneHot", [vec([0, -1, 5, 2], np.int64), Const(vec(3, np.int64)), vec([9.0, 1.0])])
    yield Case("OneHot", [vec([[0, 2]], np.int64), i64(3), vec([0, 7], np.int64)], {"axis": 0})
    yield Case("Compress", [x, vec([False, True, True], bool)], {"axis": 1})
    yield Case("Compress", [f(2, 3), vec([False, True, True, False, True], bool)])
    yield Case("NonZero", [vec([[1, 0], [3, 4]])])
    yield Case("ReverseSequence", [f(4, 3, 2), vec([1, 4, 2], np.int64)])
    for ordered in (0, 1):
        yield Case("Unique", [vec([2, 1, 1, 3, 2, 0])], {"sorted": ordered}, outputs=4)


def reductions() -> Iterator[Case]:
    x = f(2, 3, 4)
    for op in (
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSumExp",
        "ReduceSumSquare",
    ):
        attribute_opset = 11
        yield Case(op, [x], {"axes": [0, -1]}, attribute_opset)
        yield Case(op, [x], {"keepdims": 0}, attribute_opset)
        yield Case(op, [x, i64(1)], {"keepdims": 0}, 18)
        yield Case(op, [x, i64(-1, 0)], {}, 18)
        yield Case(op, [x], {}, 18)
        yield Case(op, [x, i64()], {"noop_with_empty_axes": 0}, 18)
    yield Case("ReduceLogSum", [np.abs(x), i64(1)], {}, 18)
    for op in ("ReduceSum", "ReduceMax", "ReduceProd"):
        yield Case(op, [vec([[1, 2, 3]], np.int32), i64(1)], {}, 18)
    yield Case("ReduceMean", [vec([[1, 2, 4], [-1, -2, -4]], np.int32), i64(1)], {}, 18)
    ties = vec([[1, 3, 3], [2, 2, 0]])
    for op in ("ArgMax", "ArgMin"):
        for last in (0, 1):
            for axis in (0, -1):
                yield Case(op, [ties], {"axis": axis, "select_last_index": last, "keepdims": last})
        yield Case(op, [ties], {}, 11)
    for exclusive in (0, 1):
        for reverse in (0, 1):
            yield Case(
                "CumSum",
                [f(3, 4), Const(vec(-1, np.int64))],
                {"exclusive": exclusive, "reverse": reverse},
            )


def convolutions() -> Iterator[Case]:
    w = Const(f(4, 3, 3, 3))
    for attributes in (
        {},
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 1, 2, 0], "strides": [2, 1]},
        {"dilations": [2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 3]},
        {"auto_pad": "SAME_LOWER", "strides": [3, 2]},
        {"auto_pad": "VALID"},
    ):
        yield Case("Conv", [f(2, 3, 9, 10), w, Const(f(4))], attributes)
    yield Case("Conv", [f(1, 4, 5, 5), Const(f(6, 2, 1, 1))], {"group": 2})
    yield Case("Conv", [f(2, 3, 8), Const(f(4, 3, 3))], {"pads": [2, 0]})
    yield Case("Conv", [f(1, 2, 4, 5, 4), Const(f(3, 2, 2, 2, 2))], {"strides": [1, 2, 1]})
    w = Const(f(3, 4, 3, 3))
    for attributes in (
        {},
        {"pads": [1, 1, 1, 1], "strides": [2, 2]},
        {"pads": [1, 0, 0, 2], "strides": [2, 3]},
        {"strides": [2, 2], "output_padding": [1, 1]},
        {"dilations": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"output_shape": [10, 9], "strides": [2, 2]},
        {"pads": [1, 0, 0, 1], "output_padding": [1, 0], "strides": [2, 2]},
    ):
        yield Case("ConvTranspose", [f(2, 3, 4, 4), w, Const(f(4))], attributes, tolerance=1e-4)
    yield Case("ConvTranspose", [f(1, 4, 5), Const(f(4, 3, 3))], {"group": 2, "strides": [2]})


def pools() -> Iterator[Case]:
    x = f(2, 3, 9, 10)
    base = {"kernel_shape": [3, 2]}
    for attributes in (
        {},
        {"strides": [2, 2]},
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 1, 2, 0]},
        {"strides": [2, 3], "ceil_mode": 1},
        {"strides": [2, 3], "ceil_mode": 1, "pads": [1, 0, 1, 0]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "VALID"},
        {"strides": [4, 4], "ceil_mode": 1, "pads": [0, 0, 1, 1]},
        {"dilations": [2, 2]},
        {"dilations": [2, 1], "ceil_mode": 1, "strides": [3, 3]},
    ):
        yield Case("MaxPool", [x], {**base, **attributes}, 12)
        if "dilations" in attributes:
            yield Case("AveragePool", [x], {**base, **attributes}, 19)
            continue
        for include in (0, 1):
            words = {**base, **attributes, "count_include_pad": include}
            yield Case("AveragePool", [x], words, 19)
        yield Case("LpPool", [x], {**base, **attributes, "p": 3}, 18, tolerance=1e-4)
    yield Case("AveragePool", [x], {**base, "pads": [1, 1, 1, 1], "strides": [2, 2]}, 7)
    yield Case("MaxPool", [x], {"kernel_shape": [2, 2], "strides": [2, 2]}, 12, outputs=2)
    yield Case(
        "MaxPool",
        [x],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "storage_order": 1},
        12,
        outputs=2,
    )
    yield Case("MaxPool", [f(2, 3, 9)], {"kernel_shape": [3], "strides": [2]}, 12, outputs=2)
    yield Case("MaxPool", [f(1, 2, 4, 5, 6)], {"kernel_shape": [2, 2, 2]}, 12)
    yield Case(
        "AveragePool", [f(1, 2, 7)], {"kernel_shape": [3], "strides": [2], "ceil_mode": 1}, 19
    )
    yield Case(
        "MaxPool",
        [RNG.integers(-128, 127, (1, 2, 6, 6)).astype(np.int8)],
        {"kernel_shape": [2, 2]},
        12,
    )
    for op in ("GlobalAveragePool", "GlobalMaxPool"):
        yield Case(op, [f(2, 3, 4, 5)])
    yield Case("GlobalLpPool", [f(2, 3, 4, 5)], {"p": 3})


def norms() -> Iterator[Case]:
    positive = Const(np.abs(f(3)) + 0.5)
    for opset in (7, 9, 14, 15):
        yield Case(
            "BatchNormalization",
            [f(2, 3, 4), Const(f(3)), Const(f(3)), Const(f(3)), positive],
            {"epsilon": 0.01},
            opset,
        )
    yield Case("InstanceNormalization", [f(2, 3, 4, 5), Const(f(3)), Const(f(3))])
    yield Case("LayerNormalization", [f(2, 3, 4), Const(f(4)), Const(f(4))], {}, 17)
    yield Case("LayerNormalization", [f(2, 3, 4), Const(f(3, 4))], {"axis": 1}, 17, outputs=3)
    yield Case("LayerNormalization", [f(2, 3, 4), Const(f(4)), Const(f(4))], {"axis": -2}, 17)
    yield Case("GroupNormalization", [f(2, 4, 5), Const(f(4)), Const(f(4))], {"num_groups": 2}, 21)
    for p in (1, 2):
        yield Case("LpNormalization", [f(2, 3, 4)], {"p": p, "axis": 1})
    for size in (3, 5):
        yield Case("LRN", [f(2, 6, 3, 4)], {"size": size, "alpha": 0.9, "beta": 0.6, "bias": 2.0})


def products() -> Iterator[Case]:
    yield Case("MatMul", [f(2, 1, 3, 4), f(5, 4, 2)])
    yield Case("MatMul", [f(4), f(3, 4, 2)])
    yield Case("MatMul", [f(3, 4), f(4)])
    for transpose_b in (0, 1):
        b = Const(f(5, 4) if transpose_b else f(4, 5))
        yield Case("Gemm", [f(3, 4), b, Const(f(5))], {"transB": transpose_b})
        yield Case("Gemm", [f(3, 4), b, Const(f(3, 1))], {"transB": transpose_b, "beta": 0.5})
        yield Case("Gemm", [f(4, 3), b], {"transA": 1, "transB": transpose_b, "alpha": 2.0})
        yield Case("Gemm", [f(3, 4), b, Const(f(1))], {"transB": transpose_b})
        yield Case("Gemm", [f(3, 4), b, Const(vec(0.5))], {"transB": transpose_b})
    yield Case("Einsum", [f(2, 3, 4), f(2, 4, 5)], {"equation": "bij, bjk -> bik"})
    yield Case("Einsum", [f(2, 3, 3)], {"equation": "...ii->...i"})


def recurrents() -> Iterator[Case]:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}
    for op, g in gates.items():
        outputs = 3 if op == "LSTM" else 2
        for direction in ("forward", "reverse", "bidirectional"):
            d = 2 if direction == "bidirectional" else 1
            weights = [Const(f(d, g * 5, 3)), Const(f(d, g * 5, 5)), Const(f(d, 2 * g * 5))]
            base = {"hidden_size": 5, "direction": direction}
            lengths = vec([4, 2], np.int32)
            states = [f(d, 2, 5)] * (2 if op == "LSTM" else 1)
            yield Case(op, [f(4, 2, 3), *weights], base, 14, outputs, also_as_inputs=False)
            yield Case(op, [f(4, 2, 3), *weights[:2]], base, 7, outputs)
            yield Case(
                op,
                [f(4, 2, 3), *weights, lengths, *states],
                base,
                14,
                outputs,
                also_as_inputs=False,
            )
            yield Case(
                op, [f(4, 2, 3), *weights, None, *states], {**base, "clip": 0.7}, 14, outputs
            )
            if op == "GRU":
                yield Case(op, [f(4, 2, 3), *weights], {**base, "linear_before_reset": 1}, 14, 2)
                yield Case(
                    op,
                    [f(4, 2, 3), *weights, lengths, *states],
                    {**base, "linear_before_reset": 1},
                    14,
                    2,
                )
            names = {
                "LSTM": ["HardSigmoid", "Softsign", "Relu"],
                "GRU": ["HardSigmoid", "LeakyRelu"],
                "RNN": ["Relu"],
            }[op]
            yield Case(
                op, [f(4, 2, 3) * 0.2, *weights], {**base, "activations": names * d}, 14, outputs
            )
        if op == "LSTM":
            w = [Const(f(1, 20, 3)), Const(f(1, 20, 5)), Const(f(1, 40))]
            tail = [None, f(1, 2, 5), f(1, 2, 5), Const(f(1, 15))]
            yield Case(op, [f(4, 2, 3), *w, *tail], {"hidden_size": 5}, 14, 3)


def resizes() -> Iterator[Case]:
    x = f(1, 2, 5, 6)
    sizes = i64(1, 2, 7, 4)
    for mode in ("nearest", "linear", "cubic"):
        for transform in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
            words = {"mode": mode, "coordinate_transformation_mode": transform}
            yield Case("Resize", [x, None, None, sizes], words, 13, tolerance=1e-4)
            yield Case("Resize", [x, None, Const(vec([1, 1, 2, 3]))], words, 13, tolerance=1e-4)
            if transform != "align_corners":
                yield Case(
                    "Resize", [x, None, Const(vec([1, 1, 0.6, 1.7]))], words, 13, tolerance=1e-4
                )
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        for transform in ("half_pixel", "asymmetric"):
            words = {"nearest_mode": rounding, "coordinate_transformation_mode": transform}
            yield Case("Resize", [x, None, Const(vec([1, 1, 2, 0.5]))], words, 13)
            yield Case("Resize", [x, None, Const(vec([1, 1, 3, 2]))], words, 13)
    yield Case("Resize", [x, None, Const(vec([2, 0.5]))], {"mode": "linear", "axes": [2, 3]}, 18)
    yield Case(
        "Resize",
        [x, None, Const(vec([1, 1, 0.6, 0.6]))],
        {"mode": "linear", "antialias": 1},
        18,
        tolerance=1e-4,
    )
    yield Case(
        "Resize",
        [x, None, Const(vec([1, 1, 2, 2]))],
        {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
        13,
        tolerance=1e-4,
    )
    yield Case(
        "Resize", [x, Const(vec([1, 1, 2, 3]))], {"mode": "nearest"}, 10, also_as_inputs=False
    )
    yield Case("Resize", [x, Const(vec([1, 1, 2, 3]))], {"mode": "linear"}, 10)
    yield Case(
        "Upsample", [x, Const(vec([1, 1, 2, 3]))], {"mode": "nearest"}, 9, also_as_inputs=False
    )
    yield Case("Upsample", [x], {"mode": "linear", "scales": [1.0, 1.0, 2.0, 2.0]}, 7)
    grid = (RNG.random((1, 3, 4, 2)) * 2.4 - 1.2).astype(np.float32)
    for mode in ("bilinear", "nearest", "bicubic"):
        for padding in ("zeros", "border", "reflection"):
            for align in (0, 1):
                yield Case(
                    "GridSample",
                    [x, grid],
                    {"mode": mode, "padding_mode": padding, "align_corners": align},
                    16,
                    tolerance=1e-4,
                )


def casts() -> Iterator[Case]:
    numbers = vec([-2.7, -1.0, -0.2, 0.0, 0.2, 1.5, 99.9])
    for to in (1, 3, 5, 6, 7, 9, 10, 11):
        yield Case("Cast", [numbers], {"to": to})
    yield Case("Cast", [vec([1, 300, 128, 255], np.int32)], {"to": 2})
    yield Case("Cast", [vec([1, 300, 128, 255], np.int64)], {"to": 3})
    yield Case("Cast", [vec([True, False], bool)], {"to": 1})
    yield Case("CastLike", [numbers, vec([1], np.int64)])


def quantized() -> Iterator[Case]:
    x = vec([-300.0, -1.5, -0.5, 0.5, 1.5, 2.5, 300.0])
    for zero in (vec(3, np.uint8), vec(-3, np.int8)):
        yield Case("QuantizeLinear", [x, Const(vec(1.0)), Const(zero)], {}, 13)
        q = RNG.integers(0, 100, (2, 3)).astype(zero.dtype)
        yield Case("DequantizeLinear", [q, Const(vec(0.5)), Const(zero)], {}, 13)
    zeros = Const(vec([1, 2, 3], np.uint8))
    yield Case("QuantizeLinear", [f(2, 3, 4), Const(vec([0.1, 0.2, 0.3])), zeros], {"axis": 1}, 13)
    yield Case(
        "DequantizeLinear",
        [RNG.integers(0, 99, (2, 3, 4)).astype(np.uint8), Const(vec([0.1, 0.2, 0.3])), zeros],
        {"axis": -2},
        13,
    )
    yield Case("DynamicQuantizeLinear", [f(3, 4)], {}, 13, outputs=3)
    a, b = (RNG.integers(0, 255, s).astype(np.uint8) for s in ((3, 4), (4, 5)))
    yield Case("MatMulInteger", [a, b, Const(vec(12, np.uint8)), Const(vec(7, np.uint8))])
    image, kernel = (RNG.integers(0, 255, s).astype(np.uint8) for s in ((1, 2, 5, 5), (3, 2, 3, 3)))
    yield Case(
        "ConvInteger",
        [image, Const(kernel), Const(vec(12, np.uint8)), Const(vec(7, np.uint8))],
        {"pads": [1, 1, 1, 1]},
    )
    scale, zero = Const(vec(0.02)), Const(vec(120, np.uint8))
    yield Case(
        "QLinearConv",
        [image, scale, zero, Const(kernel), scale, zero, Const(vec(0.1)), zero],
        {"pads": [1, 1, 1, 1]},
        10,
        also_as_inputs=False,
    )
    yield Case("QLinearMatMul", [a, scale, zero, b, scale, zero, Const(vec(0.1)), zero], {}, 10)


def detections() -> Iterator[Case]:
    corners = RNG.random((2, 20, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + RNG.random((2, 20, 2)).astype(np.float32)], 2)
    scores = RNG.random((2, 3, 20)).astype(np.float32)
    for center in (0, 1):
        yield Case(
            "NonMaxSuppression",
            [boxes, scores, i64(6), Const(vec([0.3])), Const(vec([0.4]))],
            {"center_point_box": center},
            11,
        )
    yield Case("NonMaxSuppression", [boxes, scores, i64(2)], {}, 11)
    rois = vec([[0, 0, 4, 4], [1.3, 2.2, 7.9, 6.1]])
    for ratio in (0, 2):
        words = {
            "output_height": 3,
            "output_width": 2,
            "sampling_ratio": ratio,
            "spatial_scale": 0.5,
        }
        yield Case("RoiAlign", [f(2, 3, 6, 7), rois, vec([0, 1], np.int64)], words, 10)
        yield Case("RoiAlign", [f(2, 3, 6, 7), rois, vec([0, 1], np.int64)], words, 16)


FAMILIES = {
    name: tuple(cases())
    for name, cases in (
        ("elementwise", elementwise),
        ("activations", activations),
        ("shapes", shapes),
        ("indices", indices),
        ("reductions", reductions),
        ("convolutions", convolutions),
        ("pools", pools),
        ("norms", norms),
        ("products", products),
        ("recurrents", recurrents),
        ("resizes", resizes),
        ("casts", casts),
        ("quantized", quantized),
        ("detections", detections),
    )
}

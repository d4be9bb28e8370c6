"""Which ONNX operators the parsers of TensorRT 10.3, 10.16 and 11.4 take, and in which types.

A graph for a GPU that is not here is held to this table: the engine is built much later, on a
device, and what its parser refuses there should have been refused here.

Source: onnx-tensorrt, docs/operators.md of 10.1 (release/10.1-GA, commit 96e7811; what 10.3 has
beyond it is in docs/Changelog.md) and of 10.15 (February 2026, the last that is public; the
changelog has nothing about operators since). 11.4: those, and what the parser of TensorRT for RTX
1.7, which is made of the same sources, says of itself (`OnnxParser.supports_operator`). Opsets: the
same pages, and the ONNX Opset Guide of the TensorRT 11 documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from infc.targets.tensorrt_conditions import (
    Condition,
    attention,
    constant,
    first_output_only,
    lstm,
    pool,
    quantization,
    rank_of_first,
    reduced_axes,
    resize,
    same_pads,
    scatter,
    static_first,
    stft,
    top_k,
    training,
)

TYPES: Mapping[str, ir.DataType] = {
    "f": ir.DataType.FLOAT,
    "h": ir.DataType.FLOAT16,
    "b": ir.DataType.BFLOAT16,
    "i": ir.DataType.INT32,
    "l": ir.DataType.INT64,
    "t": ir.DataType.BOOL,
    "u": ir.DataType.UINT8,
    "8": ir.DataType.INT8,
}

_FLOATS = """
Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose
Cos Cosh CumSum Dropout Einsum Elu Erf Exp Floor GRU Gelu Gemm GlobalAveragePool GlobalLpPool
GlobalMaxPool GroupNormalization HardSigmoid HardSwish Hardmax InstanceNormalization IsInf LRN LSTM
LayerNormalization LeakyRelu Log LogSoftmax LpNormalization LpPool MatMul MaxPool
MeanVarianceNormalization PRelu QuantizeLinear RNN RMSNormalization RandomNormal RandomNormalLike
RandomUniform RandomUniformLike Reciprocal Resize RotaryEmbedding Round Scan Selu Sigmoid Sin Sinh
Softmax Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Upsample Attention
"""
_NUMBERS = """
Abs Add ArgMax ArgMin DepthToSpace Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual Max Mean
Min Mod Mul Neg Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Scatter ScatterElements ScatterND Shrink Sign
SpaceToDepth Sub Sum TopK
"""
_ANYTHING = """
Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND Identity If
Loop OneHot Reshape ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze
Where
"""
_TABLE = {
    "fhb": _FLOATS,
    "fh": "DeformConv GridSample Mish NonMaxSuppression NonZero RoiAlign",
    "f": "STFT",
    "fhbil": _NUMBERS,
    "fhbi": "TensorScatter",
    "fhbilt": _ANYTHING,
    "fhbiltu": "Cast CastLike",
    "il": "BlackmanWindow HammingWindow HannWindow",
    "t": "And Not Or Xor",
    "8": "DequantizeLinear",
}
OPERATORS: Mapping[str, str] = {
    name: types for types, names in _TABLE.items() for name in names.split()
}
"""Operator -> the letters of the types that it is taken in, by the last release that there is."""

UNTYPED = frozenset(("If", "Loop", "Scan", "ConstantOfShape", "Where", "Constant"))
"""The type is not that of the first input, or there is none."""

CONDITIONS: Mapping[str, Condition] = {
    "Attention": attention,
    "AveragePool": pool,
    "CumSum": constant(1, "its axis"),
    "DequantizeLinear": quantization,
    "DeformConv": same_pads,
    "Dropout": training,
    "EyeLike": static_first,
    "GridSample": rank_of_first(4),
    "LSTM": lstm,
    "LayerNormalization": first_output_only,
    "LpPool": pool,
    "MaxPool": pool,
    "OneHot": constant(1, "its depth"),
    "QuantizeLinear": quantization,
    "Resize": resize,
    "STFT": stft,
    "ScatterND": scatter,
    "Squeeze": constant(1, "its axes"),
    "TopK": top_k,
    "Unsqueeze": constant(1, "its axes"),
    **{name: reduced_axes for name in OPERATORS if name.startswith("Reduce")},
}
"""What else is asked of a node; each returns a reason against it, or ""."""


@dataclass(frozen=True, slots=True)
class Release:
    """A line of releases: the greatest opset, and the operators that later ones have and it not."""

    opset: int
    lacks: frozenset[str] = frozenset()
    conditions: Mapping[str, Condition] = field(default_factory=dict)


_LATER_THAN_10_3 = frozenset(
    (
        "Attention",
        "BlackmanWindow",
        "HammingWindow",
        "HannWindow",
        "RMSNormalization",
        "RotaryEmbedding",
        "STFT",
        "Swish",
        "TensorScatter",
    )
)
RELEASES: Mapping[str, Release] = {
    "10.3": Release(20, _LATER_THAN_10_3, {"Pad": constant(3, "its axes")}),
    "10.16": Release(24, frozenset(("Swish",))),
    "11.4": Release(25),
}
LATEST = "11.4"


def taken(release: str) -> frozenset[str]:
    """The operators that the parser of `release` takes in some form."""
    return frozenset(OPERATORS) - RELEASES[release].lacks

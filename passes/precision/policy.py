"""What a reduced precision means to each operator: data, with the reason beside it."""

from __future__ import annotations


def _named(words: str) -> frozenset[str]:
    return frozenset(words.split())


HEAVY = _named("Conv ConvTranspose DeformConv MatMul Gemm Einsum Attention LSTM GRU RNN")
"""Operators that are worth two casts of their own."""

MOVEMENT = _named(
    "Concat DepthToSpace Expand Flatten Gather GatherElements GatherND Identity Pad Reshape "
    "ReverseSequence ScatterElements ScatterND Slice SpaceToDepth Split Squeeze Tile Transpose "
    "Unsqueeze Where Cast CastLike Compress Dropout"
)
"""Operators that compute nothing: alone, they are not worth a cast."""

_RANDOM = "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Multinomial"
_SPECTRAL = "DFT STFT MelWeightMatrix HannWindow HammingWindow BlackmanWindow"
_INTEGER = (
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul ConvInteger "
    "MatMulInteger"
)
FLOAT32 = {
    **dict.fromkeys(_RANDOM.split(), "its random numbers would be others"),
    **dict.fromkeys(_SPECTRAL.split(), "a spectrum spans more than the type holds"),
    **dict.fromkeys(_INTEGER.split(), "its scales are float32"),
    **dict.fromkeys(
        ("InstanceNormalization", "MeanVarianceNormalization", "LpNormalization"),
        "its variance is summed in the type of its input",
    ),
    **dict.fromkeys(("CumSum", "CumProd"), "its running total is rounded at every step"),
    **dict.fromkeys(("Range", "AffineGrid", "RoiAlign", "MaxRoiPool"), "it computes coordinates"),
    **dict.fromkeys(("Sin", "Cos", "Tan"), "a rounded phase is another phase"),
    "Det": "its terms cancel",
    "ConstantOfShape": "it is a constant",
}
"""Operators that stay in float32 on every back end, and why."""

FLOAT32_INPUTS = frozenset((("Resize", 1), ("Resize", 2), ("GridSample", 1)))
"""Inputs that are coordinates: float32 also where the schema allows less."""

PHASES = frozenset(("Sin", "Cos", "Tan", "Range", "AffineGrid"))
"""What feeds these through elementwise arithmetic stays in float32."""

ELEMENTWISE = MOVEMENT | _named(
    "Abs Add Ceil Clip Div Floor Max Min Mod Mul Neg Pow Reciprocal Round Sign Sqrt Sub"
)
"""Cheap operators that coordinates are computed with."""

REDUCTIONS = {
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceL1", "ReduceLogSum"), 1),
    **dict.fromkeys(("ReduceL2", "ReduceSumSquare"), 2),
    "GlobalAveragePool": 1,
    "GlobalLpPool": 2,
}
"""Operators that add the n-th powers of many elements up."""

MAX_TERMS = 2048
"""A float16 total of 2048 does not change any more when 1 is added."""

ASSUMED_PEAK = 16.0
"""Of the terms of a sum whose range was not measured: a normalised activation seldom passes it."""

SINGULAR = {"Div": 1, "Sqrt": 0, "Reciprocal": 0, "Log": 0, "Pow": 0}
"""Inputs near whose zero the result explodes: float32 after an epsilon that float16 lacks."""

BOUNDED = _named(
    "Softmax Sigmoid HardSigmoid Tanh Erf Sign Softsign Hardmax LayerNormalization "
    "RMSNormalization InstanceNormalization GroupNormalization"
)
"""Operators whose result is small whatever comes in."""

EXTREMES = frozenset(("Clip", "Max", "Min"))
"""A constant bound beyond the greatest finite value does what that value does."""

ANY_TYPE = ("Shape", "Size", "NonZero", "IsNaN", "IsInf")
"""Operators that read any type as it is, and give none of it on."""

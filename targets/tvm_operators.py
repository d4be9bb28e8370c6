"""The operators of ONNX that TVM 0.27's importer converts, and a static plan can hold.

Not among them, though it has a converter: what gives sequences, optionals or text, and what has
other shapes with other values (NonZero, Unique, Compress, NonMaxSuppression).
"""

from __future__ import annotations

from fnmatch import fnmatchcase

TAKES = frozenset(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization
    BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Clip Concat Constant
    ConstantOfShape Conv ConvTranspose Cos Cosh CumProd CumSum DepthToSpace DequantizeLinear Div
    DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather
    GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
    GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity
    InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax LpPool MatMul MatMulInteger Max MaxPool MaxRoiPool MaxUnpool Mean
    MeanVarianceNormalization Min Mish Mod Mul Neg Not OneHot Or PRelu Pad Pow QuantizeLinear
    RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
    ReverseSequence RoiAlign Round Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid
    Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum
    Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
    """.split()  # noqa: SIM905
)

WRITTEN_OUT = frozenset(
    """
    AffineGrid Attention CausalConvWithState Celu CenterCropPad Dropout GRU LSTM LinearAttention
    LpNormalization NegativeLogLikelihoodLoss RNN RotaryEmbedding SoftmaxCrossEntropyLoss SwiGLU
    Swish TensorScatter
    """.split()  # noqa: SIM905
)
"""Operators that become others before TVM sees them."""
KNOWN = TAKES | WRITTEN_OUT
IN_HALVES = frozenset(
    """
    Abs Add BatchNormalization Cast Clip Concat Conv DepthToSpace Expand Flatten Gather Gemm
    Identity LeakyRelu MatMul Max MaxPool Min Mul Neg PRelu Pad Relu Reshape Slice SpaceToDepth
    Split Squeeze Sub Tile Transpose Unsqueeze Where
    """.split()  # noqa: SIM905
)
"""Operators that are computed in float16 where a processor can. The rest is float32 between two
conversions, which are a part of the kernel: sums of many terms, and what has an exponential."""

REASONS = {
    "If|Loop|Scan": "control flow has no place in a static plan",
    "NonZero|Unique|NonMaxSuppression|Compress": "how much it gives depends on values",
    "Bernoulli|Multinomial|Random*": "there are no random numbers in a static plan",
    "Dropout": "in training mode it draws random numbers",
    "*Sequence*": "there are no sequences in a static plan",
    "Optional*": "there are no optional values in a static plan",
    "String*|Regex*|TfIdf*|ImageDecoder": "it is about text or files",
    "LSTM|GRU|RNN": "its steps have to be fixed, and no more than 1024; without clip, "
    "input_forget, or activations other than Sigmoid, Tanh, Relu, Softsign, Softplus",
    "LpNormalization|CastLike": "its shapes have to be fixed",
}
"""Why an operator is not among them, by patterns of names."""


def reason_against(domain: str, op_type: str) -> str:
    """Why an operator that is not in `TAKES` is not."""
    for names, reason in REASONS.items():
        if not domain and any(fnmatchcase(op_type, name) for name in names.split("|")):
            return reason
    return "there is no converter for it"

"""The INT8 schemes: what each back end computes in integers, and how it wants Q/DQ for that.

Found out, not read: from the graphs that ONNX Runtime 1.31 (session-optimised) and OpenVINO 2026.4
(`get_runtime_model()`, execution precision) make of each pattern, and from the least time of a
run, one thread, on an x86 CPU with AVX-512 VNNI. ResNet-18 (rn) and MobileNetV2 (mb) have their
shapes and 224 x 224 inputs, random weights; SQNR is that of the outputs.

                          rn ms   rn dB   mb ms   mb dB
    ONNX Runtime float    20.4            4.87
      u8 asymmetric        5.8    43.6    2.66    45.2
      s8 asymmetric       19.0    43.8    4.67    45.3   Conv + Relu left in float
      s8 symmetric        17.4    35.4    11.2    38.9   Conv + Relu left in float
    OpenVINO float        19.8            4.75
      u8, one branch       5.4    44.3    2.13    46.4
      u8, both branches    5.6    44.1    2.14    43.9
      s8 symmetric         6.2    38.1    2.50    37.7

7 bits of weight (`reduce_range`) cost 2.6 dB on ultraface and are not needed where the CPU has
VNNI; AVX2 alone saturates without them.

Neither runs an LSTM, GRU or RNN with Q/DQ in integers: ONNX Runtime dequantises the weights on
every run (0.042 ms against 0.027 ms), OpenVINO refuses them.
"""

from __future__ import annotations

from infc.diagnostics import fail
from infc.quantization import Scheme
from infc.targets import BackEnd

MOVERS = frozenset(
    (
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "MaxPool",
        "ReduceMax",
        "Reshape",
        "Resize",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    )
)
"""What moves values about or picks some of them, in integers in both: Pad, Tile and SpaceToDepth
are in neither. Of Resize only `nearest`; both interpolate in float."""

ONNXRUNTIME = Scheme(
    "onnxruntime",
    operators=MOVERS
    | {"Conv", "Gemm", "MatMul"}
    # QLinearSigmoid and QLinearMul after a Conv take 10.2 ms where Sigmoid and Mul in float take
    # 16.6 (MobileNetV2's shape with SiLU); Tanh, HardSigmoid, HardSwish, PRelu have no such.
    | {"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid"},
    # Not Concat: QLinearConcat rescales each input, and a zero point other than 0 after a Relu
    # leaves Conv + Relu in float.
    shared=MOVERS,
    # Conv becomes QLinearConv only between DQ and Q. Gemm and MatMul give float as well (QGemm,
    # MatMulIntegerToFloat), and so one rounding less where float is wanted.
    requantized=frozenset(("Conv",)),
    # A Relu or Clip goes where the zero point stands for it. Any other activation between Conv
    # and Q leaves Conv in float.
    absorbed=frozenset(("Relu", "Clip")),
    # A Gemm, or MatMul + Add, whose bias is float stays in float: 0.23 ms against 0.02 ms.
    bias="int32",
    # QLinearAdd takes both inputs in integers; with one of them it stays in float.
    residual="both",
    # Flatten between DQ and Gemm hides the one from the other.
    repeated=True,
    # Least ms of a 3 x 3 convolution by 2 that gives 112 x 112, and a 1 x 1 after it, of 32
    # channels each: all in integers 0.41, 0.52, 0.34, 0.35 for 1, 3, 4, 8 input channels, the first
    # one in float 0.26, 0.36, 0.37, 0.51.
    least_channels=4,
)

OPENVINO = Scheme(
    "openvino",
    operators=MOVERS
    | {"Conv", "ConvTranspose", "Gemm", "MatMul"}
    | {"Add", "AveragePool", "Concat", "GlobalAveragePool", "GlobalMaxPool", "Mul", "ReduceMean"},
    # Concatenation is of integers only where all have one scale.
    shared=MOVERS | {"Concat", "GlobalMaxPool"},
    # Computed in the registers of the convolution, in float32, before its result is rounded.
    absorbed=frozenset(
        (
            "Clip",
            "Elu",
            "Gelu",
            "HardSigmoid",
            "HardSwish",
            "LeakyRelu",
            "Mish",
            "Relu",
            "Sigmoid",
            "Swish",
            "Tanh",
        )
    ),
    # Added to the integer sums in float32: an int32 bias is only a coarser one.
    bias="float",
    # The branch that a convolution computes is not rounded before it is added.
    residual="one",
    # MatMul of two activations is in float where either has a zero point.
    products="symmetric",
    # A second pair is a pass over the tensor where its zero point is not 0.
    repeated=False,
)

TVM = Scheme(
    "tvm",
    operators=MOVERS - {"Resize", "ReduceMax"}
    | {"Conv", "Gemm", "MatMul"}
    | {"Add", "AveragePool", "Concat", "GlobalAveragePool", "Mul", "ReduceMean"},
    shared=MOVERS - {"Resize", "ReduceMax"} | {"Concat"},
    # infc's own lowering fuses what is elementwise into the kernel before it, in float32.
    absorbed=OPENVINO.absorbed,
    bias="float",
    residual="one",
    products="float",
    repeated=False,
)
"""What `targets/tvm_lowering/integers.py` makes of it; int8 beside uint8, where the processor
multiplies int8 by int8, is the same with zero points moved by 128."""

TENSORRT = Scheme(
    "tensorrt",
    operators=MOVERS
    | {"Conv", "ConvTranspose", "Gemm", "MatMul"}
    | {"Add", "AveragePool", "Concat", "GlobalAveragePool"},
    shared=MOVERS | {"Concat"},
    activation="int8",
    symmetric=True,
    absorbed=OPENVINO.absorbed,
    bias="float",
    residual="one",
    products="activation",
    repeated=False,
)
"""Read, not measured. INT8 is symmetric, activations per tensor, weights per output channel; bias
and residual stay out of Q/DQ on the side that a convolution computes (NVIDIA TensorRT developer
guide, "Working with quantized types": explicit quantisation, Q/DQ placement recommendations)."""


SCHEMES = {scheme.name: scheme for scheme in (ONNXRUNTIME, OPENVINO, TENSORRT, TVM)}
"""By name."""


def named(name: str) -> Scheme:
    """The scheme called `name`.

    Raises:
        InfcError: E110 where there is none.
    """
    if name not in SCHEMES:
        listed = ", ".join(f"`{known}`" for known in SCHEMES)
        raise fail("E110", f"there is no scheme `{name}`", help=f"there are {listed}")
    return SCHEMES[name]


def scheme_of(end: BackEnd) -> Scheme | None:
    """What `end` declares as its `SCHEME`; None where Q/DQ is not how it comes by INT8."""
    declared: Scheme | None = getattr(end, "SCHEME", None)
    return declared

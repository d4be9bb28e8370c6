"""What calibration, the quantiser and the back ends say to each other about INT8.

A *scheme* is a back end's: which integers, how fine, which operators. A *range* is a tensor's:
what its values lie between, chosen by calibration. Affine quantisation, ONNX QuantizeLinear (opset
10, per-channel from 13):

    q = saturate(round(x / scale) + zero_point)        x ~ (q - zero_point) * scale

Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", 2018 (arXiv:1712.05877).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

INTEGERS = {"uint8": (0, 255), "int8": (-128, 127)}
"""Least and greatest integer of each type."""


@dataclass(frozen=True, slots=True)
class Range:
    """What the values of a tensor lie between, in real units; always contains 0."""

    low: float
    high: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", min(float(self.low), 0.0))
        object.__setattr__(self, "high", max(float(self.high), 0.0))


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a back end wants Q/DQ written.

    `activation` and `weight` name integer types; a symmetric one has zero point 0 (int8) or 128
    (uint8). Weights are quantised per output channel where `per_channel`, and to 7 bits where
    `reduce_range` (integer dot products without VNNI saturate). `bias` is "int32"
    (DequantizeLinear of scale input x weight) or "float".

    `operators` are quantised; any other stays in float. Conv, ConvTranspose, Gemm and MatMul
    always are, the others where integers come in and integers are wanted: they save no arithmetic.
    `shared` operators pass integers through: their inputs and outputs have one scale, and Q/DQ is
    `repeated` after them or not. After those in `requantized` a Q is needed for them to run in
    integers at all; `absorbed` activations come between, at no cost.

    `residual` says which inputs of an Add carry Q/DQ: "both", or "one" (the other branch is added
    by the convolution that gives it, before it is rounded). `products` says how a MatMul of two
    activations is quantised: "activation" (as everything is), "symmetric" (no zero point on
    either side: uint8 for what is never negative, else int8) or "float" (not at all).

    A convolution that reads an input of the graph of fewer channels than `least_channels` stays in
    float where it gives many positions: the back end's float kernel is the faster one there.
    """

    name: str
    operators: frozenset[str]
    shared: frozenset[str] = frozenset()
    activation: str = "uint8"
    symmetric: bool = False
    weight: str = "int8"
    per_channel: bool = True
    reduce_range: bool = False
    bias: str = "int32"
    residual: str = "both"
    absorbed: frozenset[str] = frozenset(("Relu", "Clip"))
    requantized: frozenset[str] = frozenset()
    products: str = "activation"
    repeated: bool = True
    least_channels: int = 1


@dataclass(frozen=True, slots=True)
class QuantizedTensor:
    """The affine map of one tensor: `dtype` is uint8 or int8, `scale` in real units per step."""

    dtype: str
    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class QuantizationRecord:
    """What the quantiser did.

    `quantized` and `kept` name nodes, `kept` with the reason why each stays in float; `tensors`
    are the activations that became integers. `already` is set for a model that came quantised,
    of which nothing was touched.
    """

    scheme: str
    quantized: tuple[str, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)
    tensors: Mapping[str, QuantizedTensor] = field(default_factory=dict)
    already: bool = False

"""What calibration, the quantiser and the back ends say to each other about INT8.

A *scheme* is a back end's: which integers, how fine, which operators. A *range* is a tensor's:
what its values lie between, chosen by calibration. Affine quantisation, ONNX QuantizeLinear (opset
10, per-channel from 13):

    q = saturate(round(x / scale) + zero_point)        x ~ (q - zero_point) * scale

Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", 2018 (arXiv:1712.05877).
"""

from __future__ import annotations

from dataclasses import dataclass

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
    `reduce_range` (integer dot products without VNNI saturate). `operators` are quantised; any
    other stays in float. `bias` is "int32" (DequantizeLinear of scale input x weight) or "float".
    `residual` says which inputs of an Add carry Q/DQ: "both", or "one" (TensorRT fuses the other
    branch into its convolution). `shared` operators pass integers through: their inputs and
    outputs have one scale.
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

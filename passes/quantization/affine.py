"""Scales, zero points and rounded weights.

Asymmetric:  scale = (high - low) / (qmax - qmin),  zero_point = round(qmin - low / scale)
Symmetric:   scale = max(|low|, |high|) / qmax',    zero_point = 0 (int8) or 128 (uint8)

Scales are float32 and every bound is checked in float32, as the runtimes do: ONNX Runtime removes
a Clip(0, 6) before a Q only where 255 steps are not above 6 by more than one unit in the last
place.

Source: ONNX QuantizeLinear-13; B. Jacob et al., arXiv:1712.05877.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infc.passes.rewriting import Array
from infc.quantization import INTEGERS, QuantizedTensor, Range, Scheme

EVERYTHING = (-math.inf, math.inf)
SMALLEST_SCALE = 2.0**-60
"""Below it a product of two scales comes near the smallest normal float32, 2**-126."""
BIAS_STEPS = 2.0**30
"""A bias has at most this many steps: a sum of products must still fit beside it in int32."""
FINE_BIAS_STEPS = 2.0**23
"""The steps of a bias whose weights are all zero, and so say nothing of the scale: float32's."""


def affine(
    span: Range,
    scheme: Scheme,
    *,
    bounds: tuple[float, float] = EVERYTHING,
    symmetric: bool = False,
) -> QuantizedTensor:
    """The map of an activation that lies in `span`.

    What is represented is kept inside `bounds`, those of a Relu or Clip that the integers are to
    stand for. `symmetric` asks for a zero point of 0 whatever the scheme says: uint8 where `span`
    has no negative number, else int8.
    """
    low, high = max(span.low, bounds[0]), min(span.high, bounds[1])
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        dtype = "int8" if low < 0 else "uint8"
        largest = max(-low, high)
        return QuantizedTensor(dtype, _scale(largest / INTEGERS[dtype][1]), 0)
    least, greatest = INTEGERS[scheme.activation]
    if scheme.symmetric:
        zero = 0 if scheme.activation == "int8" else 128
        scale = max(-low, high) / (greatest - zero)
        return QuantizedTensor(scheme.activation, _scale(scale), zero)
    scale = _scale((high - low) / (greatest - least))
    zero = int(np.clip(round(least - low / scale), least, greatest))
    scale = _inside(scale, least - zero, greatest - zero, bounds)
    return QuantizedTensor(scheme.activation, scale, zero)


def _scale(scale: float) -> float:
    """The float32 next to `scale`; 1 for a tensor of zeros."""
    return float(np.float32(max(scale, SMALLEST_SCALE))) if scale > 0 else 1.0


def _inside(scale: float, least: int, greatest: int, bounds: tuple[float, float]) -> float:
    """The largest float32 up to `scale` of which `least` and `greatest` steps keep to `bounds`."""
    for steps, bound in ((least, bounds[0]), (greatest, bounds[1])):
        if steps and math.isfinite(bound) and bound and steps * scale / bound > 1:
            scale = float(np.float32(bound / steps))
            while np.float32(steps) * np.float32(scale) / np.float32(bound) > 1:
                scale = float(np.nextafter(np.float32(scale), np.float32(0)))
    return scale


@dataclass(frozen=True, slots=True)
class Weights:
    """`integers` has the shape of the weights; `scale` () or (channels,), float32."""

    integers: Array
    scale: Array

    def error(self, weights: Array, axis: int | None) -> Array:
        """What rounding added to `weights`: same shape, float32."""
        return dequantized(self.integers, self.scale, axis) - weights


def weights(
    array: Array,
    axis: int | None,
    scheme: Scheme,
    *,
    input_scale: float = 1.0,
    bias: Array | None = None,
) -> Weights:
    """`array` rounded, per channel along `axis` where that is not None and the scheme says so.

    The scale of a channel of zeros or of very small weights is raised so that its `bias`, which
    has the scale input x weight, fits its int32.
    """
    greatest = 63 if scheme.reduce_range else INTEGERS["int8"][1]
    per_channel = axis is not None and scheme.per_channel
    others = tuple(i for i in range(array.ndim) if i != axis) if per_channel else None
    largest = np.abs(array).max(axis=others, initial=0).astype(np.float64)
    floor = np.full_like(largest, SMALLEST_SCALE)
    steps = np.where(largest > 0, BIAS_STEPS, FINE_BIAS_STEPS)
    if bias is not None and bias.size:
        size = np.abs(bias).astype(np.float64)
        size = size if per_channel and size.size == largest.size else size.max()
        floor = np.maximum(floor, size / (steps * input_scale))
    scale = np.maximum(largest / greatest, floor)
    scale = np.where((largest > 0) | (floor > SMALLEST_SCALE), scale, 1.0).astype(np.float32)
    spread = scale if not per_channel else scale.reshape(_along(axis or 0, array.ndim))
    integers = np.clip(np.rint(array / spread), -greatest, greatest).astype(np.int8)
    return Weights(integers, scale)


def dequantized(integers: Array, scale: Array, axis: int | None) -> Array:
    """`integers` in real units, float32."""
    spread = (
        scale.reshape(_along(axis, integers.ndim)) if axis is not None and scale.ndim else scale
    )
    return integers.astype(np.float32) * spread


def _along(axis: int, rank: int) -> Sequence[int]:
    return [-1 if i == axis else 1 for i in range(rank)]

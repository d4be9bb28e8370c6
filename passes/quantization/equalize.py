"""Cross-layer equalisation: channels of a per-tensor scale brought to the same size.

    y = W2 f(W1 x + b1)    ->    y = (W2 S) f(S^-1 W1 x + S^-1 b1)        S diagonal, S > 0

for an f with f(s x) = s f(x) where s > 0: none, Relu, LeakyRelu, and pooling. A power of two for
each channel, so that the float function stays what it was to the last bit.

Rounded per output channel, W1 does not feel S; what comes between has one scale for all channels
and does, and so do the columns of W2. Whether a pair gains is computed, for inputs of variance 1:

    error(S) = sum over o, i of (Q(W2 S) - W2 S)[o, i]**2 (|W1[i]|**2 + b1[i]**2) / S[i]**2
             + sum over o, i of (W2 S)[o, i]**2 step(S)**2 / 12
    step(S)  = max over i of (3 |W1[i]| + |b1[i]|) / S[i] / 255

and the S of least error is taken, of those that weigh the ranges of rows and columns differently
(the paper's is their geometric mean), where it is clearly less than without. The first of a pair
is no depthwise convolution: each of its channels sees one input alone, and of what size that is
the weights do not tell. SQNR in dB, ONNX Runtime's scheme, min-max:

                        without      as here      depthwise first too
    ultraface RFB-320   44.4, 52.9   45.4, 54.3   45.4, 54.3
    ultraface slim-320  41.7, 51.6   43.5, 54.0   42.5, 52.8
    FastestDet classes  12.7         13.0         11.4

Source: M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
2019 (arXiv:1906.04721), section 4.1; the weighing is that of G. Xiao et al., "SmoothQuant", 2022
(arXiv:2211.10438).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from infc.passes.quantization.placement import is_quantized
from infc.passes.quantization.units import name_of
from infc.passes.rewriting import (
    Array,
    attribute,
    const_tensor,
    elements,
    given,
    is_op,
    sole_consumer,
)

HOMOGENEOUS = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
WEIGHINGS = (0.5, 0.75, 1.0)
"""How much the rows of W1 say, and how little the columns of W2: 0.5 is the paper's."""
CLEARLY = 0.8
"""The part of the error that must be left at most for a pair to be rewritten."""
WIDEST = 8
"""A channel is scaled by at most 2**WIDEST."""
LEVELS, STEPS = 127, 255


@dataclass(frozen=True, slots=True)
class _Pair:
    """The weights around C channels.

    `rows`: (C, ...), what gives a channel, with its `bias`; `columns`: (C, outputs, ...), what
    reads it. `grouped` where each output reads one channel only: (C, 1, ...) then.
    """

    first: ir.Node
    second: ir.Node
    rows: Array
    bias: Array
    columns: Array
    grouped: bool


def equalize(model: ir.Model) -> tuple[tuple[str, str], ...]:
    """Rescale in place the pairs that gain by it; return the names of their nodes.

    The float function of `model` stays the same. To be run before calibration: it changes the
    ranges of what lies between.
    """
    if is_quantized(model):
        return ()
    done = []
    for node in model.graph:
        pair = _pair(node)
        if pair is None:
            continue
        exponents = _best(pair)
        if exponents is not None:
            _apply(pair, exponents)
            done.append((name_of(pair.first), name_of(pair.second)))
    return tuple(done)


def _pair(first: ir.Node) -> _Pair | None:
    """`first` and what reads it, where nothing else does and both have weights of their own."""
    if not is_op(first, "Conv", "Gemm") or not _plain(first) or attribute(first, "group", 1) != 1:
        return None
    second = sole_consumer(first.outputs[0])
    while is_op(second, *HOMOGENEOUS) and second is not None and len(second.outputs) == 1:
        second = sole_consumer(second.outputs[0])
    if second is None or second.op_type != first.op_type or not is_op(second, "Conv", "Gemm"):
        return None
    w1, w2 = _own_weight(first, 1), _own_weight(second, 1)
    b1 = given(first, 2)
    if w1 is None or w2 is None or not _plain(second) or second.inputs[0] is b1:
        return None
    if b1 is not None and _own_weight(first, 2) is None:
        return None
    rows = elements(w1) if _output_axis(first) == 0 else elements(w1).T
    channels = rows.shape[0]
    bias = np.zeros(channels) if b1 is None else elements(_tensor(b1)).reshape(-1)
    columns = elements(w2) if _output_axis(second) == 0 else elements(w2).T
    group = int(attribute(second, "group", 1)) if second.op_type == "Conv" else 1
    grouped = group == channels and columns.shape[1] == 1 and columns.shape[0] == channels
    if bias.size != channels or not (grouped or (group == 1 and columns.shape[1] == channels)):
        return None
    if not all(np.isfinite(a).all() for a in (rows, bias, columns)):
        return None
    wide = columns if grouped else np.swapaxes(columns, 0, 1)
    return _Pair(first, second, rows, bias, wide, grouped)


def _plain(node: ir.Node) -> bool:
    """Whether a Gemm multiplies what it reads as it stands."""
    return node.op_type != "Gemm" or (
        not attribute(node, "transA", 0)
        and attribute(node, "alpha", 1.0) == 1.0
        and attribute(node, "beta", 1.0) == 1.0
    )


def _output_axis(node: ir.Node) -> int:
    return 1 if node.op_type == "Gemm" and not attribute(node, "transB", 0) else 0


def _own_weight(node: ir.Node, index: int) -> ir.TensorProtocol | None:
    """A float32 initializer that no other node reads."""
    value = given(node, index)
    tensor = const_tensor(value)
    if value is None or not value.is_initializer() or tensor is None or len(value.uses()) != 1:
        return None
    return tensor if tensor.dtype == ir.DataType.FLOAT else None


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    tensor = const_tensor(value)
    if tensor is None:
        raise ValueError(f"`{value.name}` is not a constant")
    return tensor


def _best(pair: _Pair) -> Array | None:
    """The exponents of two, (C,) int, of the S to apply; None where no S is clearly better."""
    channels = pair.rows.shape[0]
    row = np.abs(pair.rows).reshape(channels, -1).max(axis=1)
    column = np.abs(pair.columns).reshape(channels, -1).max(axis=1)
    alive = (row > 0) & (column > 0)
    if not alive.any():
        return None
    logs = np.log2(np.where(alive, row, 1)), np.log2(np.where(alive, column, 1))
    best, least = None, CLEARLY * _error(pair, np.zeros(channels, np.int64))
    for weighing in WEIGHINGS:
        wanted = weighing * logs[0] - (1 - weighing) * logs[1]
        wanted = wanted - np.median(wanted[alive])
        exponents = np.clip(np.rint(wanted), -WIDEST, WIDEST).astype(np.int64)
        exponents[~alive] = 0
        error = _error(pair, exponents)
        if error < least:
            best, least = exponents, error
    return best


def _error(pair: _Pair, exponents: Array) -> float:
    """error(S) of the module's docstring."""
    channels = exponents.size
    scale = np.ldexp(1.0, exponents)
    columns = pair.columns.reshape(*pair.columns.shape[:2], -1).astype(np.float64)
    columns = columns * scale[:, None, None]
    # Of a grouped convolution every channel is an output, else they are the second axis.
    axes = (1, 2) if pair.grouped else (0, 2)
    largest = np.abs(columns).max(axis=axes, keepdims=True)
    step = np.where(largest > 0, largest, 1) / LEVELS
    rounding = (np.rint(columns / step) * step - columns) ** 2
    size = (pair.rows.reshape(channels, -1).astype(np.float64) ** 2).sum(axis=1)
    energy = (size + pair.bias.astype(np.float64) ** 2) / scale**2
    spread = (3 * np.sqrt(size) + np.abs(pair.bias)) / scale
    noise = (spread.max() / STEPS) ** 2 / 12
    return float((rounding.sum(axis=(1, 2)) * energy).sum() + noise * (columns**2).sum())


def _apply(pair: _Pair, exponents: Array) -> None:
    scale = np.ldexp(np.float32(1), exponents).astype(np.float32)
    _rescale(pair.first, 1, 1 / scale, _output_axis(pair.first))
    if given(pair.first, 2) is not None:
        _rescale(pair.first, 2, 1 / scale, -1)
    axis = 0 if pair.grouped else 1 - _output_axis(pair.second)
    _rescale(pair.second, 1, scale, axis)


def _rescale(node: ir.Node, index: int, scale: Array, axis: int) -> None:
    value = node.inputs[index]
    if value is None:
        return
    array = elements(_tensor(value))
    along = [1] * array.ndim
    along[axis] = -1
    value.const_value = ir.tensor(
        np.ascontiguousarray(array * scale.reshape(along), np.float32), name=value.name
    )

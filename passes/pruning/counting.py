"""Parameters and multiply-accumulates of a graph.

Conv             N O (I / group) k... H' W'       ConvTranspose  N I (O / group) k... H W
Gemm, MatMul     M K N, for each matrix           LSTM, GRU, RNN S B gates (I + H)
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx_ir as ir

from infc.passes.rewriting import FLOATS, const_tensor, dims, given, graphs

ROUNDS = 8
"""Shapes that are computed of shapes are known after a few."""


def parameters(model: ir.Model) -> int:
    """The elements of all floating constants of more than one element."""
    total = 0
    for graph in graphs(model):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype in FLOATS and tensor.size > 1:
                total += int(tensor.size)
        for node in graph:
            if node.op_type == "Constant" and not node.domain:
                tensor = const_tensor(node.outputs[0])
                if tensor is not None and tensor.dtype in FLOATS and tensor.size > 1:
                    total += int(tensor.size)
    return total


def macs(model: ir.Model, sizes: Mapping[str, int]) -> int | None:
    """Multiply-accumulates of a run; None where a size is unknown.

    `sizes` are those of the dynamic dimensions. Bodies of loops and branches are not counted.
    """
    found = _total(model, sizes)
    return _total(_sized(model, sizes), {}) if found is None else found


def _total(model: ir.Model, sizes: Mapping[str, int]) -> int | None:
    total = 0
    for node in model.graph:
        if node.domain or node.op_type not in _COUNTED:
            continue
        shapes = [_sizes(value, sizes) for value in (*node.inputs[:2], node.outputs[0])]
        if node.op_type in ("LSTM", "GRU", "RNN"):
            shapes[2] = _sizes(given(node, 2), sizes)
        if any(shape is None for shape in shapes):
            return None
        x, w, y = (shape or () for shape in shapes)
        total += _COUNTED[node.op_type](x, w, y)
    return total


def _sized(model: ir.Model, sizes: Mapping[str, int]) -> ir.Model:
    """A clone whose inputs have these sizes, with the shapes that follow from them."""
    from infc.passes.fold_shapes import FoldShapes
    from infc.passes.infer_shapes import InferShapes

    clone = model.clone()
    for value in clone.graph.inputs:
        shape = _sizes(value, sizes)
        if shape is not None:
            value.shape = ir.Shape(shape)
    for node in clone.graph:
        for value in node.outputs:
            value.shape = None
    for _ in range(ROUNDS):
        InferShapes()(clone)
        if not FoldShapes()(clone).modified:
            break
    return clone


def _sizes(value: ir.Value | None, known: Mapping[str, int]) -> tuple[int, ...] | None:
    shape = dims(value)
    if value is None or shape is None:
        return None
    found = []
    for place, dim in enumerate(shape):
        if isinstance(dim, int):
            found.append(dim)
            continue
        symbol = value.shape[place] if value.shape is not None else None
        number = _evaluated(symbol, known) if isinstance(symbol, ir.SymbolicDim) else None
        if number is None:
            return None
        found.append(number)
    return tuple(found)


def _evaluated(dim: ir.SymbolicDim, known: Mapping[str, int]) -> int | None:
    if dim.value is None:
        return None
    if dim.value in known:
        return known[dim.value]
    try:
        number = dim.evaluate(known)
    except Exception:
        # A name that sympy cannot read, or one that is not known.
        return None
    return number if isinstance(number, int) else None


Sizes = tuple[int, ...]


def _conv(x: Sizes, w: Sizes, y: Sizes) -> int:
    return math.prod(y) * math.prod(w[1:])


def _conv_transpose(x: Sizes, w: Sizes, y: Sizes) -> int:
    return math.prod(x) * math.prod(w[1:])


def _matmul(a: Sizes, b: Sizes, y: Sizes) -> int:
    return math.prod(y) * a[-1]


def _recurrent(x: Sizes, w: Sizes, r: Sizes) -> int:
    return x[0] * x[1] * (math.prod(w) + math.prod(r))


def _gemm(a: Sizes, b: Sizes, y: Sizes) -> int:
    # With transA the shared size is the first of a: it is all of a but the rows of y.
    return math.prod(a) // max(1, y[0]) * math.prod(y)


_COUNTED = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}

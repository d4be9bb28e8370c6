"""Linear operators with constant weights, rebuilt with other weights and another bias.

    y = w x + b   ->   y = (w * factor) x' + b'

Weights are multiplied in float64 and rounded once, to their own type; the bias is float64 until it
is written. A result that does not fit the type is refused.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    SMALL_BYTES,
    Array,
    Edit,
    const_array,
    given,
    kept,
    recomputed,
    weights,
)


def rebuild(
    node: ir.Node, y: ir.Value, x: ir.Value | None, factor: Array, bias: Array, edit: Edit | None
) -> bool:
    """Give `y` by `node` with its weights times `factor` and this bias, reading `x`.

    Without an `edit` nothing is changed: the answer is whether it could be done.
    """
    w = weights(given(node, 1))
    if w is None or not np.isfinite(factor).all() or not np.isfinite(bias).all():
        return False
    narrow = np.asarray(factor, np.float64)
    scaled = (
        w if (narrow == 1).all() else recomputed(w, tensor_dims(w), lambda a: _scaled(a, narrow))
    )
    zero = ir.tensor(np.ascontiguousarray(bias, np.float64).astype(w.dtype.numpy()), dtype=w.dtype)
    if scaled is None or not np.isfinite(zero.numpy().astype(np.float64)).all():
        return False
    if edit is None:
        return True
    old_w, old_b = node.inputs[1], given(node, 2)
    new_w = old_w if scaled is w else edit.constant(scaled, f"{base_name(old_w)}_folded", node)
    inputs = [x, new_w]
    if bias.any() or old_b is not None:
        hint = f"{base_name(old_b)}_folded" if old_b is not None else f"{base_name(y)}_bias"
        inputs.append(edit.constant(zero, hint, node))
    op_type, attributes = node.op_type, kept(node)
    if op_type == "Gemm":
        attributes = kept(node, "beta")
    elif op_type == "MatMul" and len(inputs) == 3:
        op_type = "Gemm"
    edit.replace(y, op_type, inputs, attributes)
    return True


def _scaled(a: Array, factor: Array) -> Array:
    """`a * factor` in float64, rounded to the type of `a` on the way: no float64 copy is made."""
    out: Array = np.empty(np.broadcast_shapes(a.shape, factor.shape), a.dtype)
    return np.multiply(a, factor, out=out, dtype=np.float64, casting="unsafe")


def own_weights(node: ir.Node) -> ir.TensorProtocol | None:
    """The weights, unless they are large and other nodes need them as they are."""
    value = given(node, 1)
    w = weights(value)
    if w is None or value is None or (len(value.uses()) > 1 and w.nbytes > SMALL_BYTES):
        return None
    return w


def bias_of(value: ir.Value | None, channels: int) -> Array | None:
    """The bias, float64, (channels,), zeros where there is none; None where it is not constant."""
    if value is None:
        return np.zeros(channels)
    array = const_array(value)
    if array is None or array.shape != (channels,):
        return None
    return array.astype(np.float64)


def tensor_dims(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """The shape as plain numbers."""
    return tuple(int(n) for n in tensor.shape.numpy())


def base_name(value: ir.Value | None) -> str:
    """The name of a constant, as it was before it was first folded into."""
    name = (value.name if value is not None else None) or "weight"
    return name.removesuffix("_folded")

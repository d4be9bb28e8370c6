"""Constants, their types and their elements; weights that a rewrite computes anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]

SMALL_BYTES = 1 << 20
"""Constants read to decide a rewrite (axes, scalars, biases) are not larger than this."""

WEIGHT_BYTES = 1 << 29
"""A weight larger than this is never rewritten."""

LAZY_BYTES = 1 << 22
"""A rewritten weight larger than this is computed when the model is saved, and not kept."""

FLOATS = frozenset(
    (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
)


def const_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor behind an initializer or a Constant node, unless a caller may override it."""
    if value is None or value.is_graph_input():
        return None
    if value.is_initializer():
        return value.const_value
    node = value.producer()
    if node is None or node.op_type != "Constant" or node.domain:
        return None
    attr = next(iter(node.attributes.values()), None)
    if attr is None or attr.is_ref() or len(node.attributes) != 1:
        return None
    if attr.name == "value":
        return attr.as_tensor()
    if attr.name in ("value_float", "value_floats"):
        return ir.tensor(np.array(attr.value, np.float32))
    if attr.name in ("value_int", "value_ints"):
        return ir.tensor(np.array(attr.value, np.int64))
    return None


def const_array(value: ir.Value | None, max_bytes: int = SMALL_BYTES) -> Array | None:
    """The elements of a constant that is not a string and not larger than `max_bytes`."""
    tensor = const_tensor(value)
    if tensor is None or tensor.dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED):
        return None
    return tensor.numpy() if tensor.nbytes <= max_bytes else None


def scalar_of(value: ir.Value | None) -> float | int | bool | None:
    """The one element of a constant of any rank, as a Python number."""
    tensor = const_tensor(value)
    if tensor is None or tensor.size != 1 or tensor.dtype == ir.DataType.STRING:
        return None
    number = tensor.numpy().reshape(())
    return number.item() if number.dtype.kind in "fiub" else float(number)


def dtype_of(value: ir.Value | None) -> ir.DataType | None:
    """The element type, where it is known."""
    if value is None:
        return None
    if value.dtype is not None:
        return value.dtype
    tensor = const_tensor(value)
    return tensor.dtype if tensor is not None else None


def weights(value: ir.Value | None) -> ir.TensorProtocol | None:
    """A constant that a rewrite may recompute: floating point and not larger than WEIGHT_BYTES."""
    tensor = const_tensor(value)
    if tensor is None or tensor.dtype not in FLOATS or tensor.nbytes > WEIGHT_BYTES:
        return None
    return tensor


def elements(tensor: ir.TensorProtocol) -> Array:
    """The elements of a tensor; a big one is read from its file, not mapped.

    The pages of a map that were touched stay resident as long as the tensor lives: with weights
    of 2 GB that are all rewritten, 1.6 GB of them.
    """
    if (
        not isinstance(tensor, ir.ExternalTensor)
        or tensor.nbytes <= SMALL_BYTES
        or tensor.dtype.bitwidth < 8
    ):
        return tensor.numpy()
    dtype = tensor.dtype.numpy()
    array = np.fromfile(
        tensor.path, dtype.newbyteorder("<"), tensor.size, offset=tensor.offset or 0
    )
    return array.reshape(tensor.shape.numpy())


def recomputed(
    tensor: ir.TensorProtocol,
    shape: Sequence[int],
    compute: Callable[[Array], Array],
) -> ir.TensorProtocol | None:
    """`compute(tensor)` in float32 or wider, rounded back to the type of `tensor`.

    Big tensors are computed when they are read, so that a large model is never in memory whole.
    None where a finite number would overflow its type.
    """
    dtype = tensor.dtype

    def evaluate() -> Array:
        wide = elements(tensor)
        if dtype != ir.DataType.DOUBLE:
            wide = wide.astype(np.float32, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.ascontiguousarray(compute(wide).astype(dtype.numpy(), copy=False))

    if tensor.nbytes > LAZY_BYTES and dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return ir.LazyTensor(
            lambda: ir.tensor(evaluate(), dtype=dtype), dtype=dtype, shape=ir.Shape(list(shape))
        )
    array = evaluate()
    if not np.isfinite(array.astype(np.float32)).all():
        return None
    return ir.tensor(array, dtype=dtype)

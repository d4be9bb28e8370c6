"""A transpose before a flattening, absorbed by the weights behind it.

    MatMul(Reshape(Transpose(x, p), [N, K]), W)  ->  MatMul(Reshape(x, [N, K]), W[as x is ordered])

Networks that keep channels last flatten H x W x C; the convolution before the flattening gives
C x H x W. Let i = order(j) be where element j of the flattened transpose stands in x. Then
sum_j t[j] W[j] = sum_i x[i] W'[i] with W'[order(j)] = W[j]: the same products, in another order.

Also Gemm, on either side of `transB`; through element-wise operators of one operand and through
QuantizeLinear and DequantizeLinear of one scale; and for weights behind a DequantizeLinear whose
scale does not run along K. Only dimensions behind the first may move, and all of those are known.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    LAZY_BYTES,
    Array,
    Edit,
    attribute,
    const_tensor,
    dims,
    elements,
    feeds_only,
    producer,
    rank,
    rewrite,
    sole_consumer,
)
from infc.passes.transposition import Perm, perm_of

WEIGHT_BYTES = 1 << 30
ELEMENTWISE = frozenset(
    (
        *("Abs", "Cast", "Ceil", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid"),
        *("HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Relu", "Selu"),
        *("Sigmoid", "Softplus", "Softsign", "Sqrt", "Tanh"),
    )
)
FLATTENING = ("Reshape", "Flatten")


class AbsorbTranspose(ir.passes.InPlacePass):
    """Permute the rows of weights instead of what is multiplied with them."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every transpose once."""
        return rewrite(model, {"Transpose": _transpose})


def _transpose(node: ir.Node, edit: Edit) -> bool:
    perm, x = perm_of(node), node.inputs[0]
    shape = dims(x)
    if perm is None or x is None or shape is None or len(shape) != len(perm) or perm[0] != 0:
        return False
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    flat = sole_consumer(node.outputs[0])
    if len(sizes) != len(shape) - 1 or flat is None or flat.op_type not in FLATTENING:
        return False
    y = flat.outputs[0]
    if flat.domain or flat.inputs[0] is not node.outputs[0] or not _is_flat(flat, shape[0], sizes):
        return False
    product = _product(y)
    if product is None:
        return False
    weights = product.inputs[1]
    axis = 1 if product.op_type == "Gemm" and attribute(product, "transB", 0) else 0
    order = _order(perm, sizes)
    permuted = _permuted(weights, axis, order, product, edit) if weights is not None else None
    if permuted is None:
        return False
    product.replace_input_with(1, permuted)
    return edit.forward(node.outputs[0], x)


def _is_flat(flat: ir.Node, first: object, sizes: list[int]) -> bool:
    """Whether `flat` joins all dimensions behind the first, and leaves that one."""
    result = dims(flat.outputs[0])
    if flat.op_type == "Flatten":
        return bool(attribute(flat, "axis", 1) == 1)
    if result is None or len(result) != 2 or result[1] != prod(sizes):
        return False
    return result[0] == first or not isinstance(first, int)


def _product(value: ir.Value) -> ir.Node | None:
    """The only MatMul or Gemm that `value` goes into as the left operand, each column apart."""
    reader = sole_consumer(value)
    while reader is not None and not reader.domain and reader.inputs[0] is value:
        if reader.op_type in ("MatMul", "Gemm"):
            plain = not attribute(reader, "transA", 0) and rank(reader.inputs[1]) == 2
            return reader if plain else None
        if not _keeps_columns(reader):
            return None
        value = reader.outputs[0]
        reader = sole_consumer(value)
    return None


def _keeps_columns(node: ir.Node) -> bool:
    """Whether a node treats every element alike."""
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return _single(node.inputs[1])
    return node.op_type in ELEMENTWISE and len(node.outputs) == 1


def _single(scale: ir.Value | None) -> bool:
    shape = dims(scale)
    return shape is not None and all(size == 1 for size in shape)


def _order(perm: Perm, sizes: list[int]) -> Array:
    """For each element of the flattened transpose its place in what was transposed."""
    places = np.arange(prod(sizes)).reshape(sizes)
    return places.transpose([axis - 1 for axis in perm[1:]]).reshape(-1)


def _permuted(
    value: ir.Value,
    axis: int,
    order: Array,
    product: ir.Node,
    edit: Edit,
) -> ir.Value | None:
    """The weights with `axis` in the order of what is not transposed; None where not constant."""
    dequantize = producer(value, "DequantizeLinear")
    if dequantize is not None:
        return _dequantized(value, dequantize, axis, order, product, edit)
    tensor = const_tensor(value)
    if tensor is None or tensor.nbytes > WEIGHT_BYTES or tensor.dtype.bitwidth < 8:
        return None
    if tensor.shape.numpy()[axis] != len(order):
        return None
    back = np.argsort(order)

    def evaluate() -> ir.TensorProtocol:
        return ir.tensor(np.take(elements(tensor), back, axis), dtype=tensor.dtype)

    made: ir.TensorProtocol = (
        ir.LazyTensor(evaluate, dtype=tensor.dtype, shape=ir.Shape(list(tensor.shape.numpy())))
        if tensor.nbytes > LAZY_BYTES
        else evaluate()
    )
    return edit.constant(made, f"{value.name}_permuted", product)


def _dequantized(
    value: ir.Value,
    dequantize: ir.Node,
    axis: int,
    order: Array,
    product: ir.Node,
    edit: Edit,
) -> ir.Value | None:
    """The same of weights that are stored in integers."""
    codes, scale = dequantize.inputs[:2]
    along = attribute(dequantize, "axis", 1)
    if attribute(dequantize, "block_size", 0) or codes is None:
        return None
    if not _single(scale) and along % 2 == axis:
        return None
    if not feeds_only(value, product):
        return None
    stored = _permuted(codes, axis, order, product, edit)
    if stored is None:
        return None
    attributes = {k: v.value for k, v in dequantize.attributes.items()}
    return edit.emit(
        "DequantizeLinear",
        [stored, *dequantize.inputs[1:]],
        attributes,
        at=product,
        dtype=value.dtype,
        shape=list(dims(value) or ()),
    )

"""Matrix products of rank two, with what surrounds them, as Gemm.

    Add(MatMul(a, b), c)        ->  Gemm(a, b, c)            c broadcast to the product's shape
    Add(Gemm(a, b), c)          ->  Gemm(a, b, c)            where the Gemm adds nothing yet
    Gemm(Transpose(a), b, c)    ->  Gemm(a, b, c, transA=1)  also b; also MatMul

Ranks and the shape of c are proven, the type is floating point (integer Gemm is rarely
implemented), and every step saves a node. Gemm-7 on: c broadcasts one way, never the product.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from infc.passes.rewriting import (
    FLOATS,
    Edit,
    attribute,
    broadcasts_into,
    dims,
    dtype_of,
    given,
    kept,
    producer,
    rank,
    rewrite,
    scalar_of,
    sole_consumer,
)
from infc.passes.transposition import perm_of


class FuseGemm(ir.passes.InPlacePass):
    """Make Gemm of MatMul, Add and Transpose."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node once."""
        return rewrite(model, {"Add": _add, "MatMul": _transposed, "Gemm": _transposed})


def _add(node: ir.Node, edit: Edit) -> bool:
    y = node.outputs[0]
    for product, c in (node.inputs, reversed(node.inputs)):
        inner = producer(product, "MatMul", "Gemm")
        if inner is None or product is None or c is None or sole_consumer(product) is not node:
            continue
        if not _is_matrix_product(inner) or _adds(inner):
            continue
        if not broadcasts_into(dims(c), _product_dims(inner, product)):
            continue
        if dtype_of(c) not in (None, dtype_of(inner.inputs[0])):
            continue
        attributes = kept(inner, "beta") if inner.op_type == "Gemm" else {}
        edit.replace(y, "Gemm", [*inner.inputs[:2], c], attributes)
        return True
    return False


def _is_matrix_product(node: ir.Node) -> bool:
    a, b = node.inputs[:2]
    types = {dtype_of(a), dtype_of(b)} - {None}
    return rank(a) == 2 and rank(b) == 2 and len(types) == 1 and types <= FLOATS


def _adds(node: ir.Node) -> bool:
    """Whether a Gemm has a third input that is not a single zero."""
    c = given(node, 2) if node.op_type == "Gemm" else None
    return c is not None and scalar_of(c) != 0


def _product_dims(node: ir.Node, product: ir.Value) -> tuple[int | str | None, ...] | None:
    known = dims(product)
    if known is not None:
        return known
    a, b = dims(node.inputs[0]), dims(node.inputs[1])
    if a is None or b is None:
        return None
    rows = a[1] if attribute(node, "transA", 0) else a[0]
    return rows, b[0] if attribute(node, "transB", 0) else b[1]


def _transposed(node: ir.Node, edit: Edit) -> bool:
    if not _is_matrix_product(node):
        return False
    inputs = list(node.inputs)
    flags: dict[str, Any] = {}
    for i, name in enumerate(("transA", "transB")):
        flags[name] = int(attribute(node, name, 0)) if node.op_type == "Gemm" else 0
        source = producer(inputs[i], "Transpose")
        if source is None or perm_of(source) != (1, 0):
            continue
        if sole_consumer(source.outputs[0]) is not node:
            continue
        inputs[i] = source.inputs[0]
        flags[name] = 1 - flags[name]
    if inputs == list(node.inputs):
        return False
    others = kept(node, "transA", "transB") if node.op_type == "Gemm" else {}
    if edit.opset < 11 and len(inputs) == 2:
        return False
    edit.replace(node.outputs[0], "Gemm", inputs, {**others, **flags})
    return True

"""Linear layers with int8 weights become one operator, which TorchScript has a kernel of.

    y = x DequantizeLinear(w, s) [+ b]    ->    y = infc.DynamicLinear(x, w^T, s, [b])

w (K, N), int8, s (N,) and b (N,) constants, x of rank two or more. It is lowered to
`quantized::linear_dynamic`, which rounds x to 7 bits for each call: in 8 bits, sums of products
would saturate on CPUs without VNNI (fbgemm). What is not of that form stays as it is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from infc.passes.rewriting import (
    Edit,
    attribute,
    const_tensor,
    dims,
    dtype_of,
    elements,
    given,
    is_op,
    producer,
    sole_consumer,
)

if TYPE_CHECKING:
    import onnx_ir as ir

DOMAIN = "infc"
DYNAMIC_LINEAR = "DynamicLinear"


def fuse_dynamic_linear(model: ir.Model) -> int:
    """Rewrite the main graph in place; return how many layers there were."""
    edit = Edit(model)
    found = sum(_fuse(node, edit) for node in model.graph)
    if found:
        model.opset_imports.setdefault(DOMAIN, 1)
    return found


def _fuse(node: ir.Node, edit: Edit) -> bool:
    import numpy as np
    import onnx_ir as ir

    real = producer(given(node, 1), "DequantizeLinear") if is_op(node, "MatMul") else None
    x, shape = given(node, 0), dims(given(node, 0))
    if real is None or x is None or shape is None or len(shape) < 2:
        return False
    w, scale = const_tensor(given(real, 0)), const_tensor(given(real, 1))
    if w is None or scale is None or given(real, 2) is not None or len(w.shape) != 2:
        return False
    columns = int(w.shape.numpy()[1])
    if (w.dtype, scale.dtype, dtype_of(x)) != (
        ir.DataType.INT8,
        ir.DataType.FLOAT,
        ir.DataType.FLOAT,
    ):
        return False
    if tuple(scale.shape.numpy()) != (columns,) or attribute(real, "axis", 1) not in (1, -1):
        return False
    integers, steps = real.inputs[0], real.inputs[1]
    turned = edit.constant(
        np.ascontiguousarray(elements(w).T), f"{integers.name if integers else ''}_rows", node
    )
    last, bias = _bias(node, columns)
    y = last.outputs[0]
    inputs = [x, turned, steps, *([bias] if bias is not None else [])]
    made = edit.replace(y, DYNAMIC_LINEAR, inputs, at=last)
    fused = made.producer()
    if fused is not None:
        fused.domain = DOMAIN
    return True


def _bias(node: ir.Node, columns: int) -> tuple[ir.Node, ir.Value | None]:
    """The last node of the layer: an Add of a vector where only that reads the product."""
    import onnx_ir as ir

    reader = sole_consumer(node.outputs[0])
    if is_op(reader, "Add") and reader is not None:
        other = reader.inputs[1] if reader.inputs[0] is node.outputs[0] else reader.inputs[0]
        tensor = const_tensor(other)
        if (
            tensor is not None
            and tensor.dtype == ir.DataType.FLOAT
            and tuple(tensor.shape.numpy()) == (columns,)
        ):
            return reader, other
    return node, None

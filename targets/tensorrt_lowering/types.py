"""Types that TensorRT has only at its borders, or not at all.

    float64             -> float32, which the parser makes of it as well, without saying so
    uint8 int8 int16 …  -> int32 between a Cast and a Cast, for operators that move or compare

    y = Cast(Transpose(x: uint8), float)   ->   y = Cast(Transpose(Cast(x, int32)), float)

Arithmetic of small integers wraps around, which that of int32 does not: it is left alone, and
refused. Inputs and outputs keep their types.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import Edit, dtype_of, graphs

WIDENED = "infc.tensorrt.widened"
SATURATED = "infc.tensorrt.saturated"
"""Marks of nodes whose results are small integers, in a wider type."""

SMALL = frozenset(
    (
        ir.DataType.UINT8,
        ir.DataType.INT8,
        ir.DataType.INT16,
        ir.DataType.UINT16,
    )
)
"""Types whose every value is an int32."""

_MOVED = """
Abs Concat DepthToSpace Equal Expand Flatten Gather GatherElements GatherND Greater GreaterOrEqual
Identity Less LessOrEqual Max Min Pad Reshape ReverseSequence ScatterElements ScatterND Slice
SpaceToDepth Split Squeeze Tile Transpose Trilu Unsqueeze Where
"""
MOVED = frozenset(_MOVED.split())
"""Operators whose result in int32 is the small integer that it was."""


def narrow_doubles(model: ir.Model) -> bool:
    """Compute in float32 what is computed in float64; not where the signature has float64."""
    double, single = ir.DataType.DOUBLE, ir.DataType.FLOAT
    if any(v.dtype == double for v in (*model.graph.inputs, *model.graph.outputs)):
        return False
    modified = False
    for graph in graphs(model):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype == double:
                value.const_value = ir.tensor(tensor.numpy().astype(np.float32), name=value.name)
                value.type = ir.TensorType(single)
                modified = True
        for node in graph:
            modified |= _narrow_attributes(node)
            for value in node.outputs:
                if value.dtype == double:
                    value.type = ir.TensorType(single)
                    modified = True
        for value in graph.inputs:
            if value.dtype == double:
                value.type = ir.TensorType(single)
    return modified


def _narrow_attributes(node: ir.Node) -> bool:
    """The types and tensors that a node states."""
    modified = False
    for name in ("to", "dtype", "output_dtype"):
        attribute = node.attributes.get(name)
        if attribute is not None and attribute.value == ir.DataType.DOUBLE.value:
            node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT.value)
            modified = True
    attribute = node.attributes.get("value")
    if attribute is not None and attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        if tensor.dtype == ir.DataType.DOUBLE:
            narrow = ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)
            node.attributes["value"] = ir.AttrTensor("value", narrow)
            modified = True
    return modified


def widen_small_integers(model: ir.Model) -> bool:
    """Write casts to int32 and back around what moves or compares small integers.

    Not where the signature has types that no engine takes: the model's own nodes are named then.
    """
    from infc.targets.tensorrt_support import interface

    if interface(model):
        return False
    edit = Edit(model)
    modified = False
    for graph in graphs(model):
        for node in list(graph):
            if not node.domain and node.op_type in MOVED:
                modified |= _widen(node, edit)
    return _cancel(model, edit) or modified


def _widen(node: ir.Node, edit: Edit) -> bool:
    small = [i for i, v in enumerate(node.inputs) if dtype_of(v) in SMALL]
    if not small or len(node.outputs) != 1:
        return False
    for i in small:
        value = node.inputs[i]
        wide = edit.emit(
            "Cast", [value], {"to": int(ir.DataType.INT32)}, at=node, dtype=ir.DataType.INT32
        )
        wide.shape = value.shape if value is not None else None
        node.replace_input_with(i, wide)
    result = node.outputs[0]
    narrow = result.dtype
    if narrow not in SMALL:
        return True
    wide = ir.Value(name=edit.fresh(f"{result.name}_wide"), shape=result.shape)
    wide.type = ir.TensorType(ir.DataType.INT32)
    attributes = list(node.attributes.values())
    moved = ir.Node("", node.op_type, node.inputs, attributes, outputs=[wide], name=node.name)
    moved.meta[WIDENED] = True
    assert node.graph is not None
    node.graph.insert_before(node, moved)
    edit.replace(result, "Cast", [wide], {"to": int(narrow)})
    return True


def _cancel(model: ir.Model, edit: Edit) -> bool:
    """Cast(Cast(x, small), other) reads x, where x holds small integers alone."""
    modified = False
    for graph in graphs(model):
        for node in list(graph):
            if node.op_type != "Cast" or node.domain or node.graph is None:
                continue
            first = node.inputs[0]
            before = first.producer() if first is not None else None
            if before is None or before.op_type != "Cast" or dtype_of(first) not in SMALL:
                continue
            source = before.inputs[0]
            if source is None or not _holds_small(source):
                continue
            modified = True
            if node.outputs[0].dtype == dtype_of(source):
                edit.forward(node.outputs[0], source)
            else:
                node.replace_input_with(0, source)
                edit.erase(before)
    return modified


def _holds_small(value: ir.Value) -> bool:
    """Whether `value` was widened here, or saturated (`quantized`): it is a small integer."""
    node = value.producer()
    return node is not None and any(node.meta.get(mark) for mark in (WIDENED, SATURATED))

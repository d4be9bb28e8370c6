"""The arithmetic a model itself asks for.

A model that was exported in float16 rounds to 11 bits wherever it stores a value. Two runtimes
that both keep to it differ by such roundings, whatever the precision of the target, and also where
a last Cast hands the output on as float32. Where it quantises its activations, rounding the other
way at a tie is a whole step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from infc.request import Precision

if TYPE_CHECKING:
    import onnx_ir as ir

_LOSSLESS = ("Cast", "CastLike", "DequantizeLinear")
"""Weights kept in float16 and widened before they are used cost no accuracy at run time."""

_QUANTISING = ("DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul")


def source_precisions(model: ir.Model) -> dict[str, Precision]:
    """The coarsest arithmetic that each output is computed in, float32 and wider left out."""
    found: dict[str, Precision] = {}
    for output in model.graph.outputs:
        kinds = set(_precisions_before(output))
        for precision in (Precision.FP16, Precision.BF16, Precision.INT8):
            if precision in kinds and output.name:
                found[output.name] = precision
    return found


def quantities(model: ir.Model) -> set[str]:
    """The 8-bit inputs that stand for real numbers: pixels, or what is already quantised.

    All that reads one dequantises it or casts it to a float, after moving it about at most.
    """
    import onnx_ir as ir

    def is_read_as_real(value: ir.Value) -> bool:
        uses = [node for node, _ in value.uses()]
        return bool(uses) and all(_reads_as_real(node) for node in uses)

    def _reads_as_real(node: ir.Node) -> bool:
        if node.op_type in ("Transpose", "Reshape", "Identity", "Flatten", "Squeeze", "Unsqueeze"):
            return is_read_as_real(node.outputs[0])
        if node.op_type == "Cast":
            to = node.attributes.get_int("to", 0)
            return ir.DataType(to).is_floating_point()
        return node.op_type == "DequantizeLinear"

    eight_bits = (ir.DataType.INT8, ir.DataType.UINT8)
    found = (v for v in model.graph.inputs if v.dtype in eight_bits and is_read_as_real(v))
    return {value.name or "" for value in found}


def _precisions_before(output: ir.Value) -> Iterator[Precision]:
    """The narrow arithmetics that `output` depends on."""
    import onnx_ir as ir

    names = {ir.DataType.FLOAT16: Precision.FP16, ir.DataType.BFLOAT16: Precision.BF16}
    pending, seen = [output], set[ir.Value]()
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        node = value.producer()
        if node is None:
            if value.is_graph_input() and value.dtype in names:
                yield names[value.dtype]
            continue
        for part in (node, *_inside(node)):
            if _quantises(part):
                yield Precision.INT8
            for dtype in _dtypes(part):
                if dtype in names:
                    yield names[dtype]
            pending += [v for v in part.inputs if v is not None]


def _inside(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes of the subgraphs of `node`."""
    import onnx_ir as ir

    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield from attribute.as_graph().all_nodes()
        elif attribute.type == ir.AttributeType.GRAPHS:
            for graph in attribute.as_graphs():
                yield from graph.all_nodes()


def _quantises(node: ir.Node) -> bool:
    """Whether `node` quantises what is computed at run time, alone or as part of its work."""
    if node.op_type == "QuantizeLinear":
        return node.inputs[0] is not None and not _is_constant(node.inputs[0])
    return node.op_type in _QUANTISING


def _dtypes(node: ir.Node) -> Iterator[ir.DataType | None]:
    """What `node` rounds to, as far as that can be said without inferring types."""
    import onnx_ir as ir

    if node.op_type == "Constant":
        return
    if node.op_type == "Cast":
        yield ir.DataType(node.attributes.get_int("to", 0))
    yield from (v.dtype for v in node.outputs)
    if node.op_type not in _LOSSLESS:
        yield from (v.dtype for v in node.inputs if v is not None and _is_constant(v))


def _is_constant(value: ir.Value) -> bool:
    node = value.producer()
    return value.const_value is not None or (node is not None and node.op_type == "Constant")

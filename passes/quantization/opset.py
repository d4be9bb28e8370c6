"""A model raised in place to the opset that Q/DQ needs: 10, per channel 13.

Source: onnx.version_converter; the changelogs of QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

import onnx_ir as ir

from infc.diagnostics import fail
from infc.passes.rewriting import opset

PER_CHANNEL = 13


def raise_opset(model: ir.Model, least: int = PER_CHANNEL) -> bool:
    """Convert `model` up to the opset `least`; return whether it had to be. Weights are shared.

    Raises:
        InfcError: E204 where ONNX's converter cannot do it.
    """
    if opset(model) >= least:
        return False
    from onnx.version_converter import convert_version

    try:
        raised: ir.Model = ir.from_proto(convert_version(ir.to_proto(model), least))
    except Exception as error:
        raise fail(
            "E204",
            f"INT8 per channel takes opset {least} or later, and the graph's opset "
            f"{opset(model)} cannot be converted: {error}",
            help="export the model again with a later opset",
        ) from error
    known = {v.name: v for v in _values(model.graph)}
    for value in _values(raised.graph):
        before = known.get(value.name)
        if before is not None and not value.is_initializer():
            value.type, value.shape = value.type or before.type, value.shape or before.shape
    for name, value in raised.graph.initializers.items():
        if name in model.graph.initializers:
            value.const_value = model.graph.initializers[name].const_value
    model.graph = raised.graph
    model.ir_version = raised.ir_version
    return True


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(v for node in graph for v in node.outputs)]

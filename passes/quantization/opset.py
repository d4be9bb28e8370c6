"""A model raised in place to the opset that Q/DQ needs: 10, per channel 13.

Source: the changelogs of QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

import onnx_ir as ir

from infc.diagnostics import fail
from infc.passes.opsets import OpsetError, at_opset
from infc.passes.rewriting import opset

PER_CHANNEL = 13


def raise_opset(model: ir.Model, least: int = PER_CHANNEL) -> bool:
    """Convert `model` up to the opset `least`; return whether it had to be. Weights are shared.

    Raises:
        InfcError: E204 where ONNX's converter cannot do it.
    """
    try:
        raised = at_opset(model, least)
    except OpsetError as error:
        raise fail(
            "E204",
            f"INT8 per channel takes opset {least} or later, and the graph's opset "
            f"{opset(model)} cannot be converted: {error}",
            help="export the model again with a later opset",
        ) from error
    if raised is model:
        return False
    model.graph = raised.graph
    model.ir_version = raised.ir_version
    return True

"""Initial states of zeros, left out: zeros are what a recurrent layer starts from anyway.

    LSTM(x, w, r, b, lens, zeros, zeros)  ->  LSTM(x, w, r, b, lens)      also GRU, RNN

An exporter computes them from the batch size; without them nothing depends on it. They are zeros
when they are a constant of zeros, or filled or expanded from one. LSTM-7, GRU-7, RNN-7 and later:
"initial_h: ... if not specified, assumed to be 0".
"""

from __future__ import annotations

import onnx_ir as ir

from infc.passes.rewriting import (
    Edit,
    attribute,
    const_array,
    given,
    kept,
    producer,
    rewrite,
)

FIRST_STATE = 5
MOVERS = ("Expand", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Tile")
"""Operators whose output has no element that their first input has not."""


class OmitZeroStates(ir.passes.InPlacePass):
    """Drop the initial states of LSTM, GRU and RNN that are zeros."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node once."""
        return rewrite(model, dict.fromkeys(("LSTM", "GRU", "RNN"), _omit))


def _omit(node: ir.Node, edit: Edit) -> bool:
    states = [given(node, FIRST_STATE), given(node, FIRST_STATE + 1)]
    left = [None if _is_zero(state) else state for state in states]
    if left == states:
        return False
    inputs = [*node.inputs[:FIRST_STATE], *left, *node.inputs[FIRST_STATE + 2 :]]
    while inputs and inputs[-1] is None:
        inputs.pop()
    edit.replace(list(node.outputs), node.op_type, inputs, kept(node))
    return True


def _is_zero(value: ir.Value | None) -> bool:
    while (mover := producer(value, *MOVERS)) is not None:
        value = mover.inputs[0]
    filled = producer(value, "ConstantOfShape")
    if filled is not None:
        fill = attribute(filled, "value")
        return fill is None or not fill.numpy().any()
    array = const_array(value)
    return array is not None and not array.any()

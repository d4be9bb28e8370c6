"""Recurrences written out step by step, time first."""

from __future__ import annotations

import onnx_ir as ir

from infc.passes.rewriting import Edit, attribute
from infc.targets.mindspore_lite_lowering import recurrent

MAX_STEPS = 1024
"""A recurrence over a longer sequence is not written out."""


def _written_out(node: ir.Node, edit: Edit) -> bool:
    if attribute(node, "layout", 0):
        return recurrent.RULES[node.op_type](node, edit)
    return recurrent.write_out(node, edit, MAX_STEPS, masked=True)


RULES = dict.fromkeys(("LSTM", "GRU", "RNN"), _written_out)

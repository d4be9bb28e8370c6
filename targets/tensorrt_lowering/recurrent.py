"""LSTM, GRU and RNN of one time step, as in models that are fed a stream: without the loop.

    h' = LSTM(x, h, c)   ->   h' = s(x W + h R + b) * tanh(...)        (the ONNX definition)

TensorRT makes a loop of any of them. For RTX 1.7 two such loops of one step after each other end
in an internal error (`bb.cpp:43: CHECK(append_to->parent() == this)`).
"""

from __future__ import annotations

import onnx_ir as ir

from infc.passes.rewriting import Edit
from infc.targets.mindspore_lite_lowering.recurrent import write_out

STEPS = 1


def _recurrent(node: ir.Node, edit: Edit) -> bool:
    return write_out(node, edit, STEPS)


RULES = {"GRU": _recurrent, "LSTM": _recurrent, "RNN": _recurrent}

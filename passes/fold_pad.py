"""Pad folded into the window operator that reads it.

    Conv(Pad(x, p), w, pads=q)                    ->  Conv(x, w, pads=p + q)
    MaxPool(Pad(x, p, -inf), pads=q)              ->  MaxPool(x, pads=p + q)
    AveragePool(Pad(x, p), pads=0, count_incl.)   ->  AveragePool(x, pads=p, count_include_pad=1)

Only constant padding with the value the operator itself pads with, none of it negative and all of
it along spatial dimensions. An AveragePool counted the padding as elements, so it keeps counting
it; where it pads too without counting the two differ. With `ceil_mode` a window may begin in the
padding, which only one of the two forms computes. Pad-2, 11, 13, 18.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from infc.passes.rewriting import (
    Edit,
    attribute,
    given,
    int_list,
    is_given,
    kept,
    producer,
    rank,
    rewrite,
    scalar_of,
    sole_consumer,
)


class FoldPad(ir.passes.InPlacePass):
    """Fold Pad into Conv, MaxPool and AveragePool."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node once."""
        return rewrite(model, dict.fromkeys(("Conv", "MaxPool", "AveragePool"), _fold))


def _fold(node: ir.Node, edit: Edit) -> bool:
    pad = producer(node.inputs[0], "Pad")
    if pad is None or sole_consumer(pad.outputs[0]) is not node:
        return False
    x = pad.inputs[0]
    into = _rank(node, x)
    spatial = _spatial_pads(pad, into)
    if spatial is None or into is None or x is None:
        return False
    own = tuple(attribute(node, "pads", ())) or (0,) * (2 * (into - 2))
    auto = attribute(node, "auto_pad", "NOTSET")
    if auto == "VALID":
        own = (0,) * len(own)
    elif auto != "NOTSET":
        return False
    value = _pad_value(pad)
    extra = {}
    if attribute(node, "ceil_mode", 0):
        return False
    if node.op_type == "MaxPool":
        if value is None or value > -math.inf or len(node.outputs) != 1 or _exceeds(node, spatial):
            return False
    elif value != 0:
        return False
    if node.op_type == "AveragePool":
        counts = attribute(node, "count_include_pad", 0)
        if (any(own) and not counts) or _exceeds(node, spatial):
            return False
        extra = {"count_include_pad": 1}
    total = [a + b for a, b in zip(own, spatial, strict=True)]
    attributes = {**kept(node, "pads", "auto_pad", *extra), "pads": total, **extra}
    edit.replace(node.outputs[0], node.op_type, [x, *node.inputs[1:]], attributes)
    return True


def _rank(node: ir.Node, x: ir.Value | None) -> int | None:
    if node.op_type == "Conv":
        return rank(x) or rank(node.inputs[1])
    return len(attribute(node, "kernel_shape")) + 2


def _exceeds(node: ir.Node, pads: tuple[int, ...]) -> bool:
    """Whether runtimes refuse these pads: a pool's must be smaller than its kernel."""
    kernel = attribute(node, "kernel_shape")
    own = attribute(node, "pads", (0,) * len(pads))
    return any(p + q >= k for p, q, k in zip(pads, own, (*kernel, *kernel), strict=True))


def _spatial_pads(pad: ir.Node, into: int | None) -> tuple[int, ...] | None:
    """(begins..., ends...) of the spatial dimensions; None where anything else is padded."""
    if attribute(pad, "mode", "constant") != "constant" or into is None or into < 3:
        return None
    pads = int_list(pad, "pads", 1)
    if pads is None or any(p < 0 for p in pads):
        return None
    if is_given(pad, "axes", 3):
        axes = int_list(pad, "axes", 3)
        if axes is None:
            return None
        full = [0] * (2 * into)
        for i, axis in enumerate(axes):
            full[axis % into] = pads[i]
            full[axis % into + into] = pads[i + len(axes)]
        pads = tuple(full)
    if len(pads) != 2 * into or any((*pads[:2], *pads[into : into + 2])):
        return None
    return (*pads[2:into], *pads[into + 2 :])


def _pad_value(pad: ir.Node) -> float | None:
    value = given(pad, 2)
    if value is None:
        return float(attribute(pad, "value", 0.0))
    number = scalar_of(value)
    return None if number is None else float(number)

"""Operators that tf2onnx does not know, taught to it, and one that it writes wrongly.

    Erfc(x)      = 1 - Erf(x)                       what Keras 3 makes of an exact GELU
    TFL_GELU(x)  = 0.5 x (1 + Erf(x / sqrt 2))      or by tanh, where the file says approximate

tf2onnx 1.17 logs both as unsupported, and writes them into the graph as they are.

    ConvTranspose: pads = (0, -n)                   =>   pads = (0, 0), output_padding = n

Rows behind what a transposed convolution computes, Keras's `output_padding`, are none of ONNX's
negative pads, which do not exist.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx

SQRT_HALF = 0.7071067811865476
SQRT_2_OVER_PI, CUBIC = 0.7978845608028654, 0.044715
"""Of the GELU by tanh (Hendrycks and Gimpel, 2016)."""


@cache
def register() -> None:
    """Add the handlers, once in a process."""
    from tf2onnx.handler import tf_op, tfl_op

    tf_op("Erfc")(_Erfc)
    tfl_op(["TFL_GELU"])(_TflGelu)


def settle_transposed(graph: Any) -> None:
    """Write the rows behind a transposed convolution as ONNX does, all through a tf2onnx graph."""
    for node in graph.get_nodes():
        for body in (node.get_body_graphs() or {}).values():
            settle_transposed(body)
        attribute = node.get_attr("pads")
        if node.type != "ConvTranspose" or attribute is None:
            continue
        pads = list(attribute.ints)
        rank = len(pads) // 2
        total = [pads[i] + pads[i + rank] for i in range(rank)]
        if min(total) >= 0:
            continue
        ends = [(0, 0) if total[i] < 0 else (pads[i], pads[i + rank]) for i in range(rank)]
        node.set_attr("pads", [first for first, _ in ends] + [last for _, last in ends])
        node.set_attr("output_padding", [max(0, -rows) for rows in total])


class _Builder:
    """Nodes of the type and shape of the first output of `node`, which they replace."""

    def __init__(self, ctx: Any, node: Any) -> None:
        self._ctx, self._name = ctx, node.name
        self._output = node.output[0]
        self._kind = {
            "dtypes": [ctx.get_dtype(self._output)],
            "shapes": [ctx.get_shape(self._output)],
        }
        ctx.remove_node(node.name)

    def constant(self, value: float) -> str:
        from tf2onnx import utils

        dtype = onnx.helper.tensor_dtype_to_np_dtype(self._kind["dtypes"][0])
        array = np.array(value, dtype)
        made = self._ctx.make_const(utils.make_name(f"{self._name}_constant"), array)
        return str(made.output[0])

    def add(self, op: str, *inputs: str) -> str:
        return str(self._ctx.make_node(op, list(inputs), **self._kind).output[0])

    def finish(self, op: str, *inputs: str) -> None:
        self._ctx.make_node(op, list(inputs), outputs=[self._output], name=self._name, **self._kind)


class _Erfc:
    @classmethod
    def version_9(cls, ctx: Any, node: Any, **_: Any) -> None:
        (x,) = node.input
        make = _Builder(ctx, node)
        make.finish("Sub", make.constant(1.0), make.add("Erf", x))


class _TflGelu:
    @classmethod
    def version_9(cls, ctx: Any, node: Any, **_: Any) -> None:
        (x,) = node.input
        approximate = bool(node.get_attr_value("approximate", False))
        make = _Builder(ctx, node)
        if approximate:
            cube = make.add("Mul", x, make.add("Mul", x, x))
            inner = make.add("Add", x, make.add("Mul", cube, make.constant(CUBIC)))
            bell = make.add("Tanh", make.add("Mul", inner, make.constant(SQRT_2_OVER_PI)))
        else:
            bell = make.add("Erf", make.add("Mul", x, make.constant(SQRT_HALF)))
        half = make.add("Mul", x, make.constant(0.5))
        make.finish("Mul", half, make.add("Add", bell, make.constant(1.0)))

"""Q/DQ written into the graph.

    x -> op             ->   x -> QuantizeLinear -> DequantizeLinear -> op
    w                   ->   w_quantized (int8) -> DequantizeLinear
    b                   ->   b_quantized (int32, scale input x weight) -> DequantizeLinear

A value has one pair, whoever reads it. A reader in float keeps the float value where that is
there anyway (a graph input, the result of a float node) and so loses nothing.

Source: ONNX QuantizeLinear-13, DequantizeLinear-13.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from infc.passes.quantization.affine import Weights
from infc.passes.rewriting import Array, Edit
from infc.quantization import QuantizedTensor

Parameters = tuple[ir.Value, ir.Value]


class Insertion:
    """Writes into the main graph of one model; what several nodes read is written once."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.edit = Edit(model)
        self._parameters: dict[int, Parameters] = {}
        self._weights: dict[tuple[ir.Value, bytes], ir.Value] = {}

    def parameters(self, group: int, tensor: QuantizedTensor, hint: str) -> Parameters:
        """The scale and zero point of a group of values, as initializers."""
        if group not in self._parameters:
            at = self.graph[0]
            scale = self.edit.constant(np.asarray(tensor.scale, np.float32), f"{hint}_scale", at)
            zero = np.asarray(tensor.zero_point, tensor.dtype)
            self._parameters[group] = (
                scale,
                self.edit.constant(zero, f"{hint}_zero_point", at),
            )
        return self._parameters[group]

    def pair(
        self,
        value: ir.Value,
        parameters: Parameters,
        readers: Collection[ir.Node],
        *,
        output: bool,
    ) -> None:
        """Put Q/DQ on `value`; `readers` read the result.

        Where `output` says so and `value` is an output of the graph, the result is it now.
        """
        name, node = value.name or "value", value.producer()
        uses = [use for use in value.uses() if use.node in readers]
        integers = ir.Value(name=self.edit.fresh(f"{name}_quantized"), shape=value.shape)
        integers.type = ir.TensorType(parameters[1].dtype or ir.DataType.UINT8)
        result = ir.Value(name=self.edit.fresh(f"{name}_dequantized"), shape=value.shape)
        result.type = value.type
        title = (node.name if node is not None else "") or name
        quantize = ir.Node(
            "",
            "QuantizeLinear",
            [value, *parameters],
            outputs=[integers],
            name=self.edit.fresh_node(f"{title}/QuantizeLinear"),
        )
        dequantize = ir.Node(
            "",
            "DequantizeLinear",
            [integers, *parameters],
            outputs=[result],
            name=self.edit.fresh_node(f"{title}/DequantizeLinear"),
        )
        if node is None:
            self.graph.insert_before(self.graph[0], [quantize, dequantize])
        else:
            self.graph.insert_after(node, [quantize, dequantize])
        for use in uses:
            use.node.replace_input_with(use.idx, result)
        if output and value.is_graph_output():
            self._hand_over(value, result)

    def _hand_over(self, value: ir.Value, result: ir.Value) -> None:
        """Let `result` be the graph output that `value` was, under its name."""
        name, value.name = value.name, self.edit.fresh(f"{value.name}_float")
        result.name = name
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[index] = result

    def weight(self, value: ir.Value, rounded: Weights, axis: int | None, at: ir.Node) -> ir.Value:
        """The weights as int8, dequantised before `at` or before."""
        name, scale = value.name or "weight", rounded.scale
        key = value, scale.tobytes()
        if key in self._weights:
            return self._weights[key]
        inputs = [
            self.edit.constant(rounded.integers, f"{name}_quantized", at),
            self.edit.constant(scale, f"{name}_scale", at),
            self.edit.constant(np.zeros(scale.shape, np.int8), f"{name}_zero_point", at),
        ]
        self._weights[key] = self.edit.emit(
            "DequantizeLinear",
            inputs,
            {"axis": axis} if scale.ndim else None,
            at=at,
            hint=f"{name}_dequantized",
            dtype=ir.DataType.FLOAT,
            shape=rounded.integers.shape,
        )
        return self._weights[key]

    def bias(self, array: Array, scale: Array, hint: str, at: ir.Node) -> ir.Value:
        """`array` (channels,) as int32 of `scale`, () or (channels,), dequantised."""
        steps = np.rint(array.astype(np.float64) / scale.astype(np.float64))
        info = np.iinfo(np.int32)
        integers = np.clip(steps, info.min, info.max).astype(np.int32)
        constant = self.edit.constant(integers, f"{hint}_quantized", at)
        inputs = [constant, self.edit.constant(scale, f"{hint}_scale", at)]
        return self.edit.emit(
            "DequantizeLinear",
            inputs,
            {"axis": 0} if scale.ndim else None,
            at=at,
            hint=f"{hint}_dequantized",
            dtype=ir.DataType.FLOAT,
            shape=array.shape,
        )

"""Constant nodes become initializers: Constant(value) -> an entry of `graph.initializers`.

Every later pass then finds a constant in one place, and equal ones are merged. A Constant that is
a graph output stays a node: a graph whose output no node gives is refused by some runtimes. So
does a sparse one. Source: ONNX Constant-1 to -25; initializers that are not inputs need IR
version 4, which is raised where the file says 3.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import const_tensor, graphs

MIN_IR_VERSION = 4


class LiftConstants(ir.passes.InPlacePass):
    """Turn Constant nodes into initializers of the graph they are in."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every graph, subgraphs included."""
        modified = False
        for graph in graphs(model):
            for node in graph:
                if node.op_type == "Constant" and not node.domain:
                    modified |= _lift(graph, node)
        if modified and model.ir_version < MIN_IR_VERSION:
            model.ir_version = MIN_IR_VERSION
        return ir.passes.PassResult(model, modified=modified)


def _lift(graph: ir.Graph, node: ir.Node) -> bool:
    output = node.outputs[0]
    tensor = const_tensor(output) or _strings(node)
    if tensor is None or output.is_graph_output() or not output.name:
        return False
    if output.name in graph.initializers:
        return False
    name, output.name = output.name, None
    tensor.name = name
    value = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(tensor.shape.numpy()),
        const_value=tensor,
    )
    graph.initializers[name] = value
    output.replace_all_uses_with(value)
    graph.remove(node, safe=True)
    return True


def _strings(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor of `value_string` or `value_strings`."""
    attr = next(iter(node.attributes.values()), None)
    if attr is None or attr.is_ref() or attr.name not in ("value_string", "value_strings"):
        return None
    single = attr.name == "value_string"
    texts = [attr.value] if single else attr.value
    raw = [t.encode() if isinstance(t, str) else bytes(t) for t in texts]
    shape = ir.Shape([] if single else [len(raw)])
    return ir.StringTensor(np.array(raw, dtype=object), shape=shape)

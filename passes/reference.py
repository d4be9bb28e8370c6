"""Operators computed by `onnx.reference`, one node at a time, at the model's opset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import Array

Arrays = Sequence[Array | None]


def reference_outputs(node: ir.Node, inputs: Arrays, opset: int) -> list[Array] | None:
    """Through `onnx.reference`, as a model of one node of the right opset."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    names = [f"i{k}" if a is not None else "" for k, a in enumerate(inputs)]
    outputs = [f"o{k}" if v.name else "" for k, v in enumerate(node.outputs)]
    proto = ir.serde.serialize_node(node)
    proto.ClearField("input")
    proto.ClearField("output")
    proto.input.extend(names)
    proto.output.extend(outputs)
    empty = onnx.TypeProto()
    graph = onnx.helper.make_graph(
        [proto],
        "constant",
        [onnx.helper.make_value_info(n, empty) for n in names if n],
        [onnx.helper.make_value_info(n, empty) for n in outputs if n],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    feeds = {n: a for n, a in zip(names, inputs, strict=True) if n}
    found = iter(ReferenceEvaluator(model).run(None, feeds))
    results = [np.asarray(next(found)) if n else np.empty(0) for n in outputs]
    return results if all(r.dtype != object for r in results) else None

"""A model converted up to a later opset of the default domain, with the weights that it has.

Large weights are graph inputs for the time of the conversion: the converter takes a protobuf,
which would hold them twice and cannot hold more than 2 GiB. Source: onnx.version_converter.
"""

from __future__ import annotations

import onnx_ir as ir

from infc.passes.rewriting import opset

LARGE_BYTES = 1 << 16
"""Constants up to this size may be read by the converter: shapes, axes, scales."""


class OpsetError(ValueError):
    """ONNX's converter failed; the message is its own."""


def at_opset(model: ir.Model, least: int) -> ir.Model:
    """`model` at the opset `least`; itself where it is there already, or beyond.

    The result shares the weights, and keeps the types and shapes of the values of the main graph.

    Raises:
        OpsetError: an operator that ONNX cannot convert.
    """
    if opset(model) >= least:
        return model
    from onnx.version_converter import convert_version

    bare = model.clone()
    large = _large(bare.graph)
    for name in large:
        bare.graph.inputs.append(bare.graph.initializers.pop(name))
    proto = ir.to_proto(bare)
    try:
        raised: ir.Model = ir.from_proto(convert_version(proto, least))
    except Exception as error:
        # It raises whatever its C++ throws.
        raise OpsetError(str(error)) from error
    _share_weights(raised.graph, model.graph)
    for value in [v for v in raised.graph.inputs if v.name in large]:
        raised.graph.inputs.remove(value)
    _keep_types(raised.graph, model.graph)
    return raised


def _large(graph: ir.Graph) -> frozenset[str]:
    """The names of weights that the converter need not read. Those that are inputs stay as such."""
    return frozenset(
        name
        for name, value in graph.initializers.items()
        if value.const_value is not None
        and value.const_value.nbytes > LARGE_BYTES
        and not value.is_graph_input()
    )


def _share_weights(raised: ir.Graph, source: ir.Graph) -> None:
    """Give `raised` the tensors of `source`, in their order, the converter's own after them."""
    values = {v.name: v for v in _values(raised)}
    own = dict(raised.initializers)
    raised.initializers.clear()
    for name, before in source.initializers.items():
        value = own.pop(name, None) or values.get(name)
        if value is not None and before.const_value is not None:
            value.const_value = before.const_value
            raised.register_initializer(value)
    for value in own.values():
        raised.register_initializer(value)


def _keep_types(raised: ir.Graph, source: ir.Graph) -> None:
    known = {v.name: v for v in _values(source)}
    for value in _values(raised):
        before = known.get(value.name)
        if before is not None and not value.is_initializer():
            value.type, value.shape = value.type or before.type, value.shape or before.shape


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(v for node in graph for v in node.outputs)]

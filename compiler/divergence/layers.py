"""The layers of the float graph, and the same values in the graph that a target is built of.

A layer is an operator with the bias that is added to it and the activation after it: Conv -> Relu
is one, since few back ends keep what lies between. What a layer gives is its checkpoint. In an
INT8 graph that is the value behind its Q/DQ, so that the rounding of what a layer gives is its own
and that of an input the input's; in a 16-bit graph it is the value, cast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infc.quantization import Scheme
from infc.signature import TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir

INPUT = "input"
"""The operator of a layer that is an input of the graph."""
PASSED_ON = frozenset(("Identity", "QuantizeLinear", "Constant"))
"""What gives nothing of its own that could be compared."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What computes `value`, a float tensor of the float graph.

    `name` is that of its first node, `operators` are joined by `+`: `Conv+Relu`. `reads` are the
    values of the layers directly before it. `dtype` and `shape` are as in `TensorSpec`.
    """

    name: str
    operators: str
    value: str
    dtype: str
    shape: tuple[int | str | None, ...] | None
    reads: tuple[str, ...]
    output: bool = False
    """Whether `value` is an output of the graph."""


def layers_of(model: ir.Model) -> tuple[Layer, ...]:
    """The layers of the main graph in topological order, its float inputs first.

    Only what depends on an input of the graph is one; what is inside the bodies of If, Loop and
    Scan belongs to the layer around it. Integers and booleans are not compared.
    """
    from infc.passes.quantization.units import name_of

    inputs = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    found = [_layer(str(v.name), INPUT, v, ()) for v in inputs if _is_float(v)]
    before: dict[ir.Value, tuple[str, ...]] = {}
    before |= {v: (str(v.name),) if _is_float(v) else () for v in inputs}
    chains: dict[ir.Node, tuple[ir.Node, ...]] = {}
    for node in model.graph:
        if node not in chains:
            chain = _together(node)
            chains |= dict.fromkeys(chain, chain)
        read = list(_read(node))
        if not any(value in before for value in read):
            continue
        reads = tuple(dict.fromkeys(name for value in read for name in before.get(value, ())))
        chain = chains[node]
        for value in node.outputs:
            before[value] = reads
            if node is chain[-1] and node.op_type not in PASSED_ON and _is_float(value):
                operators = "+".join(n.op_type for n in chain)
                found.append(_layer(name_of(chain[0]), operators, value, reads))
                before[value] = (str(value.name),)
    return tuple(found)


def _layer(name: str, operators: str, value: ir.Value, reads: tuple[str, ...]) -> Layer:
    from infc.frontends.onnx import spec_of

    spec = spec_of(value)
    output = value.is_graph_output()
    return Layer(name, operators, spec.name, spec.dtype, spec.shape, reads, output)


def _is_float(value: ir.Value) -> bool:
    import onnx_ir as ir

    tensor = value.type is None or isinstance(value.type, ir.TensorType)
    return (
        bool(value.name) and tensor and value.dtype is not None and value.dtype.is_floating_point()
    )


def _together(node: ir.Node) -> tuple[ir.Node, ...]:
    """The nodes of the layer that begins with `node`."""
    from infc.passes.quantization.units import BINARY, WEIGHTED, Unit, unit_of
    from infc.targets.schemes import OPENVINO

    if node.domain or node.op_type not in WEIGHTED | BINARY:
        return (node,)
    unit = unit_of(node, Scheme("layers", frozenset(), absorbed=OPENVINO.absorbed))
    return unit.nodes if isinstance(unit, Unit) else (node,)


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """What `node` reads, and what the graphs inside it read."""
    from infc.passes.rewriting import bodies

    yield from (v for v in node.inputs if v is not None)
    for body in bodies(node):
        for inner in body.all_nodes():
            yield from (v for v in inner.inputs if v is not None)


def expose(
    model: ir.Model, layers: Sequence[Layer], *, rounded: bool
) -> tuple[ir.Model, Mapping[str, TensorSpec]]:
    """A clone of `model` that gives the checkpoints of `layers` as well, and what they are there.

    The second goes by the layers' values; what the graph does not have, or as an input that
    nothing is done to, is left out. New outputs come after those that there are, in the order of
    `layers`. With `rounded` a checkpoint is taken behind the Q/DQ that reads its value, if any.
    """
    import onnx_ir as ir

    copy = model.clone()
    graph = copy.graph
    there = {v.name: v for node in graph for v in node.outputs}
    there |= {v.name: v for v in graph.inputs}
    found: dict[str, TensorSpec] = {}
    for layer in layers:
        value = there.get(layer.value)
        if value is None:
            continue
        if not value.is_graph_output():
            value = _behind_rounding(value) if rounded else value
            if value.is_graph_input():
                continue
            value = _of_type(value, layer, graph)
            if value.shape is None and layer.shape is not None:
                value.shape = ir.Shape(layer.shape)
            if not value.is_graph_output():
                graph.outputs.append(value)
        found[layer.value] = TensorSpec(str(value.name), layer.dtype, layer.shape)
    return copy, found


def _behind_rounding(value: ir.Value) -> ir.Value:
    """What the Q/DQ that reads `value` gives; `value` where there is none."""
    for quantize in (use.node for use in value.uses()):
        if quantize.op_type == "QuantizeLinear" and quantize.inputs[0] is value:
            for use in quantize.outputs[0].uses():
                if use.node.op_type == "DequantizeLinear":
                    return use.node.outputs[0]
    return value


def _of_type(value: ir.Value, layer: Layer, graph: ir.Graph) -> ir.Value:
    """`value` in the type that it has in the float graph."""
    import onnx_ir as ir

    from infc.signature import numpy_dtype

    wanted = ir.DataType.from_numpy(numpy_dtype(layer.dtype))
    if value.dtype is None:
        value.type = ir.TensorType(wanted)
    if value.dtype == wanted:
        return value
    cast = ir.node("Cast", [value], {"to": wanted.value}, name=f"{value.name}/checkpoint")
    cast.outputs[0].name = f"{value.name}_checkpoint"
    cast.outputs[0].type = ir.TensorType(wanted)
    graph.append(cast)
    return cast.outputs[0]

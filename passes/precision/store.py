"""Keep weights in 16 bits and compute in float32: half the size, the arithmetic unchanged.

    Conv(x, w: float32)   ->   Conv(x, Cast(w': float16, float32))

Runtimes that fold constants when they load a model have float32 weights again by then, and so the
speed of float32 too. A weight that the type cannot hold stays as it is, and so does whatever is
smaller than a page: a Cast costs more than it would save.
"""

from __future__ import annotations

import onnx_ir as ir

from infc.passes.precision.formats import FORMATS, lowered, misfit
from infc.passes.rewriting import Edit

PAGE_BYTES = 4096


def store(
    model: ir.Model, to: str, keep_float: frozenset[str] = frozenset()
) -> tuple[tuple[str, str], ...]:
    """Store the float32 weights of `model`, in place, as "float16" or "bfloat16".

    `keep_float` names nodes, or values that they give, whose weights stay as they are.

    Returns:
        (name, reason) of each other weight that is large enough and stays in float32.
    """
    form, edit, kept = FORMATS[to], Edit(model), []
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.nbytes < PAGE_BYTES:
            continue
        if value.is_graph_input() or value.is_graph_output() or not value.uses():
            continue
        if any(_names(node) & keep_float for node, _ in value.uses()):
            continue
        problem = misfit(tensor, form)
        if problem:
            kept.append((str(value.name), problem))
        else:
            _store(model, edit, value, lowered(tensor, form))
    return tuple(kept)


def _names(node: ir.Node) -> set[str | None]:
    return {node.name, *(v.name for v in node.outputs)}


def _store(model: ir.Model, edit: Edit, value: ir.Value, tensor: ir.TensorProtocol) -> None:
    first = model.graph[0]
    stored = edit.constant(tensor, f"{value.name}_{tensor.dtype.name.lower()}", first)
    name = str(value.name)
    del model.graph.initializers[name]
    value.name = None
    widened = ir.Value(name=name, type=value.type, shape=value.shape)
    to = ir.AttrInt64("to", ir.DataType.FLOAT)
    title = edit.fresh_node(f"{name}/widen")
    model.graph.insert_before(
        first, ir.Node("", "Cast", [stored], [to], outputs=[widened], name=title)
    )
    value.replace_all_uses_with(widened)

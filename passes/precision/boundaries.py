"""Write a plan into the graph: one Cast for each value and direction, one copy of each constant.

    x: float32 -> Conv(x, w) -> y: float32
    x: float32 -> Cast -> Conv(., w') -> y_float16 -> Cast -> y: float32

A value that both kinds of node read is cast once, behind the node that gives it. Where that node
is a Cast from the wanted type, its own input is read instead, so that no cast follows another.
"""

from __future__ import annotations

import onnx_ir as ir

from infc.passes.precision.formats import Format, lowered
from infc.passes.precision.plan import Plan
from infc.passes.precision.regions import Casts
from infc.passes.rewriting import Edit, attribute, const_tensor, is_op


def write(model: ir.Model, plan: Plan, casts: Casts) -> None:
    """Change the types of what the plan converts, and cast at its boundaries."""
    edit, form = Edit(model), plan.wishes.form
    values = [v for v in model.graph.inputs if v.dtype == ir.DataType.FLOAT]
    for node in model.graph:
        values += [v for v in node.outputs if v.dtype == ir.DataType.FLOAT]
    boundaries = [(v, casts.is_low(v)) for v in values if const_tensor(v) is None]
    _lower_constants(model, plan, edit)
    for value, low in boundaries:
        users = [
            (node, index)
            for node, index in value.uses()
            if casts.wants_low(node, index) is (not low)
        ]
        if low:
            _lower(value, form)
        is_output = low and value in casts.outputs and casts.keep_io
        if users or is_output:
            _cast(model, edit, value, form.dtype if not low else ir.DataType.FLOAT, users)
    _remove_no_ops(model, edit)


def _lower(value: ir.Value, form: Format) -> None:
    value.type = ir.TensorType(form.dtype)
    node = value.producer()
    if node is not None and is_op(node, "Cast"):
        node.attributes["to"] = ir.AttrInt64("to", form.dtype)


def _lower_constants(model: ir.Model, plan: Plan, edit: Edit) -> None:
    """Give every converted node copies of its constants, equal ones shared."""
    form = plan.wishes.form
    copies: dict[tuple[ir.Value, float | None], ir.Value] = {}
    for node, slots in plan.low.items():
        for i in sorted(slots.inputs):
            value = node.inputs[i]
            tensor = const_tensor(value)
            if value is None or tensor is None:
                continue
            bound = plan.clipped.get((node, i))
            if (value, bound) not in copies:
                copy = lowered(tensor, form, bound)
                copies[value, bound] = edit.constant(copy, f"{value.name}_{form.name}", node)
            node.replace_input_with(i, copies[value, bound])
    for value, _ in copies:
        _drop(model, value)


def _drop(model: ir.Model, value: ir.Value) -> None:
    """Remove a constant that nothing reads any more."""
    if value.uses() or value.is_graph_output():
        return
    source = value.producer()
    if source is not None and source.graph is not None:
        source.graph.remove(source, safe=True)
    elif value.name is not None and value.name in model.graph.initializers:
        del model.graph.initializers[value.name]


def _cast(
    model: ir.Model,
    edit: Edit,
    value: ir.Value,
    to: ir.DataType,
    users: list[tuple[ir.Node, int]],
) -> None:
    """Let `users`, and the graph's outputs where `value` is one, read `value` cast to `to`."""
    source = value.producer()
    if source is not None and is_op(source, "Cast") and not value.is_graph_output():
        origin = source.inputs[0]
        if origin is not None and origin.dtype == to:
            for node, index in users:
                node.replace_input_with(index, origin)
            return
    at_output = to == ir.DataType.FLOAT and value in model.graph.outputs
    name = str(value.name)
    if at_output:
        value.name = edit.fresh(f"{name}_{'' if value.dtype is None else _word(value.dtype)}")
    else:
        name = edit.fresh(f"{name}_{_word(to)}")
    result = ir.Value(name=name, type=ir.TensorType(to), shape=value.shape)
    node = ir.Node(
        "",
        "Cast",
        [value],
        [ir.AttrInt64("to", to)],
        outputs=[result],
        name=edit.fresh_node(f"{name}/cast"),
    )
    if source is not None:
        model.graph.insert_after(source, node)
    else:
        model.graph.insert_before(model.graph[0], node)
    for user, index in users:
        user.replace_input_with(index, result)
    if at_output:
        outputs = model.graph.outputs
        for i, output in enumerate(outputs):
            if output is value:
                outputs[i] = result


def _word(dtype: ir.DataType) -> str:
    return {ir.DataType.FLOAT: "float32"}.get(dtype, dtype.name.lower())


def _remove_no_ops(model: ir.Model, edit: Edit) -> None:
    """Casts of the source model that now give the type that they read."""
    for node in list(model.graph):
        if not is_op(node, "Cast"):
            continue
        value = node.inputs[0]
        if value is not None and value.dtype == attribute(node, "to"):
            edit.forward(node.outputs[0], value)

"""Everything between transposes, computed in the other order where that saves transposes.

    t = Transpose(x, p);  y = Transpose(t * Sigmoid(t), q)     ->     x * Sigmoid(x)

A region grows from a transposed value over every reader that `transposition.plan` can remap and
whose other operands are constants, in the region, or transposed alike. It is worth it where more
transposes go away (at its entries, and at exits that undo it) than are needed to give those
outside the region what they read; so the number of nodes always falls.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from infc.passes.rewriting import Edit, is_op, producer
from infc.passes.transposition import REMAPPED, Perm, perm_of, plan

MAX_NODES = 48
"""A region stops growing here: a block of a network is not larger."""


def is_identity(perm: Perm) -> bool:
    """Whether `perm` moves nothing."""
    return perm == tuple(range(len(perm)))


def grow(y: ir.Value, perm: Perm, edit: Edit) -> tuple[dict[ir.Value, Perm], list[ir.Node]]:
    """The values that would be transposed, and by what, and the nodes to remap, in order."""
    values = {y: perm}
    nodes: list[ir.Node] = []
    home = y.producer()
    pending = list(y.consumers())
    while pending and len(nodes) < MAX_NODES:
        node = pending.pop(0)
        if home is None or node.graph is not home.graph or node in nodes:
            continue
        entries = _entries(node, values)
        after = perm_after(node, {**values, **entries}, edit)
        if after is None:
            continue
        values.update(entries)
        nodes.append(node)
        out = node.outputs[0]
        values[out] = after
        for value in (*entries, out):
            pending.extend(reader for reader in value.consumers() if reader not in nodes)
    return values, nodes


def _entries(node: ir.Node, values: Mapping[ir.Value, Perm]) -> dict[ir.Value, Perm]:
    """Operands of `node` that transposes outside the region give."""
    found: dict[ir.Value, Perm] = {}
    for value in node.inputs:
        source = producer(value, "Transpose")
        if value is None or value in values or source is None:
            continue
        perm = perm_of(source)
        if perm is not None:
            found[value] = perm
    return found


def perm_after(node: ir.Node, values: Mapping[ir.Value, Perm], edit: Edit) -> Perm | None:
    """The permutation past `node`, if the values were transposed as told; None where unproven."""
    if node.op_type not in REMAPPED or node.domain or len(node.outputs) != 1:
        return None
    ghosts: dict[ir.Value, ir.Node] = {}
    for value in node.inputs:
        if value is not None and value in values and value not in ghosts:
            attr = ir.AttrInt64s("perm", list(values[value]))
            ghosts[value] = ir.Node("", "Transpose", [value], [attr])
    inputs = [ghosts[v].outputs[0] if v is not None and v in ghosts else v for v in node.inputs]
    if not ghosts:
        return None
    shadow = ir.Node("", node.op_type, inputs, list(node.attributes.values()))
    first, ghost = next(iter(ghosts.items()))
    found = plan(shadow, ghost.outputs[0], values[first], edit)
    for unreal in (shadow, *ghosts.values()):
        for i in range(len(unreal.inputs)):
            unreal.replace_input_with(i, None)
    return None if found is None else found.perm


def saving(values: Mapping[ir.Value, Perm], nodes: list[ir.Node]) -> int:
    """How many transposes fewer there are once `nodes` are remapped."""
    inside = set(nodes)
    saved = 0
    for value, perm in values.items():
        source = value.producer()
        outside = [reader for reader in value.consumers() if reader not in inside]
        transposes = [reader for reader in outside if is_op(reader, "Transpose")]
        needed = value.is_graph_output() or len(transposes) < len(outside)
        if source not in inside:
            saved += not needed
        elif needed and not is_identity(perm):
            saved -= 1
        for reader in transposes:
            second = perm_of(reader)
            if second is not None and len(second) == len(perm):
                saved += is_identity(tuple(perm[i] for i in second))
    return saved

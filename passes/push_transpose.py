"""Transposes merged, cancelled, and pushed towards where they cancel.

    Transpose(x, identity)                      ->  x
    Transpose(Transpose(x, p), q)               ->  Transpose(x, p[q]) or x
    Add(Transpose(a, p), Transpose(b, p))       ->  Transpose(Add(a, b), p)
    Transpose(Relu(Transpose(x, p)), q)         ->  Relu(x)           where q undoes p
    ReduceMean(Transpose(x, NHWC), [1, 2])      ->  ReduceMean(x, [2, 3])
    Transpose that moves only dimensions of one ->  Reshape, next to another Reshape
    Reshape(Transpose(Reshape(x), p))           ->  Transpose(Reshape(x), q)

A transpose is pushed down, past its only reader, where that saves a node further down; so it ends
up lower each time, and never in two places. `transposition` says how a reader is remapped. A
Reshape after a transpose that splits dimensions, and joins none, splits them as well before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from infc.passes.rewriting import (
    Dim,
    Edit,
    dims,
    producer,
    rewrite,
    sole_consumer,
)
from infc.passes.simplify_reshape import RENAMING
from infc.passes.transposed_region import grow, is_identity, perm_after, saving
from infc.passes.transposition import Perm, Plan, perm_of, plan

MAX_DEPTH = 12
"""Readers looked at, one after the other, for a place where a pushed transpose pays."""


class PushTranspose(ir.passes.InPlacePass):
    """Merge, cancel and push transposes."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node once; a pushed transpose comes later, and is visited again."""
        return rewrite(model, {"Transpose": _transpose, "Reshape": _split_before})


def _transpose(node: ir.Node, edit: Edit) -> bool:
    perm = perm_of(node)
    x, y = node.inputs[0], node.outputs[0]
    if perm is None or x is None:
        return False
    if is_identity(perm):
        return edit.forward(y, x)
    inner = producer(x, "Transpose")
    first = perm_of(inner) if inner is not None else None
    if inner is not None and first is not None and len(first) == len(perm):
        both = tuple(first[i] for i in perm)
        source = inner.inputs[0]
        if source is not None and is_identity(both):
            return edit.forward(y, source)
        edit.replace(y, "Transpose", [source], {"perm": both})
        return True
    return _to_reshape(node, x, perm, edit) or _push(y, perm, edit) or _remap_region(y, perm, edit)


def _to_reshape(node: ir.Node, x: ir.Value, perm: Perm, edit: Edit) -> bool:
    """Make it a Reshape that merges with its neighbour, where only dimensions of one move."""
    shape = dims(x)
    y = node.outputs[0]
    reader = sole_consumer(y)
    neighbours = (x.producer(), reader)
    if shape is None or len(shape) != len(perm):
        return False
    if not any(n is not None and n.op_type in RENAMING and not n.domain for n in neighbours):
        return False
    moved = [axis for axis in perm if shape[axis] != 1]
    if moved != sorted(moved):
        return False
    after: list[Dim] = [shape[axis] for axis in perm]
    if sum(not isinstance(n, int) for n in after) > 1:
        return False
    target = [n if isinstance(n, int) else -1 for n in after]
    edit.replace(y, "Reshape", [x, edit.ints(target, f"{y.name}_shape", node)])
    return True


def _split_before(node: ir.Node, edit: Edit) -> bool:
    """Reshape(Transpose(x, p)) -> Transpose(Reshape(x), q), where another Reshape gives x."""
    transpose = producer(node.inputs[0], "Transpose")
    x = transpose.inputs[0] if transpose is not None else None
    if transpose is None or x is None or sole_consumer(transpose.outputs[0]) is not node:
        return False
    if producer(x, *RENAMING) is None or sole_consumer(x) is not transpose:
        return False
    perm, before, after = perm_of(transpose), dims(x), dims(node.outputs[0])
    if perm is None or before is None or after is None or len(before) != len(perm):
        return False
    groups = split_groups([before[axis] for axis in perm], after)
    if groups is None:
        return False
    order = [i for axis in range(len(perm)) for i in groups[perm.index(axis)]]
    if sum(not isinstance(after[i], int) for i in order) > 1:
        return False
    y = node.outputs[0]
    target = [n if isinstance(n := after[i], int) else -1 for i in order]
    split = edit.emit(
        "Reshape",
        [x, edit.ints(target, f"{y.name}_shape", node)],
        at=transpose,
        dtype=y.dtype,
        shape=[after[i] for i in order],
    )
    edit.replace(y, "Transpose", [split], {"perm": [order.index(i) for i in range(len(order))]})
    return True


def split_groups(joined: Sequence[Dim], split: Sequence[Dim]) -> list[list[int]] | None:
    """For each dimension of `joined` the indices in `split` it falls into; None where not so.

    Dimensions of one belong to the group before which, or at the end after which, they stand.
    """
    groups: list[list[int]] = []
    j = 0
    for dim in joined:
        group: list[int] = []
        product: Dim = 1
        while product != dim:
            if j == len(split) or product is None:
                return None
            n = split[j]
            if isinstance(n, int) and isinstance(product, int):
                product *= n
            elif product == 1:
                product = n
            else:
                return None
            if isinstance(product, int) and isinstance(dim, int) and product > dim:
                return None
            group.append(j)
            j += 1
        if dim is None:
            return None
        groups.append(group)
    if not groups or any(n != 1 for n in split[j:]):
        return None
    groups[-1].extend(range(j, len(split)))
    return groups


def _push(y: ir.Value, perm: Perm, edit: Edit) -> bool:
    """Push past the only reader, where that pays, or past all where nothing of it is left."""
    reader = _reader(y)
    if reader is None:
        return _dissolve(y, perm, edit)
    found = plan(reader, y, perm, edit)
    if found is None or not _owned(reader):
        return False
    out = reader.outputs[0]
    saves = found.transposes > 1 or is_identity(found.perm) or _pays(out, found.perm, edit, 0)
    if not saves:
        return False
    _carry_out(reader, found, edit)
    return True


def _carry_out(reader: ir.Node, found: Plan, edit: Edit) -> None:
    """Let `reader` read what was transposed, and transpose what it gives."""
    out = reader.outputs[0]
    inputs = [value(edit) if callable(value) else value for value in found.inputs]
    if is_identity(found.perm):
        edit.replace(out, reader.op_type, inputs, found.attributes)
        return
    before = edit.emit(
        reader.op_type,
        inputs,
        found.attributes,
        at=reader,
        dtype=out.dtype,
        shape=_shape(out, found),
    )
    edit.replace(out, "Transpose", [before], {"perm": found.perm})


def _remap_region(y: ir.Value, perm: Perm, edit: Edit) -> bool:
    """Remap all that lies between transposes, where that leaves fewer of them."""
    values, nodes = grow(y, perm, edit)
    if not nodes or saving(values, nodes) <= 0:
        return False
    modified = False
    for node in nodes:
        operand = next((v for v in node.inputs if producer(v, "Transpose") is not None), None)
        source = producer(operand, "Transpose")
        order = perm_of(source) if source is not None else None
        found = plan(node, operand, order, edit) if operand is not None and order else None
        if found is not None:
            _carry_out(node, found, edit)
            modified = True
    return modified


def _reader(value: ir.Value) -> ir.Node | None:
    """The only reader, also where it reads `value` twice."""
    readers = value.consumers()
    home = value.producer()
    if len(readers) != 1 or value.is_graph_output() or home is None:
        return None
    return readers[0] if readers[0].graph is home.graph else None


def _dissolve(y: ir.Value, perm: Perm, edit: Edit) -> bool:
    """Let every reader read the tensor itself, where each then gives what it gave before."""
    home = y.producer()
    readers = y.consumers()
    if home is None or not readers or y.is_graph_output():
        return False
    plans = [plan(reader, y, perm, edit) for reader in readers if reader.graph is home.graph]
    found = [p for p in plans if p is not None and p.transposes == 1 and is_identity(p.perm)]
    if len(found) != len(readers):
        return False
    for reader, p in zip(readers, found, strict=True):
        _carry_out(reader, p, edit)
    return True


def _owned(reader: ir.Node) -> bool:
    """Whether every transpose that `reader` reads is read by it alone, and so goes away."""
    sources = [producer(value, "Transpose") for value in reader.inputs]
    return all(_reader(s.outputs[0]) is reader for s in sources if s is not None)


def _pays(value: ir.Value, perm: Perm, edit: Edit, depth: int) -> bool:
    """Whether a Transpose by `perm` after `value` would meet one to merge with further down."""
    readers = value.consumers()
    if value.is_graph_output() and not readers:
        return False
    home = value.producer()
    for reader in readers:
        if home is None or reader.graph is not home.graph or reader.domain:
            continue
        if reader.op_type == "Transpose":
            return True
    if depth >= MAX_DEPTH or len(readers) != 1 or value.is_graph_output():
        return False
    after = perm_after(readers[0], {value: perm}, edit)
    if after is None or len(readers[0].outputs) != 1:
        return False
    return is_identity(after) or _pays(readers[0].outputs[0], after, edit, depth + 1)


def _shape(out: ir.Value, found: Plan) -> list[Dim] | None:
    """The shape before the transpose that gives `out`."""
    shape = dims(out)
    if shape is None or len(shape) != len(found.perm):
        return None
    before: list[Dim] = [None] * len(shape)
    for i, axis in enumerate(found.perm):
        before[axis] = shape[i]
    return before

"""Gathering and scattering, with indices that are not negative.

| operator | what MindSpore Lite 2.0.0 does with it |
|---|---|
| GatherND with a negative index; ScatterND with one | refused; wrong or a crash |
| GatherND with `batch_dims` | ignores them |
| GatherElements of rank 4, or along a shorter axis, with computed indices | segmentation fault |
| ScatterElements, Compress, ReverseSequence | no kernel |
| OneHot with negative indices or of integers | wrong, refused |
| TopK of the least, or unsorted | of the greatest; in any order |
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    Array,
    Edit,
    attribute,
    const_array,
    dtype_of,
    given,
    rank,
    scalar_of,
    static_dims,
)
from infc.targets.mindspore_lite_lowering.elementwise import INTEGERS
from infc.targets.mindspore_lite_lowering.formula import (
    Formula,
    required,
    set_attributes,
    settle,
    settled,
)

MAX_INDICES = 1 << 20
"""Coordinates are written out for no more elements than this."""


def _counted(f: Formula, indices: ir.Value, sizes: Array) -> ir.Value:
    """`indices` from the front: `sizes` is added where they are negative."""
    array = const_array(indices)
    if array is not None:
        wanted = np.where(array < 0, array + sizes, array).astype(np.int64)
        return indices if np.array_equal(array, wanted) else f.constant(wanted)
    dtype = dtype_of(indices) or ir.DataType.INT64
    below = f.cast(f.op("Less", indices, f.constant(np.zeros((), dtype.numpy()))), dtype)
    return f.add(indices, f.mul(below, f.constant(np.asarray(sizes, dtype.numpy()))))


def _gather(node: ir.Node, edit: Edit) -> bool:
    x, indices = required(node, 0), required(node, 1)
    depth, shape = rank(x), static_dims(x)
    if depth is None:
        return False
    axis = attribute(node, "axis", 0) % depth
    changed = set_attributes(node, axis=axis)
    array = const_array(indices)
    if shape is not None and array is not None and (array < 0).any():
        positive = _counted(Formula(node, edit), indices, np.array(shape[axis]))
        node.replace_input_with(1, positive)
        changed = True
    return changed


def _coordinates(shape: Sequence[int], axes: int) -> Array:
    """(prod(shape), axes): the first `axes` coordinates of every element, in order."""
    grid = np.indices(shape, dtype=np.int64).reshape(len(shape), -1)
    return grid[:axes].T


def _gather_nd(node: ir.Node, edit: Edit) -> bool:
    x, indices = required(node, 0), required(node, 1)
    shape, own = static_dims(x), static_dims(indices)
    batch = attribute(node, "batch_dims", 0)
    if shape is None or own is None or prod(own) > MAX_INDICES:
        return False
    f = Formula(node, edit)
    if not batch:
        return _positive_nd(node, f, shape, own, 1)
    lead = _coordinates(own[:-1], batch).reshape(*own[:-1], batch)
    if dtype_of(indices) == ir.DataType.INT32:
        lead = lead.astype(np.int32)
    array = const_array(indices)
    if array is not None:
        whole = f.constant(np.concatenate([lead, array.astype(lead.dtype)], -1))
    else:
        whole = f.concat([f.constant(lead), indices], len(own) - 1)
    return f.finish(f.op("GatherND", x, whole))


def _positive_nd(
    node: ir.Node, f: Formula, shape: Sequence[int], own: Sequence[int], index: int
) -> bool:
    if settled(node):
        return False
    settle(node.outputs[0])
    indices = required(node, index)
    positive = _counted(f, indices, np.array(shape[: own[-1]]))
    if positive is indices:
        return False
    node.replace_input_with(index, positive)
    return True


def _scatter_nd(node: ir.Node, edit: Edit) -> bool:
    shape, own = static_dims(node.inputs[0]), static_dims(node.inputs[1])
    if shape is None or own is None:
        return False
    return _positive_nd(node, Formula(node, edit), shape, own, 1)


def _whole_coordinates(node: ir.Node, f: Formula) -> tuple[ir.Value, tuple[int, ...]] | None:
    """(elements, rank): where each element of the indices points, and the indices' shape.

    Constants but for the axis; None where a shape is not known or there are too many.
    """
    indices = required(node, 1)
    shape, own = static_dims(node.inputs[0]), static_dims(indices)
    if shape is None or own is None or prod(own) * len(own) > MAX_INDICES:
        return None
    axis = attribute(node, "axis", 0) % len(shape)
    dtype = np.int32 if dtype_of(indices) == ir.DataType.INT32 else np.int64
    grid = _coordinates(own, len(own)).astype(dtype)
    array = const_array(indices)
    if array is not None:
        grid[:, axis] = np.where(array < 0, array + shape[axis], array).reshape(-1)
        return f.constant(grid), own
    counted = f.reshape(_counted(f, indices, np.array(shape[axis])), (-1, 1))
    columns = [counted if i == axis else f.constant(grid[:, i : i + 1]) for i in range(len(own))]
    return f.concat(columns, 1), own


def _gather_elements(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    found = _whole_coordinates(node, f)
    if found is None:
        return False
    places, own = found
    return f.finish(f.reshape(settle(f.op("GatherND", required(node, 0), places)), own))


def _scatter_elements(node: ir.Node, edit: Edit) -> bool:
    if attribute(node, "reduction", "none") != "none":
        return False
    f = Formula(node, edit)
    found = _whole_coordinates(node, f)
    if found is None:
        return False
    updates = f.reshape(required(node, 2), (-1,))
    return f.finish(settle(f.op("ScatterND", required(node, 0), found[0], updates)))


def _one_hot(node: ir.Node, edit: Edit) -> bool:
    """Where the index, counted from the front, is the place; `off` for what is out of range."""
    indices, depth = required(node, 0), scalar_of(node.inputs[1])
    values, ranks = const_array(given(node, 2)), rank(indices)
    floating = dtype_of(given(node, 2)) in (ir.DataType.FLOAT, *INTEGERS)
    if depth is None or values is None or ranks is None or not floating:
        return False
    axis = attribute(node, "axis", -1) % (ranks + 1)
    f = Formula(node, edit)
    count = int(depth)
    wide = f.unsqueeze(indices, (axis,))
    whole = dtype_of(indices) or ir.DataType.INT64
    if whole not in INTEGERS:
        whole = ir.DataType.INT64
        wide = f.cast(wide, whole)
    places = np.arange(count, dtype=whole.numpy())
    shape = [-1 if i == axis else 1 for i in range(ranks + 1)]
    hits = f.logical_or(
        f.equal(wide, f.constant(places.reshape(shape))),
        f.equal(wide, f.constant((places - count).reshape(shape))),
    )
    off, on = (np.float32(v) for v in values.reshape(-1))
    found = f.op("Mul", f.cast(hits, ir.DataType.FLOAT), f.constant(on - off))
    found = f.op("Add", found, f.constant(off))
    target = dtype_of(given(node, 2))
    if target in INTEGERS:
        found = f.cast(found, ir.DataType(target))
    return f.finish(found)


def _top_k(node: ir.Node, edit: Edit) -> bool:
    f = Formula(node, edit)
    x = required(node, 0)
    depth = rank(x)
    if depth is None:
        return False
    axis = attribute(node, "axis", -1) % depth
    if attribute(node, "largest", 1):
        return set_attributes(node, axis=axis, largest=1, sorted=1)
    negated = f.neg(x)
    attributes = {"axis": axis, "largest": 1, "sorted": 1}
    values, indices = node.outputs
    least, places = (
        ir.Value(name=edit.fresh(f"{v.name}_of_negated"), type=v.type, shape=v.shape)
        for v in (values, indices)
    )
    top = ir.Node(
        "",
        "TopK",
        [negated, node.inputs[1]],
        [ir.AttrInt64(k, v) for k, v in attributes.items()],
        outputs=[least, places],
        name=f"{node.name}/least",
    )
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_before(node, top)
    _rename(indices, places)
    return f.finish(f.neg(least))


def _rename(old: ir.Value, new: ir.Value) -> None:
    """Let `new` take the place and the name of `old`."""
    name, old.name = old.name, None
    new.name = name
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def _compress(node: ir.Node, edit: Edit) -> bool:
    kept = const_array(given(node, 1))
    if kept is None or not kept.any():
        return False
    f = Formula(node, edit)
    x = required(node, 0)
    places = np.flatnonzero(kept)
    if "axis" not in node.attributes:
        return f.finish(f.gather(f.reshape(x, (-1,)), places, 0))
    depth = rank(x)
    if depth is None:
        return False
    return f.finish(f.gather(x, places, attribute(node, "axis") % depth))


def _reverse_sequence(node: ir.Node, edit: Edit) -> bool:
    """One constant permutation of all (time, batch) places."""
    shape, lengths = static_dims(node.inputs[0]), const_array(given(node, 1))
    if shape is None or lengths is None:
        return False
    time = attribute(node, "time_axis", 0)
    batch = attribute(node, "batch_axis", 1)
    f = Formula(node, edit)
    x = required(node, 0)
    order = [time, batch, *range(2, len(shape))]
    steps, count = shape[time], shape[batch]
    places = np.arange(steps * count).reshape(steps, count)
    for b, length in enumerate(lengths):
        places[:length, b] = places[:length, b][::-1]
    moved = f.reshape(f.transpose(x, order), (steps * count, *shape[2:]))
    turned = f.reshape(f.gather(moved, places.reshape(-1), 0), (steps, count, *shape[2:]))
    return f.finish(f.transpose(turned, [order.index(i) for i in range(len(shape))]))


RULES = {
    "Compress": _compress,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "ReverseSequence": _reverse_sequence,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TopK": _top_k,
}

"""Chains of nodes that only rename the dimensions of a tensor, made one node or none.

    Reshape(Reshape(x, a), b)  ->  Reshape(x, b)       also Flatten, Squeeze, Unsqueeze before it
    Reshape(x, shape of x)     ->  x
    Squeeze(Unsqueeze(x, a), a) -> x                   also the other way round
    Unsqueeze(Unsqueeze(x))    ->  one of both         also Squeeze
    Flatten(x)                 ->  x                   where x has two dimensions already

All of these keep the elements and their order, so a chain is decided by its last shape. A 0 in a
target shape copies a dimension of the node's own input (unless `allowzero`): it must be a known
number, or the same dimension of the new input, before the chain is cut. Squeeze and Unsqueeze
hold their axes as attributes up to opset 12, as inputs from 13 on.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from infc.passes.rewriting import (
    Dim,
    Edit,
    attribute,
    const_array,
    const_tensor,
    dims,
    given,
    int_list,
    is_given,
    kept,
    normal_axes,
    producer,
    rank,
    rewrite,
    sole_consumer,
)

RENAMING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


class SimplifyReshape(ir.passes.InPlacePass):
    """Merge and remove Reshape, Flatten, Squeeze and Unsqueeze."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node once."""
        return rewrite(model, dict.fromkeys(RENAMING, _simplify))


def _simplify(node: ir.Node, edit: Edit) -> bool:
    x, y = node.inputs[0], node.outputs[0]
    if x is None:
        return False
    before = dims(x)
    after = _result(node)
    if _provably_equal(before, after) or _keeps(node, before):
        return edit.forward(y, x)
    inner = producer(x, *RENAMING)
    source = inner.inputs[0] if inner is not None else None
    if inner is None or source is None:
        return _make_constant(node, edit)
    if _provably_equal(dims(source), after) or _undone(inner, node):
        return edit.forward(y, source)
    if node.op_type == inner.op_type and node.op_type in ("Squeeze", "Unsqueeze"):
        axes = _joined_axes(inner, node)
        if axes is not None:
            _replace_axes(y, node, source, axes, edit)
            return True
    return _reshape_once(node, source, after, edit) or _make_constant(node, edit)


def _result(node: ir.Node) -> tuple[Dim, ...] | None:
    """The shape `node` gives: what was inferred, or what its target shape says."""
    known = dims(node.outputs[0])
    target = _target(node)
    if target is None:
        return known
    told: list[Dim] = [n if n >= 0 else None for n in target]
    into = dims(node.inputs[0])
    for i, n in enumerate(target):
        if n == 0 and not attribute(node, "allowzero", 0):
            told[i] = into[i] if into is not None and i < len(into) else None
    if known is None or len(known) != len(told):
        return tuple(told)
    return tuple(a if a is not None else b for a, b in zip(told, known, strict=True))


def _target(node: ir.Node) -> tuple[int, ...] | None:
    """The constant target shape of a Reshape."""
    if node.op_type != "Reshape":
        return None
    array = const_array(given(node, 1))
    return None if array is None else tuple(int(n) for n in array.reshape(-1))


def _keeps(node: ir.Node, before: Sequence[Dim] | None) -> bool:
    """Whether a Reshape copies every dimension but one, whose -1 then is what is left of it.

    The copied ones may be unknown: where one of them is 0 the -1 has no value, and no answer.
    """
    target = _target(node)
    if target is None or before is None or len(target) != len(before):
        return False
    if 0 in target and attribute(node, "allowzero", 0):
        return False
    pairs = zip(target, before, strict=True)
    return target.count(-1) <= 1 and all(n in (-1, 0) or n == dim for n, dim in pairs)


def _provably_equal(a: Sequence[Dim] | None, b: Sequence[Dim] | None) -> bool:
    """Whether two shapes of the same elements are equal; the last unproven dimension follows."""
    if a is None or b is None or len(a) != len(b):
        return False
    pairs = list(zip(a, b, strict=True))
    unproven = [pair for pair in pairs if pair[0] is None or pair[0] != pair[1]]
    if len(unproven) != 1:
        return not unproven
    proven = [m for m, n in pairs if m is not None and m == n]
    numbers = all(isinstance(n, int) for n in unproven[0])
    return not numbers and all(isinstance(n, int) and n > 0 for n in proven)


def _undone(inner: ir.Node, node: ir.Node) -> bool:
    """Whether Squeeze and Unsqueeze with the same axes follow each other."""
    if {inner.op_type, node.op_type} != {"Squeeze", "Unsqueeze"}:
        return False
    first, second = _axes(inner), _axes(node)
    return first is not None and first == second


def _axes(node: ir.Node) -> tuple[int, ...] | None:
    """The axes of a Squeeze or Unsqueeze, sorted, from the front of its larger shape."""
    axes = int_list(node, "axes", 1)
    if axes is None:
        shape = dims(node.inputs[0])
        if node.op_type != "Squeeze" or is_given(node, "axes", 1) or shape is None:
            return None
        if not all(isinstance(n, int) for n in shape):
            return None
        return tuple(i for i, n in enumerate(shape) if n == 1)
    if all(axis >= 0 for axis in axes):
        return tuple(sorted(axes))
    into = rank(node.inputs[0])
    if into is None:
        return None
    larger = into + len(axes) if node.op_type == "Unsqueeze" else into
    found = normal_axes(axes, larger)
    return None if found is None else tuple(sorted(found))


def _joined_axes(inner: ir.Node, node: ir.Node) -> tuple[int, ...] | None:
    """The axes of the one node that does what `inner` and then `node` do."""
    first, second = _axes(inner), _axes(node)
    if first is None or second is None:
        return None
    small, large = (first, second) if node.op_type == "Unsqueeze" else (second, first)
    bound = max((*small, *large)) + len(small) + len(large) + 1
    left = [i for i in range(bound) if i not in large]
    return tuple(sorted((*large, *(left[i] for i in small))))


def _replace_axes(
    y: ir.Value, node: ir.Node, x: ir.Value, axes: tuple[int, ...], edit: Edit
) -> None:
    if edit.opset < 13:
        edit.replace(y, node.op_type, [x], {"axes": axes})
    else:
        edit.replace(y, node.op_type, [x, edit.ints(axes, f"{y.name}_axes", node)])


def _reshape_once(
    node: ir.Node, source: ir.Value, after: tuple[Dim, ...] | None, edit: Edit
) -> bool:
    """Replace the chain by one Reshape of `source`."""
    y = node.outputs[0]
    target = _target(node)
    literal = bool(attribute(node, "allowzero", 0))
    if target is not None and (0 not in target or literal):
        edit.replace(y, "Reshape", [source, node.inputs[1]], kept(node))
        return True
    if node.op_type == "Reshape" and (target is None or literal):
        return False
    x = node.inputs[0]
    if after is None or x is None or sole_consumer(x) is not node:
        return False
    shape = _as_target(after, dims(source))
    if shape is None:
        return False
    edit.replace(y, "Reshape", [source, edit.ints(shape, f"{y.name}_shape", node)])
    return True


def _make_constant(node: ir.Node, edit: Edit) -> bool:
    """Reshape to a computed shape that inference knows: to that shape, as a constant.

    Not with both a copied and an inferred dimension: of an empty tensor that is ambiguous.
    """
    y = node.outputs[0]
    after = dims(y)
    if node.op_type != "Reshape" or const_tensor(given(node, 1)) is not None or after is None:
        return False
    shape = _as_target(after, dims(node.inputs[0]))
    if shape is None or {0, -1} <= set(shape):
        return False
    target = edit.ints(shape, f"{y.name}_shape", node)
    edit.replace(y, "Reshape", [node.inputs[0], target])
    return True


def _as_target(after: tuple[Dim, ...], before: tuple[Dim, ...] | None) -> tuple[int, ...] | None:
    """`after` as a target shape: numbers, a 0 where a symbol stands at the same place, one -1."""
    shape: list[int] = []
    for i, dim in enumerate(after):
        if isinstance(dim, int):
            shape.append(dim)
        elif dim is not None and before is not None and i < len(before) and before[i] == dim:
            shape.append(0)
        else:
            shape.append(-1)
    if shape.count(-1) > 1 or (-1 in shape and any(n == 0 for n in after)):
        return None
    return tuple(shape)

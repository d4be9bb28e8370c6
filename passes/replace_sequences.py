"""Sequences of known length, replaced by the tensors they hold.

    SequenceAt(SplitToSequence(x, s), i)             ->  output i of Split(x, s)
    SequenceAt(SequenceConstruct(a, b, ...), i)      ->  a, b, ...
    ConcatFromSequence(SequenceConstruct(a, ...))    ->  Concat(a, ...)
    Squeeze of every part of Split(x, [1, 1, ...])   ->  Gather(x, 0), Gather(x, 1), ...

Indices are constants, and every reader of the sequence is replaced. A single number of
SplitToSequence-11 is the size of the parts, the last of which may be smaller.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    Edit,
    attribute,
    const_array,
    dims,
    given,
    int_list,
    is_op,
    normal_axes,
    producer,
    rank,
    rewrite,
    scalar_of,
    sole_consumer,
)

MAX_PARTS = 256


class ReplaceSequences(ir.passes.InPlacePass):
    """Replace sequences, and unbound parts, by tensors."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node once."""
        return rewrite(
            model,
            {
                "SplitToSequence": _split,
                "SequenceAt": _at,
                "ConcatFromSequence": _concat,
                "Split": _unbind,
            },
        )


def _split(node: ir.Node, edit: Edit) -> bool:
    sizes = _sizes(node)
    sequence = node.outputs[0]
    if sizes is None or sequence.is_graph_output():
        return False
    readers = sequence.consumers()
    positions = [_index(reader, sequence, len(sizes)) for reader in readers]
    if not readers or any(p is None for p in positions):
        return False
    if any(reader.graph is not node.graph for reader in readers):
        return False
    axis = int(attribute(node, "axis", 0))
    parts = [edit.fresh(f"{sequence.name}_{i}") for i in range(len(sizes))]
    outputs = [ir.Value(name=name, type=_part_type(node)) for name in parts]
    inputs: list[ir.Value | None] = [node.inputs[0]]
    attributes: list[ir.Attr] = [ir.AttrInt64("axis", axis)]
    if edit.opset >= 13:
        inputs.append(edit.ints(sizes, f"{sequence.name}_sizes", node))
    else:
        attributes.append(ir.AttrInt64s("split", sizes))
    split = ir.Node("", "Split", inputs, attributes, outputs=outputs, name=node.name)
    if node.graph is None:
        return False
    node.graph.insert_before(node, split)
    for reader, position in zip(readers, positions, strict=True):
        edit.forward(reader.outputs[0], outputs[position or 0])
    return True


def _part_type(node: ir.Node) -> ir.TensorType | None:
    x = node.inputs[0]
    return ir.TensorType(x.dtype) if x is not None and x.dtype is not None else None


def _sizes(node: ir.Node) -> list[int] | None:
    """The sizes of the parts of a SplitToSequence that keeps its dimension."""
    array = const_array(given(node, 1))
    if array is None:
        return None
    if array.ndim == 1:
        return [int(n) for n in array]
    shape, step = dims(node.inputs[0]), int(array)
    axes = None if shape is None else normal_axes([attribute(node, "axis", 0)], len(shape))
    size = None if shape is None or axes is None else shape[axes[0]]
    if not isinstance(size, int) or step <= 0 or size > step * MAX_PARTS:
        return None
    return [min(step, size - start) for start in range(0, size, step)]


def _index(reader: ir.Node, sequence: ir.Value, length: int) -> int | None:
    """Which part a SequenceAt takes."""
    if not is_op(reader, "SequenceAt") or reader.inputs[0] is not sequence:
        return None
    position = scalar_of(reader.inputs[1])
    if not isinstance(position, int) or not -length <= position < length:
        return None
    return position % length


def _at(node: ir.Node, edit: Edit) -> bool:
    made = producer(node.inputs[0], "SequenceConstruct")
    if made is None:
        return False
    position = _index(node, made.outputs[0], len(made.inputs))
    part = None if position is None else made.inputs[position]
    return part is not None and edit.forward(node.outputs[0], part)


def _concat(node: ir.Node, edit: Edit) -> bool:
    made = producer(node.inputs[0], "SequenceConstruct")
    if made is None or attribute(node, "new_axis", 0):
        return False
    axis = int(attribute(node, "axis", 0))
    edit.replace(node.outputs[0], "Concat", list(made.inputs), {"axis": axis})
    return True


def _unbind(node: ir.Node, edit: Edit) -> bool:
    """Take each part by its index, where every part is one wide and then squeezed."""
    into = rank(node.inputs[0])
    sizes = int_list(node, "split", 1)
    if into is None or sizes is None or any(size != 1 for size in sizes) or len(sizes) < 2:
        return False
    axes = normal_axes([attribute(node, "axis", 0)], into)
    squeezes = [sole_consumer(part) for part in node.outputs]
    if axes is None or len(sizes) != len(node.outputs):
        return False
    for squeeze in squeezes:
        if squeeze is None or not is_op(squeeze, "Squeeze"):
            return False
        listed = int_list(squeeze, "axes", 1)
        if listed is None or normal_axes(listed, into) != axes:
            return False
    for i, squeeze in enumerate(squeezes):
        if squeeze is not None:
            y = squeeze.outputs[0]
            index = edit.constant(np.array(i, np.int64), f"{y.name}_index", node)
            edit.replace(y, "Gather", [node.inputs[0], index], {"axis": axes[0]})
    return True

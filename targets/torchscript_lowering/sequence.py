"""Sequences of tensors, which are `list[Tensor]`.

Source: ONNX operators SequenceConstruct-11, SequenceInsert-11, SplitToSequence-24,
ConcatFromSequence-11 and kin.
"""

from __future__ import annotations

from infc.targets.torchscript_lowering import Op, boolean, lowers


@lowers("SequenceEmpty")
def empty(op: Op) -> str:
    """The element type is that of what is inserted."""
    return op.let("torch.jit.annotate(list[Tensor], [])")


@lowers("SequenceConstruct")
def construct(op: Op) -> str:
    """At least one tensor."""
    return f"[{', '.join(op.all())}]"


@lowers("SequenceAt")
def at(op: Op) -> str:
    """A negative position counts from the end."""
    return f"{op.x(0)}[{op.int_input(1, '0')}]"


@lowers("SequenceLength")
def length(op: Op) -> str:
    """An int64 scalar."""
    return f"torch.tensor(len({op.x(0)}), dtype=torch.int64)"


@lowers("SequenceInsert")
def insert(op: Op) -> str:
    """At the end by default."""
    return op.call("inserted", op.x(0), op.x(1), op.int_input(2, f"len({op.x(0)})"))


@lowers("SequenceErase")
def erase(op: Op) -> str:
    """The last one by default."""
    return op.call("erased", op.x(0), op.int_input(1, "-1"))


@lowers("ConcatFromSequence")
def concat(op: Op) -> str:
    """Along an axis, a new one where new_axis says so."""
    function = "stack" if op.flag("new_axis") else "cat"
    return f"torch.{function}({op.x(0)}, {op.attribute('axis')})"


@lowers("SplitToSequence")
def split(op: Op) -> str:
    """A scalar `split`: parts of that size; a vector: those sizes; none: single slices."""
    axis = op.attribute("axis", 0)
    if not op.has(1):
        return op.call("split_in", op.x(0), 1, axis, boolean(op.flag("keepdims", True)))
    if op.rank(1) == 0:
        return op.call("split_in", op.x(0), op.int_input(1, "1"), axis, "True")
    if op.rank(1) is None:
        op.refuse("the rank of `split` is not known")
    return f"torch.split_with_sizes({op.x(0)}, {op.ints('', 1)}, {axis})"

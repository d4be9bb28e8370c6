"""What MindSpore Lite 2.0.0 converts, loads and computes rightly, operator by operator.

Measured, not read: every operator alone, over ranks 0 to 6, element types, constant and computed
operands and sizes from one element to some thousands, at one thread and at four. The converter's
own word is worth nothing: it writes files that do not load, that answer wrongly and that crash.
What is not here is refused before it runs.

Layout, as measured: with the converter's `input_format` NCHW every input and output has the model's
own layout and names, whatever its rank and however many there are.

Types: float32; int32; int64, which the artifact holds as int32; bool; uint8 to be cast.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from infc.passes.rewriting import const_tensor, dims, dtype_of, given, rank, static_dims
from infc.targets.mindspore_lite_conditions import (
    FLOAT,
    INTEGERS,
    Condition,
    argmax,
    bounded_below,
    conversion,
    convolution,
    equal_shapes,
    inference,
    matrices,
    none_left,
    pool,
    power,
    recurrent,
    remainder,
    resize,
    slope,
    space_to_depth,
    two_operands,
    unscaled,
)
from infc.targets.mindspore_lite_lowering.formula import shape_of

Row = tuple[str, str, str, str]
"""Node name, operator type, domain, reason."""

TYPES = {
    "f": FLOAT,
    "i": INTEGERS,
    "b": ("BOOL",),
    "u": ("UINT8",),
}
MAX_RANK = 8
INT32 = (-(2**31), 2**31 - 1)
BODIES = ("If", "Loop", "Scan", "SequenceMap")

NO_KERNEL = "MindSpore Lite has no operator for it, and there is no rule that says it otherwise"
REWRITTEN = "it is rewritten only where its shapes are known and its parameters constant"
WITH_BODY = "MindSpore Lite's converter crashes on subgraphs"
FOREIGN = "operators of this domain are not known to MindSpore Lite"
CONSTANT = "an output is no more than a constant, or an input of this type"
UNKNOWN_TYPE = "it is not computed in an unknown type"
UNKNOWN_RANK = "the rank of its input is not known"
UNKNOWN_SHAPES = "its shapes are not all known; give them with `--input`"
OPEN = (UNKNOWN_TYPE, UNKNOWN_RANK, UNKNOWN_SHAPES)


@dataclass(frozen=True, slots=True)
class Takes:
    """What is taken of one operator.

    `types` are those of the first input, by the letters of `TYPES`; `constant` the inputs that
    have to be known; `static` whether all shapes have to be; `rank` the least and greatest of the
    first input; `also` a condition of its own, which returns a reason against the node or "".
    """

    types: str = "f"
    constant: tuple[int, ...] = ()
    static: bool = False
    rank: tuple[int, int] = (0, MAX_RANK)
    also: Condition | None = None


def unsupported(model: ir.Model) -> list[Row]:
    """Every node that MindSpore Lite cannot take, in graph order, bodies included.

    A node that is refused only because another refused one leaves its input's type or shape open
    is not listed.
    """
    found = []
    refused: set[ir.Value] = set()
    for node in _nodes(model):
        reason = _reason(node)
        if reason:
            open_inputs = [v for v in node.inputs if v in refused and _is_open(v)]
            refused.update(node.outputs)
            if open_inputs and reason in OPEN:
                continue
            name = node.name or next((v.name for v in node.outputs if v.name), "") or ""
            found.append((name, node.op_type, node.domain, reason))
    found += [
        (value.name or "", "Identity", "", CONSTANT)
        for value in model.graph.outputs
        if value.producer() is None
    ]
    return found


def lost_halves(model: ir.Model) -> list[Row]:
    """Every node that the runtime fails to compute on several threads once its weights are float16.

    It packs them anew for another shape, from what it has freed by then: only those of
    a Conv over single pixels serve every batch.
    """
    reason = (
        "on several threads the runtime loses float16 weights when a shape changes: fix the shapes "
        "with `--input`, or `--precision fp32`"
    )
    return [
        (node.name or "", node.op_type, node.domain, reason)
        for node in _nodes(model)
        if _packs_anew(node) and any(const_tensor(v) is not None for v in node.inputs)
    ]


def _packs_anew(node: ir.Node) -> bool:
    """Whether the runtime packs the weights of `node` again when a shape changes."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return False
    shape = dims(node.inputs[0])
    if shape is None:
        return True
    pixels = node.op_type == "Conv" and (static_dims(node.inputs[1]) or (0,))[2:] == (1, 1)
    first = 2 if pixels else 0
    return not all(isinstance(d, int) for d in shape[first:])


def _is_open(value: ir.Value | None) -> bool:
    return value is not None and (value.dtype is None or value.shape is None)


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from ir.traversal.RecursiveGraphIterator(model.graph)


def _reason(node: ir.Node) -> str:
    if node.domain not in ("", "ai.onnx"):
        return FOREIGN
    if node.op_type in BODIES:
        return WITH_BODY
    takes = TAKES.get(node.op_type)
    if takes is None:
        from infc.targets.mindspore_lite_lowering import rules

        return REWRITTEN if node.op_type in rules() else NO_KERNEL
    if node.inputs and all(v is None or const_tensor(v) is not None for v in node.inputs):
        return CONSTANT
    return _of_values(node) or _of_entry(node, takes)


def _of_values(node: ir.Node) -> str:
    """What rules out a value of any operator."""
    for value in (*node.inputs, *node.outputs):
        if value is None:
            continue
        if value.type is not None and not isinstance(value.type, ir.TensorType):
            return f"`{value.name}` is no tensor"
        shape = shape_of(value)
        if shape is not None and 0 in shape:
            return f"`{value.name}` has no elements: the runtime divides by their number"
        if shape is not None and len(shape) > MAX_RANK:
            return f"`{value.name}` is of rank {len(shape)}; the runtime takes {MAX_RANK}"
    return next((r for v in node.inputs if (r := _beyond_int32(v))), "")


def _beyond_int32(value: ir.Value | None) -> str:
    tensor = const_tensor(value)
    if tensor is None or value is None or tensor.dtype != ir.DataType.INT64 or not tensor.size:
        return ""
    array = tensor.numpy()
    low, high = INT32
    if low <= array.min() and array.max() <= high:
        return ""
    return f"`{value.name}` does not fit into int32, which int64 becomes"


def _of_entry(node: ir.Node, takes: Takes) -> str:
    first = given(node, 0)
    dtype = dtype_of(first)
    names = [name for letter in takes.types for name in TYPES[letter]]
    if dtype is None or dtype.name not in names:
        return UNKNOWN_TYPE if dtype is None else f"it is not computed in {dtype.name.lower()}"
    depth = rank(first)
    if depth is None:
        return UNKNOWN_RANK
    least, greatest = takes.rank
    if not least <= depth <= greatest:
        return f"its input is of rank {depth}; it is taken from {least} to {greatest}"
    for index in takes.constant:
        value = given(node, index)
        if value is not None and const_tensor(value) is None:
            return f"`{value.name}` is computed; it has to be a constant"
    values = (v for v in (*node.inputs, *node.outputs) if v is not None and v.name)
    if takes.static and any(static_dims(v) is None for v in values):
        return UNKNOWN_SHAPES
    return takes.also(node) if takes.also is not None else ""


_UNARY = Takes("f")
_ARITHMETIC = Takes("fi", also=two_operands)
_REDUCTION = Takes("fi", constant=(1,), also=none_left("noop_with_empty_axes"))
_ANY = Takes("fib")

TAKES: dict[str, Takes] = {
    "Abs": Takes("fi"),
    "Add": _ARITHMETIC,
    "And": Takes("b"),
    "ArgMax": Takes("f", rank=(1, 5), also=argmax),
    "AveragePool": Takes("f", rank=(4, 4), also=pool),
    "BatchNormalization": Takes("f", constant=(1, 2, 3, 4), rank=(2, 5), also=inference),
    "Cast": Takes("fibu", also=conversion),
    "Ceil": _UNARY,
    "Clip": Takes("f", constant=(1, 2), also=bounded_below),
    "Concat": _ANY,
    "Conv": Takes("f", constant=(2,), also=convolution),
    "ConvTranspose": Takes("f", constant=(2,), also=convolution),
    "CumSum": Takes("fi", constant=(1,), also=none_left("exclusive", "reverse")),
    "DepthToSpace": Takes("f", rank=(4, 4)),
    "Div": Takes("f"),
    "Elu": _UNARY,
    "Equal": Takes("fi"),
    "Erf": _UNARY,
    "Exp": _UNARY,
    "Expand": Takes("fibu", constant=(1,)),
    "Floor": _UNARY,
    "Gather": _ANY,
    "GatherND": Takes("fi", static=True, also=none_left("batch_dims")),
    "Gelu": _UNARY,
    "Gemm": Takes("f", constant=(2,), also=unscaled),
    "GlobalAveragePool": Takes("f", rank=(4, 4)),
    "GlobalMaxPool": Takes("f", rank=(4, 4)),
    "Greater": Takes("fi"),
    "Identity": Takes("fibu", also=lambda node: CONSTANT),
    "LSTM": Takes("f", constant=(1, 2, 3), also=recurrent),
    "LeakyRelu": _UNARY,
    "Less": Takes("fi"),
    "LessOrEqual": Takes("fi"),
    "Log": _UNARY,
    "LogSoftmax": Takes("f", rank=(1, 5)),
    "MatMul": Takes("f", also=matrices),
    "Max": _ARITHMETIC,
    "MaxPool": Takes("f", rank=(4, 4), also=pool),
    "Min": _ARITHMETIC,
    "Mod": Takes("fi", also=remainder),
    "Mul": _ARITHMETIC,
    "Neg": Takes("fi"),
    "Not": Takes("b"),
    "Or": Takes("b"),
    "PRelu": Takes("f", rank=(4, 4), also=slope),
    "Pad": Takes("f", constant=(1, 2)),
    "Pow": Takes("f", also=power),
    "Range": Takes("fi"),
    "Reciprocal": _UNARY,
    "ReduceMean": _REDUCTION,
    "ReduceMin": _REDUCTION,
    "ReduceProd": _REDUCTION,
    "ReduceSum": _REDUCTION,
    "Relu": Takes("fi"),
    "Reshape": Takes("fib", constant=(1,)),
    "Resize": Takes("f", constant=(1, 2, 3), rank=(4, 4), also=resize),
    "Round": _UNARY,
    "ScatterND": Takes("fi", static=True, also=none_left("reduction")),
    "Shape": Takes("fiu"),
    "Sigmoid": _UNARY,
    "Sin": _UNARY,
    "Slice": Takes("fi", constant=(1, 2, 3, 4)),
    "Softmax": Takes("f", rank=(1, 5)),
    "SpaceToDepth": Takes("f", rank=(4, 4), also=space_to_depth),
    "Split": Takes("f", constant=(1,)),
    "Sqrt": _UNARY,
    "Squeeze": Takes("fib", constant=(1,)),
    "Sub": _ARITHMETIC,
    "Tanh": _UNARY,
    "Tile": Takes("fibu", constant=(1,)),
    "TopK": Takes("fi", constant=(1,)),
    "Transpose": Takes("fibu"),
    "Unsqueeze": Takes("fib", constant=(1,)),
    "Where": Takes("b", also=equal_shapes),
}
"""By operator type; after `mindspore_lite_lowering`, so that what a rule removes is not here."""

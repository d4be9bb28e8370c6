"""Parts of tensors, by position and by index.

Source: ONNX operators Slice-13, Split-18, Concat-13, Pad-24, Gather-13, GatherElements-13,
GatherND-13, ScatterElements-18, ScatterND-18, TopK-11, OneHot-11, Compress-11, NonZero-13,
Unique-11, ReverseSequence-10, TensorScatter-24.
"""

from __future__ import annotations

from infc.targets.torchscript_lowering import Op, boolean, int_list, lowers, number

REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
PAD_MODES = ("constant", "reflect", "edge", "wrap")


@lowers("Slice")
def slice_(op: Op) -> str:
    """Attributes before opset 10, inputs since; steps may be negative."""
    starts, ends = op.known_ints("starts", 1), op.known_ints("ends", 2)
    axes = op.known_ints("axes", 3, range(len(starts or [])))
    steps = op.known_ints("", 4, [1] * len(starts or []))
    if starts is None or ends is None or axes is None or steps is None or min(steps, default=1) < 1:
        axes_source = op.ints("axes", 3) if op.has(3) or op.attribute("axes") else "None"
        steps_source = op.ints("", 4) if op.has(4) else "None"
        starts_source, ends_source = op.ints("starts", 1), op.ints("ends", 2)
        return op.call("slices", op.x(0), starts_source, ends_source, axes_source, steps_source)
    x = op.x(0)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = f"torch.ops.aten.slice({x}, {axis}, {start}, {end}, {step})"
    return x


@lowers("Split")
def split(op: Op) -> list[str]:
    """Sizes: attribute before opset 13, input since; else equal parts, the last one smaller."""
    axis, count = op.attribute("axis", 0), len(op.node.outputs)
    if op.attribute("split") is not None or op.has(1):
        parts = f"torch.split_with_sizes({op.x(0)}, {op.ints('split', 1)}, {axis})"
    else:
        parts = op.call("split_evenly", op.x(0), count, axis)
    return _members(op, parts, count)


def _members(op: Op, parts: str, count: int) -> list[str]:
    name = op.let(parts)
    return [f"{name}[{i}]" for i in range(count)]


@lowers("Concat")
def concat(op: Op) -> str:
    """Along an existing axis. torch skips 1-D empty operands, which is harmless."""
    return f"torch.cat([{', '.join(op.all())}], {op.attribute('axis', 1)})"


@lowers("Pad")
def pad(op: Op) -> str:
    """Pads: attribute before opset 11, input since; `axes` since 18; negative ones crop."""
    mode = op.text("mode", "constant")
    if mode not in PAD_MODES:
        op.refuse(f"mode `{mode}`")
    axes = op.ints("", 3) if op.has(3) else "None"
    known = op.known_ints("pads", 1)
    rank = op.rank()
    if mode == "constant":
        value = _pad_value(op)
        if known is not None and not op.has(3) and rank is not None:
            return f"torch.constant_pad_nd({op.x(0)}, {int_list(torch_pads(known))}, {value})"
        pairs = op.call("pad_pairs", op.ints("pads", 1), axes, f"{op.x(0)}.dim()")
        return f"torch.constant_pad_nd({op.x(0)}, {pairs}, {value})"
    return op.call("pad_by_index", op.x(0), op.ints("pads", 1), axes, f'"{mode}"')


def torch_pads(pads: list[int]) -> list[int]:
    """ONNX's begins, then ends -> torch's pairs from the last axis on."""
    half = len(pads) // 2
    return [p for i in reversed(range(half)) for p in (pads[i], pads[half + i])]


def _pad_value(op: Op) -> str:
    if op.version < 11:
        return number(op.attribute("value", 0.0))
    if not op.has(2):
        return "0"
    if op.dtype(0) == "BOOL":
        return f"int({op.x(2)})"
    known = op.const(2)
    if known is None:
        return f"{'float' if op.is_float() else 'int'}({op.x(2)})"
    value = known.reshape(-1)[0]
    return number(value) if op.is_float() else str(int(value))


@lowers("Gather")
def gather(op: Op) -> str:
    """Negative indices count from the end; a constant scalar index selects."""
    axis = op.attribute("axis", 0)
    known = op.const(1)
    if known is not None and known.ndim == 0:
        return f"torch.select({op.x(0)}, {axis}, {int(known)})"
    if known is not None and known.ndim == 1 and known.size and known.min() >= 0:
        return f"torch.index_select({op.x(0)}, {axis}, {op.x(1)})"
    return op.call("gather", op.x(0), op.x(1), axis)


@lowers("GatherElements")
def gather_elements(op: Op) -> str:
    """One index for each element of the result."""
    return op.call("gather_elements", op.x(0), op.x(1), op.attribute("axis", 0))


@lowers("GatherND")
def gather_nd(op: Op) -> str:
    """The last axis of the indices is a position."""
    return op.call("gather_nd", op.x(0), op.x(1), op.attribute("batch_dims", 0))


@lowers("Scatter", "ScatterElements")
def scatter_elements(op: Op) -> str:
    """Overwrites or combines one element for each index."""
    x, axis = op.x(0), op.attribute("axis", 0)
    index = op.call("wrapped", op.x(1), f"{x}.shape[{axis}]")
    mode = op.text("reduction", "none")
    if mode == "none":
        return f"torch.scatter({x}, {axis}, {index}, {op.x(2)})"
    if mode not in REDUCTIONS:
        op.refuse(f"reduction `{mode}`")
    return f'torch.scatter_reduce({x}, {axis}, {index}, {op.x(2)}, "{REDUCTIONS[mode]}")'


@lowers("ScatterND")
def scatter_nd(op: Op) -> str:
    """Overwrites or combines one slice for each position."""
    mode = op.text("reduction", "none")
    if mode != "none" and mode not in REDUCTIONS:
        op.refuse(f"reduction `{mode}`")
    reduction = REDUCTIONS.get(mode, "none")
    return op.call("scatter_nd", op.x(0), op.x(1), op.x(2), f'"{reduction}"')


@lowers("TopK")
def top_k(op: Op) -> list[str]:
    """Ties go to the lower index, which torch.topk does not promise and a stable sort does."""
    k = str(op.attribute("k")) if op.version < 10 else op.int_input(1, "0")
    axis, largest = op.attribute("axis", -1), boolean(op.flag("largest", True))
    return op.unpack(op.call("top_k", op.x(0), k, axis, largest), 2)


@lowers("OneHot")
def one_hot(op: Op) -> str:
    """Indices outside [-depth, depth) give no hot element."""
    return op.call("one_hot", op.x(0), op.int_input(1, "0"), op.x(2), op.attribute("axis", -1))


@lowers("Compress")
def compress(op: Op) -> str:
    """The condition may be shorter than the axis; without an axis the input is flat."""
    axis = op.attribute("axis")
    x = f"{op.x(0)}.reshape([-1])" if axis is None else op.x(0)
    chosen = f"torch.nonzero({op.x(1)}).reshape([-1])"
    return f"torch.index_select({x}, {axis or 0}, {chosen})"


@lowers("NonZero")
def non_zero(op: Op) -> str:
    """One row for each axis."""
    return f"torch.t(torch.nonzero({op.x(0)}))"


@lowers("Unique")
def unique(op: Op) -> list[str]:
    """Sorted, or in order of the first appearance; counts, inverse and first indices."""
    if op.attribute("axis") is not None:
        op.refuse("an axis")
    sorted_ = boolean(op.flag("sorted", True))
    return op.unpack(op.call("unique", op.x(0), sorted_), 4)


@lowers("ReverseSequence")
def reverse_sequence(op: Op) -> str:
    """Reverses the first sequence_lens[b] elements of each batch entry."""
    time, batch = op.attribute("time_axis", 0), op.attribute("batch_axis", 1)
    return op.call("reverse_sequence", op.x(0), op.x(1), time, batch)

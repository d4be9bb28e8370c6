"""Converters written as tensor expressions: what TVM's operators compute otherwise, or unsafely.

| operator | what TVM 0.27 does with it |
|---|---|
| Gather, GatherElements, GatherND | reads wherever an index points to |
| Mod, BitShift | C's remainder and shift: undefined beyond the width, wrong for negative numbers |
| ReduceMax, ReduceMin | the greatest and least finite number stand for infinity; no booleans |

Source: ONNX, opset 13 and later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def broadcast(bb: Any, hint: str, dtype: str, element: Callable[..., Any], *operands: Any) -> Any:
    """`element` of the operands' elements, which broadcast as NumPy has it; `dtype` comes out."""
    import numpy as np
    from tvm import te

    shapes = [sizes(x) for x in operands]
    shape = np.broadcast_shapes(*shapes)

    def computed(*tensors: Any) -> Any:
        def at(*place: Any) -> Any:
            values = [
                t[
                    tuple(
                        0 if n == 1 else i
                        for n, i in zip(s, place[len(place) - len(s) :], strict=True)
                    )
                ]
                for t, s in zip(tensors, shapes, strict=True)
            ]
            return element(*values)

        return te.compute(tuple(map(int, shape)), at, name=hint)

    return bb.emit_te(computed, *operands, primfunc_name_hint=hint)


def sizes(value: Any) -> tuple[int, ...]:
    """The shape of a Relax expression."""
    return tuple(int(n) for n in value.ty.shape.values)


def dtype_of(value: Any) -> str:
    """The element type of a Relax expression."""
    return str(value.ty.dtype.dtype)


def counted(index: Any, size: int, wide: str = "int64") -> Any:
    """`index` from the front, and within `size`: nothing is read outside of an operand."""
    from tvm import tirx

    index = index.astype(wide)
    index = tirx.if_then_else(index < 0, index + tirx.const(size, wide), index)
    return tirx.max(tirx.const(0, wide), tirx.min(index, tirx.const(max(size - 1, 0), wide)))


def gather(bb: Any, inputs: Any, attr: Mapping[str, Any]) -> Any:
    """Slices along one axis."""
    from tvm import te

    x, indices = inputs[0], inputs[1]
    shape, own = sizes(x), sizes(indices)
    axis = int(attr.get("axis", 0)) % len(shape)
    out = (*shape[:axis], *own, *shape[axis + 1 :])

    def computed(a: Any, b: Any) -> Any:
        def at(*place: Any) -> Any:
            index = counted(b[place[axis : axis + len(own)]], shape[axis])
            return a[(*place[:axis], index, *place[axis + len(own) :])]

        return te.compute(out, at, name="gather")

    return bb.emit_te(computed, x, indices, primfunc_name_hint="gather")


def gather_elements(bb: Any, inputs: Any, attr: Mapping[str, Any]) -> Any:
    """One element for each index, along one axis."""
    from tvm import te

    x, indices = inputs[0], inputs[1]
    shape, own = sizes(x), sizes(indices)
    axis = int(attr.get("axis", 0)) % len(shape)

    def computed(a: Any, b: Any) -> Any:
        def at(*place: Any) -> Any:
            return a[(*place[:axis], counted(b[place], shape[axis]), *place[axis + 1 :])]

        return te.compute(own, at, name="gather_elements")

    return bb.emit_te(computed, x, indices, primfunc_name_hint="gather_elements")


def gather_nd(bb: Any, inputs: Any, attr: Mapping[str, Any]) -> Any:
    """Slices by coordinates."""
    from tvm import te

    x, indices = inputs[0], inputs[1]
    shape, own = sizes(x), sizes(indices)
    batch, depth = int(attr.get("batch_dims", 0)), own[-1]
    lead = len(own) - 1
    out = (*own[:-1], *shape[batch + depth :])

    def computed(a: Any, b: Any) -> Any:
        def at(*place: Any) -> Any:
            found = [counted(b[(*place[:lead], d)], shape[batch + d]) for d in range(depth)]
            return a[(*place[:batch], *found, *place[lead:])]

        return te.compute(out, at, name="gather_nd")

    return bb.emit_te(computed, x, indices, primfunc_name_hint="gather_nd")


def mod(bb: Any, inputs: Any, attr: Mapping[str, Any]) -> Any:
    """The remainder: of the divisor's sign, or with `fmod` of the dividend's."""
    from tvm import tirx

    dtype = dtype_of(inputs[0])
    floating, like_c = "float" in dtype, bool(attr.get("fmod", 0))

    def element(a: Any, b: Any) -> Any:
        if not floating:
            return tirx.truncmod(a, b) if like_c else tirx.floormod(a, b)
        a, b = a.astype("float64"), b.astype("float64")
        zero = tirx.const(0.0, "float64")
        rest = tirx.if_then_else(tirx.isinf(b), a, a - b * tirx.trunc(a / b))
        if not like_c:
            other = tirx.any(tirx.all(rest < zero, b > zero), tirx.all(rest > zero, b < zero))
            rest = tirx.if_then_else(other, rest + b, rest)
        return rest.astype(dtype)

    return broadcast(bb, "mod", dtype, element, inputs[0], inputs[1])


def bit_shift(bb: Any, inputs: Any, attr: Mapping[str, Any]) -> Any:
    """Shifted by as much as is given: beyond the width nothing is left but the sign."""
    from tvm import tirx

    dtype = dtype_of(inputs[0])
    bits = int("".join(c for c in dtype if c.isdigit()))
    left = bytes(attr.get("direction", b"LEFT")) == b"LEFT"

    signed = dtype.startswith("int")

    def element(a: Any, b: Any) -> Any:
        last = tirx.const(bits - 1, dtype)
        by = tirx.min(b, last)
        inside = b <= last
        if signed:
            by = tirx.max(by, tirx.const(0, dtype))
            inside = tirx.all(inside, b >= tirx.const(0, dtype))
        if left:
            return tirx.shift_left(a, by) * inside.astype(dtype)
        if signed:
            return tirx.if_then_else(inside, tirx.shift_right(a, by), tirx.shift_right(a, last))
        return tirx.shift_right(a, by) * inside.astype(dtype)

    return broadcast(bb, "bit_shift", dtype, element, inputs[0], inputs[1])


def one_hot(bb: Any, inputs: Any, attr: Mapping[str, Any]) -> Any:
    """`on` where an index, counted from the front, is the place; `off` everywhere else."""
    from tvm import te, tirx

    from infc.targets.tvm_compiler.importing.converters import constant_of

    indices, depth, values = inputs[0], constant_of(inputs[1]), inputs[2]
    if depth is None:
        raise ValueError("its depth has to be a constant")
    own, count = sizes(indices), int(depth.reshape(-1)[0])
    axis = int(attr.get("axis", -1)) % (len(own) + 1)

    def computed(a: Any, b: Any) -> Any:
        def at(*place: Any) -> Any:
            index = a[(*place[:axis], *place[axis + 1 :])].astype("int64")
            index = tirx.if_then_else(index < 0, index + count, index)
            hit = index == place[axis].astype("int64")
            return tirx.if_then_else(hit, b[1], b[0])

        return te.compute((*own[:axis], count, *own[axis:]), at, name="one_hot")

    return bb.emit_te(computed, indices, values, primfunc_name_hint="one_hot")


def reverse_sequence(bb: Any, inputs: Any, attr: Mapping[str, Any]) -> Any:
    """The first elements of each row back to front, as many as `sequence_lens` says."""
    from tvm import te, tirx

    x, lengths = inputs[0], inputs[1]
    time, batch = int(attr.get("time_axis", 0)), int(attr.get("batch_axis", 1))
    shape = sizes(x)

    def computed(a: Any, b: Any) -> Any:
        def at(*place: Any) -> Any:
            length = b[place[batch]].astype("int64")
            here = place[time].astype("int64")
            turned = tirx.if_then_else(here < length, length - 1 - here, here)
            return a[(*place[:time], counted(turned, shape[time]), *place[time + 1 :])]

        return te.compute(shape, at, name="reverse_sequence")

    return bb.emit_te(computed, x, lengths, primfunc_name_hint="reverse_sequence")


OPAQUE = 8
"""TVM's mark of a kernel that nothing is fused with."""


def cast(bb: Any, inputs: Any, attr: Mapping[str, Any]) -> Any:
    """To or from bfloat16 in a kernel of its own: fused with exp, TVM rounds to infinity."""
    from onnx.helper import tensor_dtype_to_np_dtype
    from tvm import te
    from tvm.relax.frontend.onnx import onnx_frontend

    x, to = inputs[0], str(tensor_dtype_to_np_dtype(attr["to"]))
    if to == dtype_of(x) or "bfloat16" not in (to, dtype_of(x)):
        theirs = onnx_frontend._get_convert_map()["Cast"].get_converter(13)
        return theirs(bb, inputs, attr, [{}, {}])

    def computed(a: Any) -> Any:
        return te.compute(a.shape, lambda *at: a[at].astype(to), name="cast")

    attributes = {"op_pattern": OPAQUE}
    return bb.emit_te(computed, x, primfunc_name_hint="cast", primfunc_attrs=attributes)


def _extreme(kind: str) -> Callable[[Any, Any, Mapping[str, Any]], Any]:
    """ReduceMax or ReduceMin, of which infinity is the start."""

    def converter(bb: Any, inputs: Any, attr: Mapping[str, Any]) -> Any:
        from tvm import relax

        x = inputs[0]
        axes = reduced_axes(inputs, attr, len(sizes(x)))
        keep = bool(attr.get("keepdims", 1))
        if axes is None:
            return x
        dtype = dtype_of(x)
        if dtype == "bool":
            small = relax.op.astype(x, "uint8")
            function = getattr(relax.op, kind)
            return relax.op.astype(function(small, axes, keep), "bool")
        if "float" not in dtype:
            return getattr(relax.op, kind)(x, axes, keep)
        return bb.emit_te(
            lambda a: _reduced(a, axes, keep, kind), x, primfunc_name_hint=f"reduce_{kind}"
        )

    return converter


def reduced_axes(inputs: Any, attr: Mapping[str, Any], rank: int) -> list[int] | None:
    """The axes of a reduction, counted from the front; None where nothing is reduced.

    Raises:
        ValueError: they are computed.
    """
    from infc.targets.tvm_compiler.importing.converters import constant_of

    axes = attr.get("axes")
    if inputs[1] is not None:
        found = constant_of(inputs[1])
        if found is None:
            raise ValueError("its axes have to be constants")
        axes = [int(a) for a in found.reshape(-1)]
    if not axes:
        return None if attr.get("noop_with_empty_axes", 0) else list(range(rank))
    return sorted({int(a) % rank for a in axes})


_REGISTERED: set[str] = set()


def _reduced(a: Any, axes: Sequence[int], keep: bool, kind: str) -> Any:
    from tvm import te, tirx

    infinite = float("-inf") if kind == "max" else float("inf")
    fold = getattr(tirx, kind)
    register_reducer(kind)

    def combined(a: Any, b: Any) -> Any:  # TVM counts the parameters
        return fold(a, b)

    reduce = te.comm_reducer(combined, lambda t: tirx.const(infinite, t), name=kind)
    shape = [int(n) for n in a.shape]
    own = {i: te.reduce_axis((0, shape[i]), name=f"k{i}") for i in axes}
    out = [1 if i in own else n for i, n in enumerate(shape)]
    if not keep:
        out = [n for i, n in enumerate(shape) if i not in own]

    def at(*place: Any) -> Any:
        rest = iter(place)
        index = []
        for i in range(len(shape)):
            if i in own:
                index.append(own[i])
                if keep:
                    next(rest)
            else:
                index.append(next(rest))
        return reduce(a[tuple(index)], axis=list(own.values()))

    return te.compute(tuple(out), at, name=f"reduce_{kind}")


def register_reducer(kind: str) -> None:
    """Tell TVM's schedules of the fold that starts from infinity: else they do not split it."""
    import tvm_ffi
    from tvm import tirx

    if kind in _REGISTERED:
        return
    _REGISTERED.add(kind)
    infinite = float("-inf") if kind == "max" else float("inf")
    fold = getattr(tirx, kind)
    register = tvm_ffi.get_global_func("s_tir.schedule.RegisterReducer")
    register(
        1,
        lambda a, b: [fold(a[0], b[0])],
        lambda values: [tirx.const(infinite, values[0].ty.dtype)],
    )


CONVERTERS: dict[str, Callable[[Any, Any, Mapping[str, Any]], Any]] = {
    "BitShift": bit_shift,
    "Cast": cast,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Mod": mod,
    "OneHot": one_hot,
    "ReduceMax": _extreme("max"),
    "ReduceMin": _extreme("min"),
    "ReverseSequence": reverse_sequence,
}

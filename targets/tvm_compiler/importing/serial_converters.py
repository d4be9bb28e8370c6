"""Converters of what is computed step by step: sorting, sums along an axis, scattering.

TVM's own call functions of its runtime (TopK), which is not in the library, or write wherever an
index points to (ScatterElements, ScatterND). These are loops over rows; what an index outside of
the operand would write is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from infc.targets.tvm_compiler.importing.tensor_converters import dtype_of, sizes


def _extern(
    bb: Any,
    hint: str,
    outputs: Sequence[tuple[Sequence[int], str]],
    body: Callable[[Sequence[Any], Sequence[Any]], None],
    *operands: Any,
) -> Any:
    """A kernel whose statements `body` writes, given flat views of the operands and outputs."""
    from tvm import te, tirx
    from tvm.script.ir_builder import IRBuilder
    from tvm.script.ir_builder import tirx as script

    def computed(*tensors: Any) -> Any:
        made = [
            tirx.decl_buffer(tuple(shape), dtype, f"{hint}_{i}", layout=None)
            for i, (shape, dtype) in enumerate(outputs)
        ]

        def statement(ins: Any, outs: Any) -> Any:
            flat = [[script.buffer_proxy(b) for b in side] for side in (ins, outs)]
            with IRBuilder() as builder:
                with script.seq_scope():
                    body(*flat)
                return builder.get()

        return te.extern(
            [tuple(shape) for shape, _ in outputs],
            list(tensors),
            statement,
            dtype=[dtype for _, dtype in outputs],
            out_buffers=made,
            name=hint,
        )

    return bb.emit_te(computed, *operands, primfunc_name_hint=hint)


def _rows(shape: Sequence[int], axis: int) -> tuple[int, int, int]:
    """How many rows before `axis`, how long they are, how far apart their elements."""
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def top_k(bb: Any, inputs: Any, attr: Mapping[str, Any]) -> Any:
    """The `k` greatest or least of each row, in order; of equal ones the first comes first.

    Each element is put into the list of the best so far, which is `k` long.
    """
    from tvm import tirx
    from tvm.script.ir_builder import tirx as script

    from infc.targets.tvm_compiler.importing.converters import constant_of

    x, wanted = inputs[0], constant_of(inputs[1])
    if wanted is None:
        raise ValueError("its k has to be a constant")
    shape, k = list(sizes(x)), int(wanted.reshape(-1)[0])
    axis = int(attr.get("axis", -1)) % len(shape)
    before, length, apart = _rows(shape, axis)
    out = [*shape[:axis], k, *shape[axis + 1 :]]
    largest = bool(attr.get("largest", 1))

    def better(a: Any, b: Any) -> Any:
        return a > b if largest else a < b

    def body(ins: Sequence[Any], outs: Sequence[Any]) -> None:
        (a,), (values, indices) = ins, outs
        with script.parallel(0, before * apart) as row:
            first = row // apart * length * apart + row % apart
            own = row // apart * k * apart + row % apart
            with script.serial(0, length) as i:
                value = a[first + i * apart]
                last = own + (k - 1) * apart
                among = tirx.any(i < k, better(value, values[last]))
                with script.If(among), script.Then(), script.serial(0, k) as back:
                    j = k - 1 - back
                    here = own + j * apart
                    with script.If(j <= i), script.Then():
                        moved = tirx.all(j > 0, better(value, values[here - apart]))
                        placed = tirx.any(j == i, better(value, values[here]))
                        with script.If(moved):
                            with script.Then():
                                values[here] = values[here - apart]
                                indices[here] = indices[here - apart]
                            with script.Else(), script.If(placed), script.Then():
                                values[here] = value
                                indices[here] = i.astype("int64")

    return _extern(bb, "top_k", [(out, dtype_of(x)), (out, "int64")], body, x)


def _cumulative(kind: str) -> Callable[[Any, Any, Mapping[str, Any]], Any]:
    """CumSum or CumProd."""

    def converter(bb: Any, inputs: Any, attr: Mapping[str, Any]) -> Any:
        from tvm import tirx
        from tvm.script.ir_builder import tirx as script

        from infc.targets.tvm_compiler.importing.converters import constant_of

        x, wanted = inputs[0], constant_of(inputs[1])
        if wanted is None:
            raise ValueError("its axis has to be a constant")
        shape, dtype = sizes(x), dtype_of(x)
        before, length, apart = _rows(shape, int(wanted.reshape(-1)[0]) % len(shape))
        exclusive, reverse = bool(attr.get("exclusive", 0)), bool(attr.get("reverse", 0))

        def body(ins: Sequence[Any], outs: Sequence[Any]) -> None:
            (a,), (y,) = ins, outs
            with script.parallel(0, before * apart) as row:
                first = row // apart * length * apart + row % apart

                def place(i: Any) -> Any:
                    return first + ((length - 1 - i) if reverse else i) * apart

                neutral = tirx.const(int(kind == "prod"), dtype)
                y[place(0)] = neutral if exclusive else a[place(0)]
                with script.serial(0, length - 1) as i:
                    added = a[place(i)] if exclusive else a[place(i + 1)]
                    total = y[place(i)]
                    y[place(i + 1)] = total * added if kind == "prod" else total + added

        return _extern(bb, f"cumulative_{kind}", [(shape, dtype)], body, x)

    return converter


_FOLDS: dict[str, Callable[[Any, Any], Any]] = {
    "none": lambda _, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
}


def _fold(attr: Mapping[str, Any]) -> Callable[[Any, Any], Any]:
    from tvm import tirx

    name = bytes(attr.get("reduction", b"none")).decode()
    folds: dict[str, Callable[[Any, Any], Any]] = {**_FOLDS, "max": tirx.max, "min": tirx.min}
    if name not in folds:
        raise ValueError(f"`reduction` is `{name}`")
    return folds[name]


def scatter_elements(bb: Any, inputs: Any, attr: Mapping[str, Any]) -> Any:
    """One element for each index, along one axis, put into a copy."""
    from tvm import tirx
    from tvm.script.ir_builder import tirx as script

    x, indices, updates = inputs[0], inputs[1], inputs[2]
    shape, own = sizes(x), sizes(indices)
    axis = int(attr.get("axis", 0)) % len(shape)
    fold = _fold(attr)

    def body(ins: Sequence[Any], outs: Sequence[Any]) -> None:
        (a, b, c), (y,) = ins, outs
        with script.serial(0, prod(shape)) as i:
            y[i] = a[i]
        with script.serial(0, prod(own)) as i:
            index = b[i].astype("int64")
            index = tirx.if_then_else(index < 0, index + shape[axis], index)
            place: Any = 0
            for d, n in enumerate(shape):
                at = i // prod(own[d + 1 :]) % own[d]
                place = place * n + (index if d == axis else at.astype("int64"))
            with script.If(tirx.all(index >= 0, index < shape[axis])), script.Then():
                y[place] = fold(y[place], c[i])

    kind = [(shape, dtype_of(x))]
    return _extern(bb, "scatter_elements", kind, body, x, indices, updates)


def scatter_nd(bb: Any, inputs: Any, attr: Mapping[str, Any]) -> Any:
    """Slices by coordinates, put into a copy."""
    from tvm import tirx
    from tvm.script.ir_builder import tirx as script

    x, indices, updates = inputs[0], inputs[1], inputs[2]
    shape, own = sizes(x), sizes(indices)
    depth, slices = own[-1], prod(own[:-1])
    width = prod(shape[depth:])
    fold = _fold(attr)

    def body(ins: Sequence[Any], outs: Sequence[Any]) -> None:
        (a, b, c), (y,) = ins, outs
        with script.serial(0, prod(shape)) as i:
            y[i] = a[i]
        with script.serial(0, slices) as i:
            inside, place = [], 0
            for d in range(depth):
                index = b[i * depth + d].astype("int64")
                index = tirx.if_then_else(index < 0, index + shape[d], index)
                inside += [index >= 0, index < shape[d]]
                place = place * shape[d] + index
            with script.If(tirx.all(*inside)), script.Then(), script.serial(0, width) as j:
                y[place * width + j] = fold(y[place * width + j], c[i * width + j])

    kind = [(shape, dtype_of(x))]
    return _extern(bb, "scatter_nd", kind, body, x, indices, updates)


CONVERTERS: dict[str, Callable[[Any, Any, Mapping[str, Any]], Any]] = {
    "CumProd": _cumulative("prod"),
    "CumSum": _cumulative("sum"),
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "TopK": top_k,
}

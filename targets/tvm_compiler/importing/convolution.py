"""Convolution in channels-last order, as TVM's tensor expressions.

    conv[n, o..., c] = sum over k..., i:  x[n, o * stride + k * dilation, g * I + i] * w[k..., i, c]

`x`: (N, spatial..., C); `w`: (kernel..., C / groups, O). `g` is the group that `c` belongs to.

The last spatial dimension may be computed up to a multiple of `rows`, and cropped where it is read,
so that a register tile is always full; the padding of `x` grows for that. A graph is imported with
`rows` of 1, and `with_rows` makes the kernel anew once its schedule is chosen: what a kernel is
does not depend on how it will be computed. Source: ONNX Conv, opset 11.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from infc.targets.tvm_compiler.symbolic import proven, size_of

ATTRIBUTE = "infc.conv"
"""Of a TIR function that is a convolution: what `attributes` gives."""


@dataclass(frozen=True, slots=True)
class Window:
    """How a kernel moves: one number for each spatial dimension; padding before and after."""

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    def output(self, sizes: Sequence[Any], kernel: Sequence[int]) -> tuple[Any, ...]:
        """The spatial sizes of what is computed from `sizes`: numbers, or expressions of TIR."""
        rows = zip(
            sizes, kernel, self.strides, self.dilations, self.before, self.after, strict=True
        )
        return tuple((n + b + a - (k - 1) * d - 1) // s + 1 for n, k, s, d, b, a in rows)


def attributes(window: Window, groups: int) -> Mapping[str, str]:
    """Those of the TIR function of a convolution, which `with_rows` reads."""
    return {ATTRIBUTE: json.dumps([asdict(window), groups])}


def with_rows(func: Any, rows: int) -> Any:
    """The convolution that `func` computes, its last spatial dimension up to a multiple of `rows`.

    `func` is a TIR function with `attributes`.
    """
    from tvm import relax
    from tvm.relax.utils import gen_call_tir_inputs

    fields, groups = json.loads(str(func.attrs[ATTRIBUTE]))
    window = Window(**{name: tuple(numbers) for name, numbers in fields.items()})
    operands = [relax.Var("p", relax.TensorType(b.shape, b.dtype)) for b in func.params[:2]]
    made, _, _ = gen_call_tir_inputs(
        lambda x, w: conv(x, w, window, groups, rows),
        *operands,
        primfunc_attrs=attributes(window, groups),
    )
    return made


def sum_type(dtype: Any) -> str:
    """The type that products of `dtype` are added up in."""
    return "float32" if str(dtype) == "float16" else str(dtype)


def conv(x: Any, w: Any, window: Window, groups: int, rows: int = 1) -> Any:
    """The tensor expression, of `sum_type`; of all sizes, those of the weights are fixed."""
    from tvm import te, tirx

    rank, wide = len(window.strides), sum_type(x.dtype)
    kernel = [int(n) for n in w.shape[:rank]]
    per_group_in, channels_out = int(w.shape[rank]), int(w.shape[rank + 1])
    per_group_out = channels_out // groups
    sizes = window.output([size_of(n) for n in x.shape[1:-1]], kernel)
    computed = (*sizes[:-1], (sizes[-1] + rows - 1) // rows * rows)
    padded = pad(x, window, computed, kernel)
    ks = [te.reduce_axis((0, k), name=f"k{i}") for i, k in enumerate(kernel)]
    ci = te.reduce_axis((0, per_group_in), name="ci")

    def element(*at: Any) -> Any:
        n, *spatial, c = at
        terms = zip(spatial, ks, window.strides, window.dilations, strict=True)
        places = [o * s + k * d for o, k, s, d in terms]
        if groups == 1:
            channel = ci
        elif per_group_in == per_group_out == 1:
            channel = c
        else:
            channel = tirx.indexdiv(c, per_group_out) * per_group_in + ci
        factor = w[(*ks, ci, c)].astype(wide)  # stored in 16 bits, perhaps
        return te.sum(padded[(n, *places, channel)].astype(wide) * factor, axis=[*ks, ci])

    batch = size_of(x.shape[0])
    whole = te.compute((batch, *computed, channels_out), element, name="conv")
    if proven(computed[-1] <= sizes[-1]):
        return whole
    return te.compute((batch, *sizes, channels_out), lambda *at: whole[at], name="crop")


def pad(x: Any, window: Window, computed: Sequence[Any], kernel: Sequence[int]) -> Any:
    """`x` with zeros around it, as far as computing `computed` reads; `x` itself where none are."""
    from tvm import te, tirx

    sizes = [size_of(n) for n in x.shape[1:-1]]
    rows = zip(computed, kernel, window.strides, window.dilations, strict=True)
    extents = [(o - 1) * s + (k - 1) * d + 1 for o, k, s, d in rows]
    if not any(window.before) and all(proven(e <= n) for e, n in zip(extents, sizes, strict=True)):
        return x
    zero = tirx.const(0, x.dtype)

    def element(*at: Any) -> Any:
        n, *spatial, c = at
        inside, tests = inside_of(spatial, window.before, extents, sizes)
        return tirx.if_then_else(tirx.all(*tests), x[(n, *inside, c)], zero)

    return te.compute((x.shape[0], *extents, x.shape[-1]), element, name="pad")


def inside_of(
    places: Sequence[Any], before: Sequence[int], extents: Sequence[Any], sizes: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """Where `places` of a padded image lie in the image itself, and the tests that they do.

    `extents` are the sizes of the padded image; a test that cannot fail is left out.
    """
    inside = [place - begin for place, begin in zip(places, before, strict=True)]
    tests = []
    for place, size, begin, extent in zip(inside, sizes, before, extents, strict=True):
        if begin:
            tests.append(place >= 0)
        if not proven(extent - begin <= size):
            tests.append(place < size)
    return inside, tests

"""Convolution and matrix product of int8, as TVM's tensor expressions over dot products of four.

    dot[n, o..., b, i] = start[b, i]
                       + sum over k..., j, l < 4:  x[n, o * stride + k * dilation, 4 j + l]
                                                 * w[k..., j, b, ...(i, l)]

`x`: (N, spatial..., C), uint8 or int8; output channel b * lanes + i; `w`: int8, packed so that the
last dimensions are what one instruction reads (`dot_products`). Where C is no multiple of four and
nothing is dilated, the last spatial dimension of the kernel and the channels are one dimension of
k * C elements, which lie one after the other in `x` as well: an image of 3 channels under a kernel
of 7 is 21 elements, not 28.

    depthwise:
    acc[n, o..., c] = start[c] + sum over k...: x[n, o * stride + k * dilation, c] * w[k..., c]

The zero point z of `x` is in what the caller starts from, b - z * sum of w, and around `x`, where
the convolution is padded: sum (x - z) w = sum x w - z sum w. Source: B. Jacob et al.,
arXiv:1712.05877, section 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from infc.targets.tvm_compiler.importing.convolution import Window, inside_of
from infc.targets.tvm_compiler.integers.dot_products import WORD, DotProduct
from infc.targets.tvm_compiler.symbolic import is_open, size_of

DOT = "infc.dot"
"""An attribute of the block that is computed by dot products: the instruction's name in TVM."""
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Packing:
    """How the weights of a convolution are laid out.

    `flat`: the last dimension of the kernel and the channels are one. `lanes` of an instruction,
    `blocks` of them for all output channels, `groups`; in each group `words` of four.
    """

    flat: bool
    lanes: int
    blocks: int
    groups: int
    words: int


def packing(kernel: Sequence[int], window: Window, groups: int, dot: DotProduct) -> Packing | None:
    """The layout for weights of shape `kernel` (k..., C / groups, O); None where there is none."""
    *spatial, inputs, outputs = kernel
    if groups > 1:
        per_group = outputs // groups
        lanes = next((n for n in dot.lanes if per_group % n == 0), 0)
        if not lanes or inputs % WORD:
            return None
        return Packing(False, lanes, outputs // lanes, groups, inputs // WORD)
    lanes = dot.width(outputs)
    flat = bool(inputs % WORD) and (not spatial or window.dilations[-1] == 1)
    depth = inputs * spatial[-1] if flat and spatial else inputs
    return Packing(flat, lanes, -(-outputs // lanes), 1, -(-depth // WORD))


def packed(weights: Array, layout: Packing, dot: DotProduct) -> Array:
    """`weights`, (k..., C / groups, O) int8, as `layout` and the instruction want them."""
    *spatial, inputs, outputs = weights.shape
    if layout.flat and spatial:
        weights = weights.reshape(*spatial[:-1], spatial[-1] * inputs, outputs)
        spatial = spatial[:-1]
    depth = layout.words * WORD - weights.shape[-2]
    width = layout.blocks * layout.lanes - outputs
    whole = np.pad(weights, [(0, 0)] * len(spatial) + [(0, depth), (0, width)])
    # (k..., word, 4, block, lane)
    whole = whole.reshape(*spatial, layout.words, WORD, layout.blocks, layout.lanes)
    rank = len(spatial)
    front = [*range(rank), rank, rank + 2]
    last = (rank + 3, rank + 1) if dot.order == "words" else (rank + 1, rank + 3)
    turned = whole.transpose(*front, *last)
    if dot.order == "pairs":
        turned = turned.reshape(*turned.shape[:-2], 2, 2, layout.lanes).swapaxes(-1, -2)
    return np.ascontiguousarray(turned)


@dataclass(frozen=True, slots=True)
class After:
    """What is done to the sums: `start` is added, (O,) int32; then scaled, + bias, (O,) float32.

    What is None is left out; the result is float32 where there is a scale.
    """

    start: Any = None
    scale: Any = None
    bias: Any = None

    def of(self, total: Any, channel: Any) -> Any:
        """The expression for one element."""
        if self.start is not None:
            total = total + self.start[channel]
        if self.scale is not None:
            total = total.astype("float32") * self.scale[channel]
        return total if self.bias is None else total + self.bias[channel]


def conv(
    x: Any,
    w: Any,
    after: After,
    window: Window,
    layout: Packing,
    kernel: Sequence[int],
    rows: int,
    zero: int,
    dot: DotProduct,
    name: str,
) -> Any:
    """The tensor expression: (N, spatial..., O) int32. `kernel` are the sizes of the weights.

    `rows` of a register tile: the last spatial dimension is computed up to a multiple of it.
    """
    from tvm import te, tirx

    *sizes_k, inputs, outputs = kernel
    rank = len(sizes_k)
    sizes = window.output([int(n) for n in x.shape[1:-1]], sizes_k)
    computed = (*sizes[:-1], -(-sizes[-1] // rows) * rows)
    padded = _around(x, window, computed, sizes_k, layout, zero)
    loops = sizes_k[:-1] if layout.flat else sizes_k
    ks = [te.reduce_axis((0, k), name=f"k{i}") for i, k in enumerate(loops)]
    word = te.reduce_axis((0, layout.words), name="word")
    byte = te.reduce_axis((0, WORD), name="byte")
    per_group = layout.blocks // layout.groups

    def element(*at: Any) -> Any:
        n, *spatial, block, lane = at
        moves = zip(spatial, ks, window.strides, window.dilations, strict=False)
        places = [o * s + k * d for o, k, s, d in moves]
        inner = word * WORD + byte
        if layout.flat:
            source = padded[(n, *places, spatial[-1] * (window.strides[-1] * inputs) + inner)]
        elif layout.groups > 1:
            group = tirx.indexdiv(block, per_group)
            source = padded[(n, *places, group * inputs + inner)]
        else:
            source = padded[(n, *places, inner)]
        weights = w[(*ks, word, block, *dot.place(lane, byte))]
        return te.sum(
            source.astype("int32") * weights.astype("int32"),
            axis=[*ks, word, byte],
        )

    assert rank == len(sizes)
    whole = te.compute(
        (size_of(x.shape[0]), *computed, layout.blocks, layout.lanes),
        element,
        name="dot",
        attrs={DOT: name},
    )

    return _joined(whole, (size_of(x.shape[0]), *sizes, outputs), layout.lanes, after)


def _joined(whole: Any, shape: Sequence[int], lanes: int, after: After) -> Any:
    """The blocks of channels as one dimension, cropped to `shape`; what comes after the sums."""
    from tvm import te, tirx

    def element(*at: Any) -> Any:
        *front, channel = at
        block, lane = tirx.indexdiv(channel, lanes), tirx.indexmod(channel, lanes)
        return after.of(whole[(*front, block, lane)], channel)

    return te.compute(tuple(shape), element, name="joined")


def product(
    x: Any,
    w: Any,
    after: After,
    outputs: int,
    layout: Packing,
    rows: int,
    dot: DotProduct,
    name: str,
) -> Any:
    """The tensor expression of a matrix product: `x` (rows..., K), (rows..., N) int32."""
    from tvm import te, tirx

    *front, height, depth = (size_of(n) for n in x.shape)
    more = 0 if is_open(height) else -height % rows
    computed = height + more if more else height
    wide = layout.words * WORD
    padded = x
    if more or wide != depth:
        zero = tirx.const(0, x.dtype)

        def inside(*at: Any) -> Any:
            *lead, row, k = at
            tests = [row < height] * bool(more) + [k < depth] * (wide != depth)
            return tirx.if_then_else(tirx.all(*tests), x[(*lead, row, k)], zero)

        padded = te.compute((*front, computed, wide), inside, name="fill")
    word = te.reduce_axis((0, layout.words), name="word")
    byte = te.reduce_axis((0, WORD), name="byte")

    def element(*at: Any) -> Any:
        *lead, block, lane = at
        weights = w[(word, block, *dot.place(lane, byte))]
        source = padded[(*lead, word * WORD + byte)]
        return te.sum(source.astype("int32") * weights.astype("int32"), axis=[word, byte])

    whole = te.compute(
        (*front, computed, layout.blocks, layout.lanes), element, name="dot", attrs={DOT: name}
    )
    return _joined(whole, (*front, height, outputs), layout.lanes, after)


def single(x: Any, w: Any, after: After, window: Window, groups: int, rows: int, zero: int) -> Any:
    """A convolution whose products are added up one by one: depthwise, or of odd groups.

    `w`: (k..., C / groups, O) int8.
    """
    from tvm import te, tirx

    *kernel, inputs, outputs = (int(n) for n in w.shape)
    sizes = window.output([int(n) for n in x.shape[1:-1]], kernel)
    computed = (*sizes[:-1], -(-sizes[-1] // rows) * rows)
    channels = int(x.shape[-1])
    plain = Packing(False, 1, outputs, groups, 0)
    padded = _around(x, window, computed, kernel, plain, zero, channels)
    ks = [te.reduce_axis((0, k), name=f"k{i}") for i, k in enumerate(kernel)]
    ci = te.reduce_axis((0, inputs), name="ci")
    per_group = outputs // groups

    def element(*at: Any) -> Any:
        n, *spatial, c = at
        moves = zip(spatial, ks, window.strides, window.dilations, strict=True)
        places = [o * s + k * d for o, k, s, d in moves]
        alone = inputs == per_group == 1
        channel = c if alone else tirx.indexdiv(c, per_group) * inputs + ci
        source = padded[(n, *places, channel)].astype("int32")
        return te.sum(source * w[(*ks, ci, c)].astype("int32"), axis=[*ks, ci])

    whole = te.compute((size_of(x.shape[0]), *computed, outputs), element, name="conv")

    def joined(*at: Any) -> Any:
        return after.of(whole[at], at[-1])

    return te.compute((size_of(x.shape[0]), *sizes, outputs), joined, name="joined")


def _around(
    x: Any,
    window: Window,
    computed: Sequence[int],
    kernel: Sequence[int],
    layout: Packing,
    zero: int,
    channels: int = 0,
) -> Any:
    """`x` with `zero` around it, as far as computing `computed` reads; rows joined where flat."""
    from tvm import te, tirx

    count, *sizes, depth = (size_of(n) for n in x.shape)
    moves = list(zip(computed, kernel, window.strides, window.dilations, strict=True))
    extents = [(o - 1) * s + (k - 1) * d + 1 for o, k, s, d in moves]
    deep = channels or (depth if layout.flat else layout.groups * layout.words * WORD)
    if layout.flat:
        # Whole pixels, and as many as the last word of the last tile reaches into.
        reach = (computed[-1] - 1) * window.strides[-1] * depth + layout.words * WORD
        extents[-1] = -(-reach // depth)
    outside = any(window.before) or any(e > n for e, n in zip(extents, sizes, strict=True))
    if not outside and deep == depth and not layout.flat:
        return x
    fill = tirx.const(zero, x.dtype)

    def element(*at: Any) -> Any:
        n, *spatial, c = at
        inside, tests = inside_of(spatial, window.before, extents, sizes)
        if deep > depth:
            tests.append(c < depth)
        value = x[(n, *inside, c)]
        return tirx.if_then_else(tirx.all(*tests), value, fill) if tests else value

    if not layout.flat:
        return te.compute((count, *extents, deep), element, name="pad" if channels else "fill")

    def joined(*at: Any) -> Any:
        *front, place = at
        return element(*front, tirx.indexdiv(place, depth), tirx.indexmod(place, depth))

    length = math.prod((extents[-1], depth))
    return te.compute((count, *extents[:-1], length), joined, name="fill")

"""Conv and ConvTranspose with every attribute written out.

| operator | what MindSpore Lite 2.0.0 does with it |
|---|---|
| Conv and ConvTranspose without kernel_shape, strides, dilations or pads | refused |
| with `auto_pad` SAME_LOWER | pads as SAME_UPPER |
| ConvTranspose with `output_shape` | ignores it |
| ConvTranspose of groups that are not single channels | refused |
| with a bias that is no constant | refused, or no result |
| of three spatial dimensions | refused |
| of one, between transposes | wrong |
| several of different sizes with the same weight | wrong at more than one thread |

Source: ONNX Conv-11, ConvTranspose-11: `auto_pad`, `output_shape`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from infc.passes.rewriting import (
    Edit,
    Rule,
    attribute,
    const_array,
    const_tensor,
    given,
    static_dims,
)
from infc.targets.mindspore_lite_lowering.formula import (
    Formula,
    own_constants,
    required,
    set_attributes,
    set_default,
)


def same_pads(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    *,
    lower: bool,
) -> list[int]:
    """The pads that SAME_UPPER or SAME_LOWER stands for: the output is ceil(size / stride)."""
    before, after = [], []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size)
        small = total // 2
        before.append(total - small if lower else small)
        after.append(small if lower else total - small)
    return [*before, *after]


def _spelled(node: ir.Node) -> bool:
    """Write the kernel's attributes."""
    weights = static_dims(given(node, 1))
    if weights is None:
        return False
    ones = (1,) * (len(weights) - 2)
    return set_default(node, kernel_shape=list(weights[2:]), strides=ones, dilations=ones, group=1)


def _paths(name: str) -> Rule:
    def rule(node: ir.Node, edit: Edit) -> bool:
        changed = own_constants(node, edit, 1, 2) | _spelled(node)
        x, weights = static_dims(given(node, 0)), static_dims(given(node, 1))
        if weights is None:
            return changed
        changed |= _padded(node, x, weights, transposed=name == "ConvTranspose")
        bias = given(node, 2)
        if bias is not None and const_tensor(bias) is None:
            return _bias_apart(node, edit, bias)
        if len(weights) == 3 and "auto_pad" not in node.attributes:
            return _in_two_dimensions(Formula(node, edit), weights)
        if name == "ConvTranspose" and x is not None:
            changed |= _by_groups(node, edit, x, weights)
        return changed

    return rule


def _padded(
    node: ir.Node, x: Sequence[int] | None, weights: Sequence[int], *, transposed: bool
) -> bool:
    """Write `pads` in the place of `auto_pad` and `output_shape`."""
    rank = len(weights) - 2
    mode = attribute(node, "auto_pad", "NOTSET")
    if transposed and "output_shape" in node.attributes:
        return x is not None and _pads_for_shape(node, x)
    if mode == "NOTSET":
        return set_default(node, pads=[0] * 2 * rank) | set_attributes(node, auto_pad=None)
    if mode == "VALID":
        return set_attributes(node, auto_pad=None, pads=[0] * 2 * rank)
    if x is None:
        return False
    if transposed:
        strides = attribute(node, "strides")
        shape = [d * s for d, s in zip(x[2:], strides, strict=True)]
        return _pads_for_shape(node, x, shape)
    sizes = (attribute(node, n) for n in ("kernel_shape", "strides", "dilations"))
    pads = same_pads(x[2:], *sizes, lower=mode == "SAME_LOWER")
    return set_attributes(node, auto_pad=None, pads=pads)


def _pads_for_shape(node: ir.Node, x: Sequence[int], wanted: Sequence[int] | None = None) -> bool:
    """Pads and output padding that give a ConvTranspose the spatial shape it names."""
    shape = list(wanted or attribute(node, "output_shape"))[-(len(x) - 2) :]
    lower = attribute(node, "auto_pad", "NOTSET") == "SAME_LOWER"
    names = ("kernel_shape", "strides", "dilations")
    kernel, strides, dilations = (attribute(node, n) for n in names)
    extra = list(attribute(node, "output_padding", [0] * len(shape)))
    before, after = [], []
    for i, size in enumerate(shape):
        full = strides[i] * (x[2 + i] - 1) + (kernel[i] - 1) * dilations[i] + 1 + extra[i]
        if full < size:
            extra[i] += size - full
            full = size
        small = (full - size) // 2
        # ONNX puts the greater half at the end for SAME_UPPER, at the start for anything else.
        greater = full - size - small
        upper = attribute(node, "auto_pad", "NOTSET") == "SAME_UPPER" and not lower
        before.append(small if upper else greater)
        after.append(greater if upper else small)
    padding = extra if any(extra) else None
    return set_attributes(
        node, auto_pad=None, output_shape=None, pads=[*before, *after], output_padding=padding
    )


def _in_two_dimensions(f: Formula, weights: Sequence[int]) -> bool:
    """Over one dimension as over two, the first of size 1."""
    node = f.node
    wide: dict[str, Any] = {}
    for name in ("kernel_shape", "strides", "dilations"):
        wide[name] = [1, *attribute(node, name)]
    pads = attribute(node, "pads")
    wide["pads"] = [0, pads[0], 0, pads[1]]
    if "output_padding" in node.attributes:
        wide["output_padding"] = [0, *attribute(node, "output_padding")]
    kernel = f.reshape(required(node, 1), (weights[0], weights[1], 1, weights[2]))
    inputs = [f.unsqueeze(required(node, 0), (2,)), kernel, given(node, 2)]
    if inputs[2] is None:
        inputs.pop()
    result = f.op(node.op_type, *inputs, **wide, group=attribute(node, "group", 1))
    return f.finish(f.squeeze(result, (2,)))


def _bias_apart(node: ir.Node, edit: Edit, bias: ir.Value) -> bool:
    """A bias that is computed is added afterwards."""
    weights = static_dims(given(node, 1))
    if weights is None:
        return False
    f = Formula(node, edit)
    inputs = node.inputs[:2]
    plain = f.op(node.op_type, *inputs, **dict(node.attributes))
    column = f.reshape(bias, (-1, *[1] * (len(weights) - 2)))
    return f.finish(f.add(plain, column))


def _by_groups(node: ir.Node, edit: Edit, x: Sequence[int], weights: Sequence[int]) -> bool:
    """A ConvTranspose of several groups as one of each group, joined."""
    groups = attribute(node, "group", 1)
    array, bias = const_array(given(node, 1), 1 << 28), const_array(given(node, 2))
    if groups == 1 or array is None or (groups == x[1] and weights[1] == 1):
        return False
    f = Formula(node, edit)
    attributes = {k: v for k, v in node.attributes.items() if k != "group"}
    each, outputs = x[1] // groups, weights[1]
    parts = []
    for g in range(groups):
        channels = slice(g * each, (g + 1) * each)
        inputs = [
            f.slice(required(node, 0), 1, g * each, (g + 1) * each),
            f.constant(array[channels]),
            None if bias is None else f.constant(bias[g * outputs : (g + 1) * outputs]),
        ]
        present = [v for v in inputs if v is not None]
        parts.append(f.op("ConvTranspose", *present, **attributes, group=1))
    return f.finish(f.concat(parts, 1))


RULES = {"Conv": _paths("Conv"), "ConvTranspose": _paths("ConvTranspose")}

"""Pooling over two spatial dimensions, with pads that are numbers.

| operator | what MindSpore Lite 2.0.0 does with it |
|---|---|
| MaxPool with `dilations`, also of ones | refused |
| AveragePool that counts its padding | does not count it |
| over one or three dimensions, with SAME_LOWER | refused |
| with `ceil_mode` where the last window starts in the padding | one window too many |
| GlobalAveragePool and GlobalMaxPool of another rank than 4 | refused |

A pool over three dimensions is one over two of them, then one over the third: the greatest of the
greatest, and the mean of means, as the part of a window that lies inside is a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import onnx_ir as ir

from infc.passes.rewriting import Edit, attribute, rank, static_dims
from infc.targets.mindspore_lite_lowering.convolution import same_pads
from infc.targets.mindspore_lite_lowering.formula import Formula, required, set_attributes


def _pool(node: ir.Node, edit: Edit) -> bool:
    kernel = attribute(node, "kernel_shape")
    dilations = attribute(node, "dilations", [1] * len(kernel))
    indices = len(node.outputs) > 1 and bool(node.outputs[1].uses())
    indices |= any(v.is_graph_output() for v in node.outputs[1:])
    if any(d != 1 for d in dilations) or indices:
        return False
    if len(node.outputs) > 1:
        node.resize_outputs(1)
    shape = static_dims(node.inputs[0])
    changed = set_attributes(node, dilations=None, storage_order=None)
    if shape is None:
        return changed | _without_shape(node)
    pads = _pads(node, shape)
    f = Formula(node, edit)
    if _counts_padding(node) and any(pads):
        return _padded_before(f, node, pads, _exact(node, shape, pads))
    plan = _Plan(node.op_type, list(kernel), _strides(node), _exact(node, shape, pads))
    if len(kernel) == 2:
        return changed | set_attributes(
            node,
            auto_pad=None,
            ceil_mode=None,
            count_include_pad=None,
            strides=plan.strides,
            pads=plan.pads,
        )
    if len(kernel) == 1:
        wide = f.unsqueeze(required(node, 0), (2,))
        return f.finish(f.squeeze(plan.over(f, wide, (None, 0)), (2,)))
    if len(kernel) == 3:
        return f.finish(plan.over_three(f, required(node, 0), shape))
    return changed


def _without_shape(node: ir.Node) -> bool:
    """Of an input of unknown size: the pads have to be numbers already."""
    kernel = attribute(node, "kernel_shape")
    changed = set_attributes(node, strides=_strides(node))
    if attribute(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID"):
        pads = attribute(node, "pads", [0] * 2 * len(kernel))
        changed |= set_attributes(node, auto_pad=None, pads=pads)
    return changed


def _strides(node: ir.Node) -> list[int]:
    return list(attribute(node, "strides", [1] * len(attribute(node, "kernel_shape"))))


def _counts_padding(node: ir.Node) -> bool:
    return node.op_type == "AveragePool" and bool(attribute(node, "count_include_pad", 0))


def _pads(node: ir.Node, shape: Sequence[int]) -> list[int]:
    kernel = attribute(node, "kernel_shape")
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        ones = [1] * len(kernel)
        lower = mode == "SAME_LOWER"
        return same_pads(shape[2:], kernel, _strides(node), ones, lower=lower)
    if mode == "VALID":
        return [0] * 2 * len(kernel)
    return list(attribute(node, "pads", [0] * 2 * len(kernel)))


def _exact(node: ir.Node, shape: Sequence[int], pads: Sequence[int]) -> list[int]:
    """Pads at the end that give `ceil_mode`'s number of windows without it.

    A window that would start beyond the input and its pad at the start is left out.
    """
    kernel, strides = attribute(node, "kernel_shape"), _strides(node)
    rank = len(kernel)
    before, after = list(pads[:rank]), list(pads[rank:])
    if attribute(node, "ceil_mode", 0) and attribute(node, "auto_pad", "NOTSET") == "NOTSET":
        for i in range(rank):
            size = shape[2 + i]
            windows = -(-(size + before[i] + after[i] - kernel[i]) // strides[i]) + 1
            if (windows - 1) * strides[i] >= size + before[i]:
                windows -= 1
            reach = (windows - 1) * strides[i] + kernel[i]
            after[i] = max(0, reach - size - before[i])
    return [*before, *after]


def _padded_before(f: Formula, node: ir.Node, pads: Sequence[int], exact: Sequence[int]) -> bool:
    """The padding as a Pad of its own, whose zeros are then counted like any element.

    What `ceil_mode` has a window reach beyond the padding is not counted.
    """
    rank = len(pads) // 2
    counted = [*pads[:rank], *(min(pair) for pair in zip(pads[rank:], exact[rank:], strict=True))]
    full = [0, 0, *counted[:rank], 0, 0, *counted[rank:]]
    padded = f.op("Pad", required(node, 0), f.ints(full), mode="constant")
    attributes: dict[str, Any] = {
        "kernel_shape": attribute(node, "kernel_shape"),
        "strides": _strides(node),
        "pads": [e - c for e, c in zip(exact, counted, strict=True)],
    }
    return f.finish(f.op("AveragePool", padded, **attributes))


class _Plan:
    """One pool, axis by axis."""

    def __init__(
        self, op_type: str, kernel: list[int], strides: list[int], pads: list[int]
    ) -> None:
        self.op_type = op_type
        self.kernel = kernel
        self.strides = strides
        self.pads = pads

    def over(self, f: Formula, x: ir.Value, axes: Sequence[int | None]) -> ir.Value:
        """Pool the last two dimensions of `x` as the axes of the plan, None for not at all."""
        rank = len(self.kernel)
        return f.op(
            self.op_type,
            x,
            kernel_shape=[1 if a is None else self.kernel[a] for a in axes],
            strides=[1 if a is None else self.strides[a] for a in axes],
            pads=[0 if a is None else self.pads[a + e] for e in (0, rank) for a in axes],
        )

    def over_three(self, f: Formula, x: ir.Value, shape: Sequence[int]) -> ir.Value:
        """(N, C, D, H, W): first H and W of (N, C * D, H, W), then D of (N, C, D, H * W)."""
        n, c, d, h, w = shape
        out = [
            (size + self.pads[i] + self.pads[i + 3] - self.kernel[i]) // self.strides[i] + 1
            for i, size in enumerate((d, h, w))
        ]
        flat = self.over(f, f.reshape(x, (n, c * d, h, w)), (1, 2))
        deep = self.over(f, f.reshape(flat, (n, c, d, prod(out[1:]))), (0, None))
        return f.reshape(deep, (n, c, *out))


def _global(node: ir.Node, edit: Edit) -> bool:
    depth = rank(node.inputs[0])
    if depth is None or depth == 4:
        return False
    f = Formula(node, edit)
    x, axes = required(node, 0), tuple(range(2, depth))
    if node.op_type == "GlobalAveragePool":
        return f.finish(f.reduce("ReduceMean", x, axes))
    return f.finish(f.neg(f.reduce("ReduceMin", f.neg(x), axes)))


RULES = {
    "AveragePool": _pool,
    "GlobalAveragePool": _global,
    "GlobalMaxPool": _global,
    "MaxPool": _pool,
}

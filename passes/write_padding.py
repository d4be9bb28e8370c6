"""Padding that ONNX leaves to be computed, written out.

    Conv(auto_pad=SAME_UPPER)   ->  Conv(pads=[...])      also SAME_LOWER, and the pools
    Conv(auto_pad=VALID)        ->  Conv(pads=[0, ...])

With SAME the output has ceil(size / stride) elements along an axis, and the padding is what that
takes; the odd one goes to the end for SAME_UPPER and to the start for SAME_LOWER:

    total = max(0, (ceil(size / stride) - 1) * stride + kernel - size)

A stride of 1 takes the same padding whatever the size. Otherwise the size along every axis has to
be known; the batch and the channels do not matter. Passes and back ends that read `pads` see it
then. Left alone: a pool with `ceil_mode`, which SAME ignores and `pads` does not, and SAME with
dilations, or in a pool with a stride so large that elements are left over, both of which ONNX
Runtime refuses: no run would prove the rewrite.

Source: ONNX Conv-11, MaxPool-12, AveragePool-19, LpPool-18: `auto_pad`.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from infc.passes.rewriting import Edit, attribute, dims, given, rewrite, static_dims

WINDOWED = ("Conv", "MaxPool", "AveragePool", "LpPool")


class WritePadding(ir.passes.InPlacePass):
    """Make `auto_pad` of Conv and the pools `pads`."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit every node once."""
        return rewrite(model, dict.fromkeys(WINDOWED, _write))


def _write(node: ir.Node, edit: Edit) -> bool:
    mode = attribute(node, "auto_pad", "NOTSET")
    kernel = _kernel(node)
    if mode not in ("SAME_UPPER", "SAME_LOWER", "VALID") or kernel is None:
        return False
    if attribute(node, "ceil_mode", 0):
        return False
    pads = [0] * 2 * len(kernel)
    if mode != "VALID":
        found = _same(node, kernel, lower=mode == "SAME_LOWER")
        if found is None:
            return False
        pads = found
    node.attributes.pop("auto_pad")
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)
    return True


def _kernel(node: ir.Node) -> Sequence[int] | None:
    shape: Sequence[int] | None = attribute(node, "kernel_shape")
    if shape is None and node.op_type == "Conv":
        weights = static_dims(given(node, 1))
        shape = weights[2:] if weights else None
    return shape


def _same(node: ir.Node, kernel: Sequence[int], *, lower: bool) -> list[int] | None:
    """The pads at the starts, then those at the ends, or None where a size is not known."""
    rank = len(kernel)
    strides = attribute(node, "strides", [1] * rank)
    if any(d != 1 for d in attribute(node, "dilations", [])):
        return None
    shape = dims(node.inputs[0])
    sizes = shape[2:] if shape is not None and len(shape) == rank + 2 else [None] * rank
    before, after = [], []
    for size, k, stride in zip(sizes, kernel, strides, strict=True):
        if stride == 1:
            total = k - 1
        elif isinstance(size, int):
            total = (-(-size // stride) - 1) * stride + k - size
        else:
            return None
        if total < 0 and node.op_type != "Conv":
            return None
        total = max(0, total)
        small = total // 2
        before.append(total - small if lower else small)
        after.append(small if lower else total - small)
    return [*before, *after]

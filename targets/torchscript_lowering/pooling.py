"""Pools. Source: ONNX operators MaxPool-22, AveragePool-22, LpPool-22, MaxUnpool-22.

torch's own pools where pads are alike at both ends and at most half the window. Elsewhere the
input is padded first, by what the windows of ceil_mode reach over the end as well: with -inf for a
maximum; for an average, the sum over the padded input by the sum over as many ones.
"""

from __future__ import annotations

from infc.targets.torchscript_lowering import Op, boolean, int_list, lowers, number
from infc.targets.torchscript_lowering.convolution import Window, kernel_of, same_pads, window
from infc.targets.torchscript_lowering.indexing import torch_pads


def _pool_window(op: Op) -> Window:
    if op.attribute("kernel_shape") is None:
        op.refuse("no kernel_shape")
    shape = window(op, kernel_of(op))
    if not 1 <= shape.rank <= 3:
        op.refuse(f"{shape.rank} spatial axes")
    return shape


def _native(shape: Window) -> list[int] | None:
    """The padding where torch's own pool takes it."""
    padding = shape.symmetric()
    if padding is None or any(2 * p > k for p, k in zip(padding, shape.kernel, strict=True)):
        return None
    return padding


def _pads(op: Op, shape: Window) -> str:
    return same_pads(op, op.x(0), shape) if shape.pads is None else int_list(torch_pads(shape.pads))


@lowers("MaxPool")
def max_pool(op: Op) -> str | list[str]:
    """Indices count in the whole tensor, in row-major order, or column-major (storage_order 1)."""
    shape = _pool_window(op)
    ceil = op.flag("ceil_mode") and not op.text("auto_pad", "NOTSET").startswith("SAME")
    padding = _native(shape)
    lists = f"{int_list(shape.kernel)}, {int_list(shape.strides)}"
    narrow = not op.is_float()
    x = f"{op.x(0)}.to(torch.float64)" if narrow else op.x(0)
    if op.wants(1):
        if padding is None:
            op.refuse("Indices with pads that torch does not have")
        tail = f"{int_list(padding)}, {int_list(shape.dilations)}, {boolean(ceil)}"
        pair = f"torch.ops.aten.max_pool{shape.rank}d_with_indices({x}, {lists}, {tail})"
        if shape.rank == 1:
            pair = f"torch.max_pool1d_with_indices({x}, {lists}, {tail})"
        values, index = op.unpack(pair, 2)
        order = boolean(op.flag("storage_order"))
        index = op.call("whole_index", index, f"{op.x(0)}.shape", order)
        return [f"{values}.to({op.output_dtype()})" if narrow else values, index]
    if padding is None:
        # Before opset 22 and after, ceil_mode never starts a window in the pads at the end.
        fill = 'float("-inf")'
        spec = f"{lists}, {int_list(shape.dilations)}, {boolean(ceil)}"
        padded = op.call("pad_for_pool", x, _pads(op, shape), spec, fill)
        zeros = int_list([0] * shape.rank)
        pooled = f"torch.max_pool{shape.rank}d({padded}, {lists}, {zeros}, "
        pooled += f"{int_list(shape.dilations)}, False)"
    else:
        tail = f"{int_list(padding)}, {int_list(shape.dilations)}, {boolean(ceil)}"
        pooled = f"torch.max_pool{shape.rank}d({x}, {lists}, {tail})"
    return f"{pooled}.to({op.output_dtype()})" if narrow else pooled


@lowers("AveragePool")
def average_pool(op: Op) -> str:
    """Pads count in the divisor only where count_include_pad says so (AveragePool-7)."""
    shape = _pool_window(op)
    ceil = op.flag("ceil_mode") and not op.text("auto_pad", "NOTSET").startswith("SAME")
    include = boolean(op.flag("count_include_pad"))
    padding = _native(shape)
    lists = f"{int_list(shape.kernel)}, {int_list(shape.strides)}"
    plain = padding is not None and not ceil and set(shape.dilations) == {1}
    if plain and padding is not None:
        tail = f"{int_list(padding)}, False, {include}"
        return f"torch.ops.aten.avg_pool{shape.rank}d({op.x(0)}, {lists}, {tail})"
    spec = f"{lists}, {int_list(shape.dilations)}, {boolean(ceil)}"
    return op.call("average_pool", op.x(0), _pads(op, shape), spec, include)


@lowers("LpPool")
def lp_pool(op: Op) -> str:
    """(sum |x|^p)^(1/p), pads counting as zeros."""
    shape = _pool_window(op)
    ceil = boolean(op.flag("ceil_mode") and not op.text("auto_pad", "NOTSET").startswith("SAME"))
    lists = f"{int_list(shape.kernel)}, {int_list(shape.strides)}, {int_list(shape.dilations)}"
    p = number(op.attribute("p", 2))
    powers = op.let(f"torch.pow(torch.abs({op.x(0)}), {p})")
    total = op.call("window_sum", powers, _pads(op, shape), f"{lists}, {ceil}")
    return f"torch.pow({total}, {number(1.0 / float(op.attribute('p', 2)))})"


@lowers("GlobalLpPool")
def global_lp_pool(op: Op) -> str:
    """LpPool over all spatial axes."""
    p = float(op.attribute("p", 2))
    axes = int_list(range(2, op.known_rank()))
    total = f"torch.sum(torch.pow(torch.abs({op.x(0)}), {number(p)}), {axes}, True)"
    return f"torch.pow({total}, {number(1.0 / p)})"


@lowers("MaxUnpool")
def max_unpool(op: Op) -> str:
    """Puts each value where its index, of the whole tensor, says; zeros elsewhere."""
    shape = _pool_window(op)
    if shape.pads is None:
        op.refuse("auto_pad")
    pads = int_list(shape.pads)
    sizes = op.ints("", 2) if op.has(2) else "None"
    lists = f"{int_list(shape.kernel)}, {int_list(shape.strides)}, {pads}"
    return op.call("max_unpool", op.x(0), op.x(1), lists, sizes)

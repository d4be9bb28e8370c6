"""Reductions. Source: ONNX operators ReduceSum-13, ReduceMean-18 and kin, ArgMax-13, CumSum-14.

Axes: an attribute, before opset 18 (ReduceSum: 13); an input since. None at all means every axis,
unless noop_with_empty_axes. torch promotes small integers where it sums; ONNX does not.
"""

from __future__ import annotations

from infc.targets.torchscript_lowering import Op, boolean, int_list, lowers

SUMS = {
    "ReduceSum": "{x}",
    "ReduceSumSquare": "torch.mul({x}, {x})",
    "ReduceL1": "torch.abs({x})",
    "ReduceL2": "torch.mul({x}, {x})",
    "ReduceLogSum": "{x}",
}
EXTREMES = {"ReduceMax": "amax", "ReduceMin": "amin"}


def _axes(op: Op) -> str | None:
    """The axes as source; None where the reduction is the identity."""
    known = op.known_ints("axes", 1, ())
    noop = op.flag("noop_with_empty_axes")
    if known is None:
        return op.call("reduced_axes", op.ints("", 1), f"{op.x(0)}.dim()", boolean(noop))
    if not known and noop:
        return None
    if known:
        return int_list(known)
    rank = op.rank()
    if rank is not None:
        return int_list(range(rank))
    return op.call("reduced_axes", int_list(()), f"{op.x(0)}.dim()", "False")


def _keep(op: Op) -> str:
    return boolean(op.flag("keepdims", True))


def _dynamic(op: Op) -> bool:
    """Whether the axes may turn out to be none at all, which torch takes to mean every axis."""
    return op.known_ints("axes", 1, ()) is None


@lowers(*SUMS)
def sums(op: Op) -> str:
    """A sum of something, and something of the sum."""
    kind = op.node.op_type
    x = SUMS[kind].format(x=op.x(0))
    axes = _axes(op)
    if axes is not None and _dynamic(op):
        x = op.call("sum_over", x, axes, _keep(op))
    elif axes is not None:
        x = f"torch.sum({x}, {axes}, {_keep(op)}, dtype={op.output_dtype()})"
    if kind == "ReduceL2":
        return f"torch.sqrt({x})" if op.is_float() else f"torch.sqrt({x}).to({op.output_dtype()})"
    if kind == "ReduceLogSum":
        return f"torch.log({x})" if op.is_float() else f"torch.log({x}).to({op.output_dtype()})"
    return x


@lowers("ReduceMean")
def mean(op: Op) -> str:
    """Integers are divided toward zero."""
    axes = _axes(op)
    if axes is None:
        return op.x(0)
    if op.is_float() and not _dynamic(op):
        return f"torch.mean({op.x(0)}, {axes}, {_keep(op)})"
    return op.call("mean_over", op.x(0), axes, _keep(op))


@lowers(*EXTREMES)
def extremes(op: Op) -> str:
    """Over no elements: -inf or the least integer for the maximum, and the other way round."""
    axes = _axes(op)
    if axes is None:
        return op.x(0)
    shape = op.shape()
    full = shape is not None and all(d is not None and d > 0 for d in shape)
    if full and not _dynamic(op):
        return f"torch.{EXTREMES[op.node.op_type]}({op.x(0)}, {axes}, {_keep(op)})"
    largest = boolean(op.node.op_type == "ReduceMax")
    return op.call("extreme_over", op.x(0), axes, _keep(op), largest)


@lowers("ReduceProd")
def product(op: Op) -> str:
    """One axis after the other."""
    axes = _axes(op)
    return op.x(0) if axes is None else op.call("product_over", op.x(0), axes, _keep(op))


@lowers("ReduceLogSumExp")
def log_sum_exp(op: Op) -> str:
    """Stable: the maximum is taken out first. Over no axes: log(exp(x)) = x."""
    axes = _axes(op)
    if axes is None:
        return op.x(0)
    if not op.is_float():
        op.refuse("integers")
    return op.call("log_sum_exp", op.x(0), axes, _keep(op))


@lowers("ArgMax", "ArgMin")
def arg_extreme(op: Op) -> str:
    """The first of equals, or the last where select_last_index says so (opset 12)."""
    function = op.node.op_type.lower()
    axis, last = op.attribute("axis", 0), op.flag("select_last_index")
    if not last:
        return f"torch.{function}({op.x(0)}, {axis}, {_keep(op)})"
    flipped = f"torch.{function}(torch.flip({op.x(0)}, [{axis}]), {axis}, {_keep(op)})"
    return f"torch.sub({op.x(0)}.shape[{axis}] - 1, {flipped})"


@lowers("CumSum", "CumProd")
def cumulate(op: Op) -> str:
    """`exclusive` leaves the element itself out, `reverse` starts at the end."""
    function = "cumulative_" + ("sum" if op.node.op_type == "CumSum" else "product")
    axis = op.int_input(1, "0")
    exclusive, reverse = op.flag("exclusive"), op.flag("reverse")
    return op.call(function, op.x(0), axis, boolean(exclusive), boolean(reverse))


@lowers("GlobalAveragePool", "GlobalMaxPool")
def global_pool(op: Op) -> str:
    """Over all spatial axes."""
    function = "mean" if op.node.op_type == "GlobalAveragePool" else "amax"
    return f"torch.{function}({op.x(0)}, {int_list(range(2, op.known_rank()))}, True)"

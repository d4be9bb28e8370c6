"""Weights laid out as a kernel reads them.

    packed[p, r..., c] = weights[r..., p * columns + c]

A tile reads `columns` elements of each row of weights. The rows are a power of two apart as a rule,
so that what a tile needs lies in few sets of the caches and is pushed out of them before it is read
again, and each read is on another page. Packed it is one piece, read from its start to its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def packed(weights: np.ndarray[Any, Any], columns: int) -> np.ndarray[Any, Any]:
    """`weights`, (reduction..., C), as (C / columns, reduction..., columns)."""
    import numpy as np

    panels = weights.reshape(*weights.shape[:-1], -1, columns)
    return np.ascontiguousarray(np.moveaxis(panels, -2, 0))


def index_of(columns: int) -> Any:
    """The same for the indices of an element, as TVM's `transform_layout` takes it."""
    return lambda *at: (at[-1] // columns, *at[:-1], at[-1] % columns)


def is_kernel_call(expression: Any) -> bool:
    """Whether an expression of Relax calls a kernel."""
    from tvm import ir, relax

    if not isinstance(expression, relax.Call) or not isinstance(expression.op, ir.Op):
        return False
    return str(expression.op.name) == "relax.call_tir"


def with_packed(module: Any, packing: Mapping[str, tuple[int, int]]) -> Any:
    """Return `module` with constants of its calls packed, as kernels in it take them already.

    `packing` has for a kernel which of its operands that is, and the columns of a tile.
    """
    import tvm
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    @mutator
    class Packer(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            call = self.visit_expr_post_order(call)
            name = call.args[0].name_hint if is_kernel_call(call) else ""
            if name not in packing:
                return call
            at, columns = packing[name]
            operands = list(call.args[1].fields)
            array = operands[at].value.numpy()
            operands[at] = relax.const(packed(array, columns), array.dtype.name)
            arguments = [retyped[name], relax.Tuple(operands), *call.args[2:]]
            return relax.Call(call.op, arguments, call.attrs, call.ty_args)

    # The variable of a function has its type, which is another now.
    rest = {v: f for v, f in module.functions.items() if v.name_hint not in packing}
    packer = Packer(tvm.IRModule(rest, attrs=module.attrs))
    retyped = {name: packer.builder_.add_func(module[name], name) for name in packing}
    for variable, function in module.functions.items():
        if isinstance(function, relax.Function):
            packer.builder_.update_func(variable, packer.visit_expr(function))
    return packer.builder_.get()

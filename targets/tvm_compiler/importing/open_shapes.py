"""Shapes with open dimensions, as ONNX's inference has them, said to Relax where it has lost them.

Relax infers the shape of what depends on a shape operator by operator; after an `Expand` or a
`Range` by computed sizes it knows nothing more, and no kernel can be made for what follows. ONNX's
inference often does: `[batch, 1, seq, seq]`. A `match_cast` then says so, and is checked when the
model runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

Dims = tuple[int | str, ...]
"""Sizes by their numbers, or by the names that inputs give them."""


def has_open(graph: onnx.GraphProto) -> bool:
    """Whether an input has a dimension that is not fixed."""
    dims = (d for value in graph.input for d in value.type.tensor_type.shape.dim)
    return any(not d.HasField("dim_value") for d in dims)


def dims_of(graph: onnx.GraphProto) -> dict[str, Dims]:
    """The dimensions of every value by name, where all are numbers or names of the inputs'."""
    names = {d.dim_param for v in graph.input for d in v.type.tensor_type.shape.dim} - {""}
    found = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            continue
        dims = tuple(
            d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim
        )
        if all(isinstance(d, int) or d in names for d in dims):
            found[value.name] = dims
    return found


class Settling:
    """What is known of the shapes of a graph, for the importer."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._dims = dims_of(graph)
        self._inputs = [v.name for v in graph.input]
        self._vars: dict[str, Any] = {}

    def settled(self, builder: Any, name: str, found: Any, nodes: Mapping[str, Any]) -> Any:
        """`found`, the Relax expression of `name`, with its shape known where ONNX knows it.

        `nodes` are the expressions of the values so far, the inputs among them.
        """
        from tvm import relax

        kind = getattr(found, "ty", None)
        if name not in self._dims or not isinstance(kind, relax.TensorType):
            return found
        dims = self._sizes(name, nodes)
        known = list(self._vars.values())
        if kind.shape is not None and all(
            _made_of(d, known) for d in getattr(kind.shape, "values", (None,))
        ):
            return found
        return builder.match_cast(found, relax.TensorType(dims, kind.dtype))

    def counted(self, builder: Any, node: onnx.NodeProto, operands: Any, nodes: Any) -> Any:
        """What a `Range` of a known open length gives, where its first two numbers are constants.

        None for any other node. TVM's importer computes the length from tensors, and gives it a
        name of its own, which is then taken for another one than that of the same dimension.
        """
        from tvm import te, tirx

        from infc.targets.tvm_compiler.importing.converters import constant_of

        name = node.output[0]
        if node.op_type != "Range" or node.domain or name not in self._dims:
            return None
        start, delta = (constant_of(operands[i]) for i in (0, 2))
        if start is None or delta is None:
            return None
        (length,) = self._sizes(name, nodes)
        first, step = start.reshape(-1)[0].item(), delta.reshape(-1)[0].item()
        dtype = start.dtype.name

        def element(i: Any) -> Any:
            return tirx.const(first, dtype) + i.astype(dtype) * tirx.const(step, dtype)

        return builder.emit_te(
            lambda: te.compute((length,), element, name="range"), primfunc_name_hint="range"
        )

    def _sizes(self, name: str, nodes: Mapping[str, Any]) -> list[Any]:
        if not self._vars:
            self._learn(nodes)
        return [d if isinstance(d, int) else self._vars[d] for d in self._dims[name]]

    def _learn(self, nodes: Mapping[str, Any]) -> None:
        """The variables of TIR that stand for the inputs' open dimensions, by their names."""
        for name in self._inputs:
            if name not in nodes or name not in self._dims:
                continue
            values = nodes[name].ty.shape.values
            for dim, value in zip(self._dims[name], values, strict=True):
                if isinstance(dim, str):
                    self._vars.setdefault(dim, value)


def as_tensor(builder: Any, found: Any) -> Any:
    """A shape, or a size, as the tensor of int64 that ONNX takes it for; tensors as they are."""
    from tvm import ir, relax

    kind = getattr(found, "ty", None)
    if isinstance(kind, relax.ShapeType):
        return builder.normalize(relax.op.shape_to_tensor(found))
    if isinstance(kind, ir.PrimType):
        size = relax.op.shape_to_tensor(relax.ShapeExpr([getattr(found, "value", found)]))
        return builder.normalize(relax.op.reshape(size, relax.ShapeExpr([])))
    return found


def _made_of(size: Any, known: list[Any]) -> bool:
    """Whether `size` is an expression of nothing but the variables in `known`."""
    from tvm.tirx.analysis import undefined_vars

    if size is None:
        return False
    if isinstance(size, int):
        return True
    return all(any(v.same_as(k) for k in known) for v in undefined_vars(size))

"""A lowered ONNX graph as Relax, by TVM's own importer and the converters that infc adds to it.

Every node's result is held to the type and shape that ONNX gives it: a converter that loses them
would only be found out far behind, in a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from infc.targets.tvm_compiler.errors import last_line
from infc.targets.tvm_compiler.importing.open_shapes import Settling, as_tensor, has_open
from infc.targets.tvm_compiler.symbolic import is_open

if TYPE_CHECKING:
    import onnx

    from infc.targets.tvm_compiler.cpus import Cpu

UNKNOWN = "'Var' object has no attribute 'value'"
"""What Python says of a converter that takes an operand for a constant which is none."""
Type = tuple[str, tuple[int, ...]]
"""An element type by its NumPy name, and a shape."""


class RefusedError(Exception):
    """Nodes that cannot be converted: `rows` has each of them with the reason."""

    def __init__(self, rows: Sequence[tuple[onnx.NodeProto, str]]) -> None:
        super().__init__(f"`{rows[0][0].op_type}`: {rows[0][1]}")
        self.rows = tuple(rows)


def import_model(model: onnx.ModelProto, cpu: Cpu, refused: frozenset[int] = frozenset()) -> Any:
    """Return the Relax module of `model`, weights as constants in it.

    The nodes whose `id` is in `refused` are not converted: zeros stand for them.

    The module is None where there are any.

    Raises:
        RefusedError: nodes that cannot be converted, all of them.
    """
    from infc.targets.tvm_compiler.importing.converters import own

    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    settling = Settling(model.graph) if has_open(model.graph) else None
    importer = _importer()(own(cpu), types_of(model.graph), refused, settling)
    try:
        module = importer.from_onnx(model.graph, opset)
    except Exception as error:
        # What comes after a refusal may well be its consequence.
        if not importer.refused and not refused:
            if importer.current is None:
                raise
            importer.refused.append((importer.current, reason_of(error)))
    if importer.refused:
        raise RefusedError(importer.refused)
    return None if refused else module


def types_of(graph: onnx.GraphProto) -> dict[str, Type]:
    """The type of each value whose shape is fixed, by name."""
    from onnx.helper import tensor_dtype_to_np_dtype

    found: dict[str, Type] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        dims = tensor.shape.dim
        if not tensor.elem_type or not tensor.HasField("shape"):
            continue
        if all(d.HasField("dim_value") for d in dims):
            name = tensor_dtype_to_np_dtype(tensor.elem_type).name
            found[value.name] = name, tuple(d.dim_value for d in dims)
    return found


def reason_of(error: BaseException) -> str:
    """The line of an error that says what is wrong, for a diagnostic."""
    if isinstance(error, KeyError):
        return f"the attribute {error} is missing"
    if isinstance(error, AttributeError) and last_line(error) == UNKNOWN:
        return "an operand that TVM takes as a constant is computed when the model runs"
    return last_line(error)


def _importer() -> Any:
    """TVM's importer as a class that goes on after a refusal."""
    import numpy as np
    from tvm import relax
    from tvm.relax.frontend.onnx import onnx_frontend

    class Importer(onnx_frontend.ONNXGraphImporter):  # type: ignore[misc]
        def __init__(
            self,
            added: Mapping[str, Any],
            types: Mapping[str, Type],
            known: frozenset[int],
            open_shapes: Settling | None,
        ) -> None:
            # By itself it takes a dimension of 0 for one that is open.
            shapes = {name: list(shape) for name, (_, shape) in types.items()}
            super().__init__(shapes, "float32", keep_params_in_input=False, sanitize=False)
            self.converters = {**onnx_frontend._get_convert_map(), **added}
            self.types = types
            self.known = known
            self.open = open_shapes
            self.refused: list[tuple[onnx.NodeProto, str]] = []
            self.current: onnx.NodeProto | None = None

        def _check_for_unsupported_ops(self, graph: Any) -> None:
            """Done before (`checking`)."""

        def _parse_value_proto(self, value_proto: Any) -> Any:
            """Asked of each node before it is converted, and of each output in the end."""
            self.current = value_proto if hasattr(value_proto, "op_type") else None
            name = super()._parse_value_proto(value_proto)
            if self.current is None and name in self._nodes:
                self._nodes[name] = as_tensor(self.bb, self._nodes[name])
            return name

        def _convert_operator(self, op_name: str, inputs: Any, attrs: Any, opset: int) -> Any:
            assert self.current is not None
            node = self.current
            if id(node) in self.known:
                return self._stand_in(node)
            try:
                found = None
                if self.open is not None:
                    found = self.open.counted(self.bb, node, inputs, self._nodes)
                if found is None:
                    found = self._converted(op_name, inputs, attrs, opset)
                if self.open is not None:
                    found = self.open.settled(self.bb, node.output[0], found, self._nodes)
                reason = self._misfit(node, found)
            except Exception as error:
                found, reason = None, reason_of(error)
            if not reason:
                return found
            self.refused.append((node, reason))
            return self._stand_in(node)

        def _converted(self, op_name: str, inputs: Any, attrs: Any, opset: int) -> Any:
            converter = self.converters[op_name].get_converter(opset)
            found = converter(self.bb, inputs, attrs, [self._nodes, self._params])
            if isinstance(found, relax.ShapeExpr) and not any(map(is_open, found.values)):
                sizes = [int(n) for n in found.values]
                found = relax.const(np.array(sizes, np.int64), "int64")
            return self.bb.normalize(found) if isinstance(found, relax.Expr) else found

        def _misfit(self, node: onnx.NodeProto, found: Any) -> str:
            """What is wrong with the types of the outputs; "" where nothing is."""
            kinds = found.ty.fields if isinstance(found.ty, relax.TupleType) else [found.ty]
            for name, kind in zip(node.output, kinds, strict=False):
                if not name:
                    continue
                if self.open is not None and not isinstance(kind, relax.TensorType):
                    continue
                shape = getattr(kind, "shape", None)
                dims = getattr(shape, "values", None)
                if dims is None or (any(map(is_open, dims)) and self.open is None):
                    return f"the shape of `{name}` depends on values"
                if any(map(is_open, dims)):
                    continue
                here = str(kind.dtype.dtype), tuple(int(d) for d in dims)
                if here != self.types.get(name, here):
                    return (
                        f"TVM's importer makes `{name}` {said(here)}, ONNX {said(self.types[name])}"
                    )
            return ""

        def _stand_in(self, node: onnx.NodeProto) -> Any:
            """Zeros in the place of what was refused, so that what follows is looked at, too.

            Raises:
                RefusedError: the types are not known; there is no going on.
            """
            kinds = [self.types.get(name) for name in node.output if name]
            if None in kinds:
                raise RefusedError(self.refused)
            made = [
                self.bb.emit(relax.op.zeros(shape, dtype)) for dtype, shape in filter(None, kinds)
            ]
            return made[0] if len(made) == 1 else relax.Tuple(made)

    return Importer


def said(kind: Type) -> str:
    """A type for people: `float32[1, 3]`."""
    return f"{kind[0]}[{', '.join(map(str, kind[1]))}]"

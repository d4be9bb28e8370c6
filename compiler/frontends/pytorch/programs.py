"""torch.export: a module as a program with symbolic dimensions, and the program as ONNX.

Every dimension that may vary is `Dim.AUTO`: torch then says in the program what it made of it, a
symbol with a range or a number, which is held against what the user wants of it.

Opset 18 is what the conversions of torch 2.13 are written in; all else goes through a version
converter, which gives up without saying so.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from infc.diagnostics import Diagnostic, InfcError, fail
from infc.frontends.pytorch.calls import Call, Input
from infc.frontends.pytorch.refusals import UnconvertedError, place_of_node
from infc.input_spec import Dim
from infc.signature import DTYPES

if TYPE_CHECKING:
    import onnx_ir as ir

OPSET = 18
_SYMBOL = re.compile(r"[su]\d+")


def export(flat: Any, call: Call) -> Any:
    """The ExportedProgram of a flat module."""
    import torch
    from torch.export import Dim

    shapes = tuple(
        {axis: Dim.AUTO for axis, label in enumerate(i.labels) if label} for i in call.inputs
    )
    return torch.export.export(
        flat, call.examples, dynamic_shapes=(shapes,) if any(shapes) else None, strict=False
    )


def convert(program: Any) -> ir.Model:
    """The program as ONNX.

    Raises:
        UnconvertedError: with the user's line that it fails at.
    """
    import torch

    try:
        made = torch.onnx.export(
            program, dynamo=True, verbose=False, optimize=True, opset_version=OPSET
        )
    except torch.onnx.OnnxExporterError as error:
        raise UnconvertedError(place_of_node(str(error), program)) from error
    assert made is not None, "without a path the program is returned"
    model: ir.Model = made.model
    _cast_outputs(program, model.graph)
    return model


def _cast_outputs(program: Any, graph: ir.Graph) -> None:
    """Give each output the type that it has in `program`.

    torch computes sums, softmax and the like of 16 bits in float32 and rounds what comes out, and
    takes an output of the graph from before that (torch 2.13, onnx/_internal/exporter/_core.py).
    """
    import numpy as np
    import onnx_ir as ir
    from torch.export.graph_signature import OutputKind

    (results,) = next(n for n in program.graph.nodes if n.op == "output").args
    specs = program.graph_signature.output_specs
    rows = zip(results, specs, strict=True)
    users = [node for node, spec in rows if spec.kind is OutputKind.USER_OUTPUT]
    if len(users) != len(graph.outputs):
        return
    for i, (node, value) in enumerate(zip(users, graph.outputs, strict=True)):
        held = getattr(node, "meta", {}).get("val")
        name = str(getattr(held, "dtype", "")).removeprefix("torch.")
        if name not in DTYPES or value.dtype is None:
            continue
        dtype = ir.DataType.from_numpy(np.dtype(name))
        if dtype == value.dtype:
            continue
        cast = ir.node("Cast", [value], {"to": dtype})
        graph.append(cast)
        (own,) = cast.outputs
        own.name, own.shape, own.dtype = f"{value.name}_as_{name}", value.shape, dtype
        graph.outputs[i] = own


def without_constants(program: Any, flat: Any, call: Call) -> Any:
    """The program with tensors alone among its results; the conversion stumbles over numbers."""
    from torch.export.graph_signature import ConstantArgument

    rows = program.graph_signature.output_specs
    if not any(isinstance(row.arg, ConstantArgument) for row in rows):
        return program
    sizes = [tensor.shape for _, tensor in _inputs(program)]
    labels = [tuple("" if str(d).isdecimal() else str(d) for d in shape) for shape in sizes]
    inputs = [replace(i, labels=found) for i, found in zip(call.inputs, labels, strict=True)]
    return export(flat, replace(call, inputs=tuple(inputs)))


def _inputs(program: Any) -> list[tuple[str, Any]]:
    """The names of the user's inputs that are tensors, with what stands for them in the program."""
    held = {n.name: n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"}
    names = program.graph_signature.user_inputs
    return [(name, held[name]) for name in names if hasattr(held.get(name), "shape")]


def symbols(program: Any, call: Call, *, ready_made: bool) -> dict[str, str]:
    """The user's names for the symbols of `program`, which is `ready_made` where it was a file.

    Raises:
        InfcError: E106 where a dimension that is to vary is a number in it, or varies less.
    """
    ranges = {str(symbol): found for symbol, found in program.range_constraints.items()}
    known: dict[str, str] = {}
    for (_, tensor), given in zip(_inputs(program), call.inputs, strict=True):
        for axis, size in enumerate(map(str, tensor.shape)):
            dim = given.dims[axis] if given.dims else Dim()
            if _SYMBOL.fullmatch(size):
                label = given.labels[axis] if given.labels else ""
                known.setdefault(size, label or _default_label(given, axis))
                _require_range(ranges.get(size), given, axis, dim)
            elif size.isdecimal() and dim != Dim() and dim.fixed is None:
                raise _fixed(given.name, axis, dim, size, ready_made)
    return known


class FixedError(InfcError):
    """E106 for a dimension that torch.export took for a constant, as it does in an LSTM."""

    @property
    def reason(self) -> str:
        """The message, for a note."""
        return self.diagnostics[0].message


def _fixed(name: str, axis: int, dim: Dim, size: str, ready_made: bool) -> FixedError:
    wish = f"dimension {axis} of `{name}` is to be {dim}, but"
    if ready_made:
        help = f"export the program with `dynamic_shapes`, or fix it at {size}"
        message = f"{wish} the program was exported with {size}"
    else:
        message = f"{wish} torch.export makes it {size}: the model's code takes it for a number"
        help = f"fix it at {size}; or, in the model, write `x.shape[{axis}]` or -1"
    return FixedError(Diagnostic("E106", message, help=help))


def _default_label(given: Input, axis: int) -> str:
    return f"{given.name}_dim{axis}" if axis else "batch"


def _require_range(found: Any, given: Input, axis: int, dim: Dim) -> None:
    """E106 where torch found that a dimension varies less than the user wants it to."""
    if found is None or dim.low is None or dim.high is None:
        return
    least, most = (int(v) if str(v).isdecimal() else None for v in (found.lower, found.upper))
    # Two is where torch's reasoning begins, zero and one being special; the models take one.
    if least is not None and least > max(2, dim.low):
        bound = f"at least {least}"
    elif most is not None and dim.high > most:
        bound = f"at most {most}"
    else:
        return
    raise fail(
        "E106",
        f"dimension {axis} of `{given.name}` is to be {dim}, and the model takes {bound}",
        help="narrow the range, or build the model for others",
    )

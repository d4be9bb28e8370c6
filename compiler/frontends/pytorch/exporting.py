"""ONNX by torch.export, or, where that cannot, by the exporter for TorchScript.

    module -> torch.export.export -> ExportedProgram -> torch.onnx.export(dynamo=True)
    module -> torch.jit.trace     -> ScriptModule    -> torch.onnx.export(dynamo=False)

Every dimension that may vary is `Dim.AUTO`: torch then says in the program what it made of it, a
symbol with a range or a number, which is held against what the user wants of it. A traced module
has its control flow as it was for the examples, so a module whose flow depends on values is never
traced: torch.jit.script is tried on it, which keeps both branches.

Opset 18 is what torch 2.13's own conversions are written in; everything else goes through a version
converter, which gives up without saying so.
"""

from __future__ import annotations

import re
import sys
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import Diagnostic, InfcError, Severity, fail
from infc.frontends.pytorch.calls import Call
from infc.frontends.pytorch.failures import message_of, quoted_line, root_of
from infc.frontends.pytorch.flat import flatten
from infc.frontends.pytorch.loading import Loaded
from infc.user_code import line_of

if TYPE_CHECKING:
    import onnx_ir as ir

OPSET = 18
EXPORT, TORCHSCRIPT = "torch.export", "torchscript"
_SYMBOL = re.compile(r"[su]\d+")


@dataclass(frozen=True, slots=True)
class Exported:
    """A graph whose inputs and outputs are in the order of the call's, under other names.

    `symbols` maps the names of dimensions in it to the user's.
    """

    exporter: str
    model: ir.Model
    symbols: dict[str, str]
    notes: tuple[Diagnostic, ...] = ()


def export(loaded: Loaded, flat: Any, call: Call, scratch: Path) -> Exported:
    """Export the flat module, or the program that it is of.

    Raises:
        InfcError: E106 where a dimension cannot vary as the user wants it to, E111.
    """
    if loaded.scripted:
        note = _note("torch.export does not take TorchScript")
        return _torchscript(_traced(flat, call), call, scratch, (note,))
    try:
        return _program(loaded, flat, call)
    except (InfcError, MemoryError):
        raise
    except Exception as error:
        _log("torch.export", error)
        failure = error
    try:
        return _fallback(loaded, flat, call, scratch, failure)
    except (InfcError, MemoryError):
        raise
    except Exception as error:
        _log("the TorchScript exporter", error)
        raise _failure(failure) from failure


def _program(loaded: Loaded, flat: Any, call: Call) -> Exported:
    """By torch.export."""
    import torch
    from torch.export import Dim

    program = loaded.exported
    if program is None:
        shapes = tuple(
            {axis: Dim.AUTO for axis, label in enumerate(i.labels) if label} for i in call.inputs
        )
        program = torch.export.export(flat, call.examples, dynamic_shapes=(shapes,), strict=False)
    symbols = _symbols(program, call)
    made = torch.onnx.export(
        program, dynamo=True, verbose=False, optimize=True, opset_version=OPSET, external_data=True
    )
    assert made is not None, "without a path the program is returned"
    return Exported(EXPORT, made.model, symbols)


def _symbols(program: Any, call: Call) -> dict[str, str]:
    """The user's names for the symbols of `program`.

    Raises:
        InfcError: E106 where a dimension that is to vary is a number in it, or varies less.
    """
    held = {n.name: n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"}
    names = [n for n in program.graph_signature.user_inputs if hasattr(held.get(n), "shape")]
    symbols: dict[str, str] = {}
    for name, given in zip(names, call.inputs, strict=True):
        for axis, size in enumerate(held[name].shape):
            text = str(size)
            dim = given.dims[axis] if given.dims else None
            if _SYMBOL.fullmatch(text):
                label = given.labels[axis] if given.labels else ""
                label = label or ("batch" if axis == 0 else f"{given.name}_dim{axis}")
                symbols.setdefault(text, label)
                _require_range(program, text, given.name, axis, dim)
            elif text.isdecimal() and dim is not None and dim.fixed is None and given.labels[axis]:
                raise _fixed(given.name, axis, int(text), str(dim), program is None)
    return symbols


def _require_range(program: Any, symbol: str, name: str, axis: int, dim: Any) -> None:
    """E106 where torch found that a dimension varies less than the user wants it to."""
    ranges = {str(key): value for key, value in program.range_constraints.items()}
    found = ranges.get(symbol)
    if found is None or dim is None or dim.low is None:
        return
    least, most = (int(v) if str(v).isdecimal() else None for v in (found.lower, found.upper))
    # Two is where torch's reasoning begins, since zero and one are special; the models take one.
    if least is not None and least > 2 and dim.low < least:
        bound = f"at least {least}"
    elif most is not None and dim.high > most:
        bound = f"at most {most}"
    else:
        return
    raise fail(
        "E106",
        f"`--input`: dimension {axis} of `{name}` may be {dim}, and the model takes {bound}",
        help="narrow the range, or build the model for longer inputs",
    )


def _fixed(name: str, axis: int, size: int, dim: str, _: bool) -> InfcError:
    return fail(
        "E106",
        f"`--input`: dimension {axis} of `{name}` is to be {dim}, but the model makes it {size}: "
        "its code compares it with a number, or reshapes to one",
        help=f"fix it at {size}; or in the model write sizes as `x.shape[{axis}]` or -1",
    )


def _fallback(loaded: Loaded, flat: Any, call: Call, scratch: Path, failure: Exception) -> Exported:
    """By the exporter for TorchScript: traced, where no flow depends on values, or scripted."""
    import torch

    if loaded.exported is not None:
        raise _failure(failure)
    reason = f"torch.export could not: {message_of(root_of(failure))}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", torch.jit.TracerWarning)
        try:
            traced = _traced(flat, call)
        except torch.jit.TracerWarning:
            inner, _ = flatten(torch.jit.script(loaded.module), call)
            traced = _traced(inner, call)
    return _torchscript(traced, call, scratch, (_note(reason),))


def _traced(flat: Any, call: Call) -> Any:
    import torch

    with torch.no_grad():
        return torch.jit.trace(flat, call.examples, check_trace=False)


def _torchscript(traced: Any, call: Call, scratch: Path, notes: tuple[Diagnostic, ...]) -> Exported:
    import onnx_ir as ir
    import torch

    names = [f"infc_input_{i}" for i in range(len(call.inputs))]
    axes = {
        name: {axis: label for axis, label in enumerate(i.labels) if label}
        for name, i in zip(names, call.inputs, strict=True)
    }
    folder = scratch / "torchscript"
    folder.mkdir()
    path = folder / "model.onnx"
    try:
        torch.onnx.export(
            traced,
            call.examples,
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            dynamic_axes={name: labels for name, labels in axes.items() if labels},
        )
    except Exception as error:
        if notes and "could not" in notes[0].message:
            raise
        raise _failure(error) from error
    return Exported(TORCHSCRIPT, ir.load(path), {}, notes)


def _log(what: str, error: Exception) -> None:
    """Leave the whole exception in the log of the worker."""
    lines = traceback.format_exception(error)
    sys.stderr.write(f"{what} failed:\n{''.join(lines)}\n")


def _note(reason: str) -> Diagnostic:
    return Diagnostic("E111", f"exported through TorchScript: {reason}", severity=Severity.NOTE)


def _failure(error: Exception) -> InfcError:
    """What torch.export, or the conversion of its program, refused."""
    cause = root_of(error)
    text = f"{error}\n{cause}"
    place = line_of(error) or line_of(cause) or quoted_line(text)
    return fail("E111", _plain(cause), where=place, help=_remedy(text))


def _plain(error: BaseException) -> str:
    text = str(error)
    operator = re.search(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'", text)
    if operator:
        return f"`{operator[1]}` has no counterpart in ONNX"
    fake = re.search(r"no fake impl registered for <CustomOpDef\(([\w:]+)\)>", text)
    if fake:
        return f"`{fake[1]}` is an operator of its own, which torch.export cannot look into"
    if "data-dependent" in text:
        return f"the control flow depends on values: {message_of(error)}"
    return message_of(error)


def _remedy(text: str) -> str:
    if "data-dependent" in text:
        return "use `torch.where`, or `torch.cond` with both branches"
    if "fake impl" in text or "No ONNX function" in text:
        return "compute it with torch's own operators where the model is exported"
    return "`--verbose` and the log have the exporter's own words"

"""ONNX by torch.export, or, where that cannot, by the exporter for TorchScript.

    module -> torch.export.export -> ExportedProgram -> torch.onnx.export(dynamo=True)
    module -> torch.jit.trace     -> ScriptModule    -> torch.onnx.export(dynamo=False)

A traced module has its control flow as it was for the examples, so a module whose flow depends on
values is never traced: torch.jit.script is tried on it, which keeps both branches.
"""

from __future__ import annotations

import shutil
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import Diagnostic, InfcError, Severity
from infc.frontends.pytorch import programs, refusals, scripts
from infc.frontends.pytorch.calls import Call
from infc.frontends.pytorch.failures import message_of, root_of
from infc.frontends.pytorch.flat import flatten
from infc.frontends.pytorch.loading import Loaded

if TYPE_CHECKING:
    import onnx_ir as ir

EXPORT, TORCHSCRIPT = "torch.export", "torchscript"


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
        return _script(flat, call, scratch, "torch.export does not take TorchScript")
    try:
        program = loaded.exported
        if program is None:
            program = programs.export(flat, call)
        else:
            program = programs.without_constants(program, flat, call)
        symbols = programs.symbols(program, call, ready_made=loaded.exported is not None)
        return Exported(EXPORT, programs.convert(program), symbols)
    except MemoryError:
        raise
    except programs.FixedError as error:
        if loaded.exported is None and scripts.is_traceable(flat, call):
            return _script(flat, call, scratch, f"torch.export could not: {error.reason}")
        raise
    except InfcError:
        raise
    except Exception as error:  # of any type: torch.export runs the user's code
        _log("torch.export", error)
        if loaded.exported is not None:
            raise refusals.refusal(error) from error
        return _second(loaded, flat, call, scratch, error)


def clear(scratch: Path) -> None:
    """Remove the exporter's own files, which are as large as the model, once it is written."""
    shutil.rmtree(scratch / scripts.FOLDER, ignore_errors=True)


def _second(loaded: Loaded, flat: Any, call: Call, scratch: Path, first: Exception) -> Exported:
    """The other exporter; where it cannot either, what the first one said is what counts."""
    import torch

    reason = f"torch.export could not: {message_of(root_of(first))}"
    try:
        if not scripts.is_traceable(flat, call):
            flat, _ = flatten(torch.jit.script(loaded.module), call)
        return _script(flat, call, scratch, reason)
    except MemoryError:
        raise
    except Exception as error:
        _log("the exporter for TorchScript", error)
        raise refusals.refusal(first) from first


def _script(flat: Any, call: Call, scratch: Path, reason: str) -> Exported:
    note = Diagnostic("E111", f"exported through TorchScript: {reason}", severity=Severity.NOTE)
    try:
        model = scripts.convert(flat, call, scratch)
    except (InfcError, MemoryError):
        raise
    except Exception as error:
        raise refusals.refusal(error) from error
    return Exported(TORCHSCRIPT, model, {}, (note,))


def _log(what: str, error: Exception) -> None:
    """Leave the whole exception in the log of the worker."""
    lines = "".join(traceback.format_exception(error))
    sys.stderr.write(f"{what} failed:\n{lines}\n")

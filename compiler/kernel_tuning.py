"""A back end that can measures the kernels of a legalised model, and keeps the best.

What is found goes to a database in INFC_HOME, as it is found, and every later build uses it. A
tuning that is killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import building, workers
from infc.diagnostics import Diagnostic, Severity
from infc.request import WorkerLimits
from infc.signature import TensorSpec
from infc.targets import Artifact, BackEnd, Target, module_of
from infc.tuning_options import TuningOptions

if TYPE_CHECKING:
    import onnx_ir as ir

TRIAL_S = 30.0
"""A kernel takes no longer to measure: after so long for each the worker is stopped."""


def tune(
    model: ir.Model,
    source_name: str,
    end: BackEnd,
    target: Target,
    options: TuningOptions,
    signature: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
    scratch: Path,
    limits: WorkerLimits,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Measure the kernels of the legalised `model`; what the worker says of it.

    `limits` are for a build: a tuning has its own time on top.

    Raises:
        InfcError: E203, E204, E205, E209, E50x.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    file = scratch / "model.onnx"
    building.save_model(model, file)
    payload = building.payload_for(file, scratch, target, signature, options)
    job = workers.Call(
        module_of(end.NAME),
        "tune",
        payload,
        scratch / "tune",
        scratch.parent / "log",
        f"`{end.NAME}` while tuning",
        end.worker(target),
    )
    longer = options.minutes * 60 + options.trials * TRIAL_S
    limits = replace(limits, timeout_s=limits.timeout_s + longer)
    value = workers.call(job, limits, building.teller(tell, "tuning"))
    if value.get("unsupported"):
        raise building.unsupported(model, source_name, end, value["unsupported"])
    return value


def warnings(options: TuningOptions, artifact: Artifact) -> tuple[Diagnostic, ...]:
    """E210 where the user names databases that have nothing for the model."""
    used = artifact.notes.get("tuning", {})
    if not options.databases or used.get("records") or not used.get("kernels"):
        return ()
    files = ", ".join(f"`{path}`" for path in options.databases)
    return (
        Diagnostic(
            "E210",
            f"no record of {files} is for any of the model's {used['kernels']} kernels",
            help="`infc tune MODEL` with the same target and inputs measures them",
            severity=Severity.WARNING,
        ),
    )

"""Proof: the optimised graph and the artifact, run on the inputs of the reference.

Every run is in a worker. A check returns the error of every output, or raises where one is outside
its threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from infc.comparison import THRESHOLDS, OutputError, require
from infc.diagnostics import InfcError, fail
from infc.frontends import Origin
from infc.request import Precision, WorkerLimits
from infc.signature import TensorSpec, load_tensors
from infc.targets import Target, back_end
from infc.verification.running import run_artifact, run_unoptimized
from infc.verification.sets import Sets, compare_sets

_NO_KERNEL = "Could not find an implementation for"
"""What ONNX Runtime says of an operator that it has for other element types."""


def check_optimized(
    sets: Sets, outputs: Sequence[TensorSpec], scratch: Path, limits: WorkerLimits
) -> tuple[OutputError, ...]:
    """Run the optimised graph in `scratch/model.onnx` with nothing further optimised.

    Raises:
        InfcError: E601 where it does not answer as the source model does, or does not run.
    """
    entry, names, what = scratch / "model.onnx", [s.name for s in outputs], "the optimised graph"
    remedy = "find the pass with `--disable-pass` and report it"
    try:
        answers = run_unoptimized(entry, sets.feeds, names, scratch, limits, what)
    except InfcError as error:
        raise _refused(error, ("E204",), "E601", remedy) from error
    if sets.same_arithmetic:
        floats = {k: v for k, v in sets.computed_in.items() if v is not Precision.INT8}
        sets = replace(sets, computed_in=floats)
    errors = compare_sets(sets, answers, THRESHOLDS[Precision.FP32])
    require(errors, "E601", what, remedy)
    return errors


def check_imported(
    sets: Sets, origin: Origin, scratch: Path, limits: WorkerLimits
) -> tuple[OutputError, ...]:
    """Run what the exporter wrote, as it wrote it, with nothing optimised.

    Raises:
        InfcError: E112 where it does not answer as the source model does, or does not run.
    """
    names = list(load_tensors(sets.reference[0]))
    what, remedy = f"what `{origin.exporter}` made of the model", "`infc explain E112` has more"
    scratch.mkdir(exist_ok=True)
    try:
        answers = run_unoptimized(origin.exported, sets.feeds, names, scratch, limits, what)
    except InfcError as error:
        if _NO_KERNEL in str(error):
            remedy = "there is no kernel for its element type: let the model compute in float32"
        raise _refused(error, ("E204", "E506"), "E112", remedy) from error
    errors = compare_sets(sets, answers, THRESHOLDS[Precision.FP32])
    require(errors, "E112", what, remedy)
    return errors


def check_quantized(
    sets: Sets, outputs: Sequence[TensorSpec], scratch: Path, limits: WorkerLimits
) -> tuple[OutputError, ...]:
    """Run the Q/DQ graph in `scratch/model.onnx` with nothing optimised: as ONNX defines it.

    Raises:
        InfcError: E602 where it is further from the source model than INT8 may be.
    """
    entry, names, what = scratch / "model.onnx", [s.name for s in outputs], "the quantised graph"
    answers = run_unoptimized(entry, sets.feeds, names, scratch, limits, what)
    errors = compare_sets(sets, answers, THRESHOLDS[Precision.INT8])
    remedy = "give more samples, another `--method`, or `--keep-float` what is sensitive"
    require(errors, "E602", what, remedy)
    return errors


def check_artifact(
    sets: Sets, target: Target, entry: Path, scratch: Path, limits: WorkerLimits
) -> tuple[OutputError, ...]:
    """Run the artifact `entry` in its runtime, with every number of threads that it is held to.

    Returns the errors of the first one; the others are within the threshold too.

    Raises:
        InfcError: E602 where it does not answer as the source model does, E204, E5xx.
    """
    remedy = "nothing was published; another back end may do better (`infc targets`)"
    found = []
    for threads in back_end(target.back_end).THREADS:
        answers, _ = run_artifact(sets, target, entry, scratch, limits, threads)
        errors = compare_sets(sets, answers, THRESHOLDS[target.precision])
        what = f"the `{target.name}` artifact"
        require(errors, "E602", what if threads == 1 else f"{what} on {threads} threads", remedy)
        found.append(errors)
    return found[0]


def _refused(error: InfcError, refusals: Sequence[str], code: str, remedy: str) -> InfcError:
    """What to raise where ONNX Runtime did not run a graph: `code` if `error` is of `refusals`."""
    first = error.diagnostics[0]
    if first.code not in refusals:
        return error
    return fail(code, first.message, notes=first.notes, help=remedy)

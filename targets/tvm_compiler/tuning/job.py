"""What a worker does for `infc tune`: measure the kernels of a model, and keep the best."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import fail
from infc.targets import BackEndError, Target
from infc.targets.tvm_compiler.tuning.lookup import databases
from infc.targets.tvm_compiler.tuning.measuring import Measurer, MeasuringError
from infc.targets.tvm_compiler.tuning.records import (
    Record,
    compiler_name,
    empty,
    file_for,
    read,
    update,
)
from infc.tuning_options import TuningOptions

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu
    from infc.targets.tvm_compiler.tuning.search import Estimate


def measurer_for(target: Target, cpu: Cpu, remote: str = "") -> Measurer:
    """What times kernels for `target`, on this machine or on the devices that `remote` names.

    Raises:
        InfcError: E205 where this machine cannot run them, E516 where no device can be had.
    """
    if remote:
        from infc.targets.tvm_compiler.devices.measuring import DeviceMeasurer

        return DeviceMeasurer(cpu, remote, target.options.get("compiler", ""))
    from infc.targets import cross
    from infc.targets.tvm_compiler.tuning.host_measuring import HostMeasurer

    if cross.is_native(cpu.triple) and not cpu.missing_here():
        return HostMeasurer(cpu)
    raise fail(
        "E205",
        f"kernels for `{target.name}` ({cpu.mcpu}, {cpu.triple}) cannot be timed on this machine",
        help="tune on such a device over TVM RPC (`--remote`), or on a machine of that kind and "
        "use the file of `infc tune export` here",
    )


def tune(
    model: Path,
    target: Target,
    cpu: Cpu,
    options: TuningOptions,
    report: Callable[..., None],
) -> dict[str, Any]:
    """Measure kernels of the lowered `model` until `options` are used up, and keep what is best.

    The records go to the database of INFC_HOME; those that are known in it, or in the files of
    `options`, are gone on from. `report` is told how far it is. The times in the answer are of the
    kernels that were measured, as often as the model calls them, on one thread.

    Raises:
        InfcError: E205, E209.
        InfcError: E517, the devices are gone; what was found before is kept.
        BackEndError: nothing can be measured any more on this machine.
    """
    import onnx

    from infc.targets.tvm_compiler.importing.graph import import_model
    from infc.targets.tvm_compiler.scheduling.kernels import fuse
    from infc.targets.tvm_compiler.tuning.search import Budget, Tuner

    file, wanted = file_for(cpu), empty(cpu, compiler_name())
    measurer = measurer_for(target, cpu, options.remote)
    known: dict[str, Record] = {}
    for database in reversed(databases(options, cpu)):
        known.update(database.records)
    began = time.monotonic()

    def keep(rows: Mapping[str, Record]) -> None:
        update(file, wanted, rows)

    def tell(estimate: Estimate) -> None:
        report(**_progress(estimate, options, time.monotonic() - began))

    tuner = Tuner(
        fuse(import_model(onnx.load(str(model)), cpu), cpu), cpu, measurer, known, keep, tell
    )
    try:
        found = tuner.run(Budget(options.trials, options.minutes * 60))
    except MeasuringError as error:
        kept = f"what was measured before is kept in `{file}`" if file.exists() else ""
        if options.remote:
            notes = [kept] if kept else []
            raise fail("E517", str(error), notes=notes, help="it goes on where it was") from error
        raise BackEndError("; ".join(filter(None, (str(error), kept)))) from error
    finally:
        measurer.close()
    records = len(read(file).records) if file.exists() else 0
    return {
        "trials": found.trials,
        "kernels": found.kernels,
        "measured": found.measured,
        "rule_ms": found.rule_s * 1e3,
        "best_ms": found.best_s * 1e3,
        "seconds": round(time.monotonic() - began, 3),
        "database": str(file),
        "records": records,
    }


def _progress(estimate: Estimate, options: TuningOptions, spent_s: float) -> dict[str, Any]:
    """What the driver is told: a line, and how much of the whole is done."""
    parts = [f"{estimate.measured} of {estimate.kernels} kernels"]
    parts.append(f"{estimate.rule_s * 1e3:.3g} -> {estimate.best_s * 1e3:.3g} ms")
    if estimate.left_s is not None:
        parts.append(f"{estimate.left_s:.0f} s left")
    done, total = estimate.trials, options.trials
    if not total:
        done, total = int(spent_s), int(options.minutes * 60)
    return {"phase": ", ".join(parts), "done": done, "total": max(total, 1)}

"""`infc.optimize` and `infc.quantize`: a model in, one ONNX file out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from infc import driver
from infc.api.arguments import AnyPath, calibration_of, specs, verify_options_of
from infc.budget import BudgetOptions
from infc.driver import OptimizeResult, Progress, QuantizeResult
from infc.import_options import ImportOptions
from infc.outcomes import silent
from infc.prune_options import PruneOptions
from infc.request import CalibrationOptions, PassOptions, VerifyOptions, WorkerLimits


def optimize(
    model: AnyPath,
    output: AnyPath,
    *,
    inputs: Mapping[str, str] | None = None,
    passes: PassOptions = PassOptions(),  # noqa: B008
    verify: VerifyOptions | bool = True,
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    external_data: bool | None = None,
    toolchains: Mapping[str, str] | None = None,
    reading: ImportOptions = ImportOptions(),  # noqa: B008
    pruning: PruneOptions | None = None,
    progress: Progress = silent,
) -> OptimizeResult:
    """Run the graph passes over `model` and write the ONNX file `output`.

    `external_data` says whether the weights go to a file of their own; None leaves that to their
    size. The other arguments are those of `compile`.

    Raises:
        InfcError: E1xx for the model, E3xx for a pass, E601 where the optimised graph answers
            differently, E701 where `output` cannot be written; nothing is written then.
    """
    return driver.optimize(
        Path(model),
        Path(output),
        inputs=specs(inputs),
        passes=passes,
        verify=verify_options_of(verify),
        limits=limits,
        external_data=external_data,
        toolchains=toolchains,
        reading=reading,
        pruning=pruning,
        progress=progress,
    )


def quantize(
    model: AnyPath,
    output: AnyPath,
    scheme: str,
    calibration: CalibrationOptions | str | None = None,
    *,
    keep_float: Iterable[str] = (),
    budget: BudgetOptions | None = None,
    inputs: Mapping[str, str] | None = None,
    passes: PassOptions = PassOptions(),  # noqa: B008
    verify: VerifyOptions | bool = True,
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    external_data: bool | None = None,
    toolchains: Mapping[str, str] | None = None,
    reading: ImportOptions = ImportOptions(),  # noqa: B008
    pruning: PruneOptions | None = None,
    progress: Progress = silent,
) -> QuantizeResult:
    """Write `model` as the INT8 ONNX file `output`, with Q/DQ as the back end `scheme` wants it.

    `calibration` is what activations are measured on, as for `compile`; only a model that came
    quantised needs none. `keep_float` names nodes that stay in float32; as few more do as `budget`
    asks for. The other arguments are
    those of `optimize`.

    Raises:
        InfcError: E110 for an unknown scheme or node, E1xx for the model, E3xx for a pass, E4xx
            for the calibration data, E601 and E602 where the optimised or the quantised graph
            answers differently, E701 where `output` cannot be written; nothing is written then.
    """
    return driver.quantize(
        Path(model),
        Path(output),
        scheme,
        calibration_of(calibration),
        keep_float=frozenset(keep_float),
        budget=budget,
        inputs=specs(inputs),
        passes=passes,
        verify=verify_options_of(verify),
        limits=limits,
        external_data=external_data,
        toolchains=toolchains,
        reading=reading,
        pruning=pruning,
        progress=progress,
    )

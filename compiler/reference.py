"""The reference: the source model, run by its own framework, on inputs that prove something."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import building, conditioning, workers
from infc.comparison import THRESHOLDS, OutputError
from infc.diagnostics import Diagnostic, InfcError, Severity, fail
from infc.feeds import make_feeds, write_feeds
from infc.request import Precision, VerifyOptions, WorkerLimits
from infc.signature import load_tensors
from infc.source_precision import quantities, source_precisions
from infc.targets import Target, back_end
from infc.verification.running import UNOPTIMIZED, run_entry
from infc.verification.sets import Sets, compare_sets

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.frontends import Source

SCALES_LOG2 = (-10, -20, -30, -40)
"""What random inputs are scaled by, in turn, where the model is ill-conditioned on larger ones."""

NOISE_MARGIN = 10.0
"""Three samples say where the extreme of a distribution with a long tail lies to about a decade."""


def reference_sets(
    source: Source,
    options: VerifyOptions,
    scratch: Path,
    limits: WorkerLimits,
    scale_log2: int = 0,
) -> Sets:
    """Run the source model by its own framework's semantics, in the new folder `scratch`.

    Raises:
        InfcError: E107 where it does not run, E604 where its answer proves nothing.
    """
    scratch.mkdir(parents=True)
    made = make_feeds(source.inputs, options, scale_log2, quantities(source.model))
    feeds = write_feeds(made, scratch)
    reference = source.reference
    target = Target("reference", "onnxruntime", "", options=reference.options)
    names = [s.name for s in source.inputs], [s.name for s in source.outputs]
    try:
        answers = run_entry(
            reference.module,
            reference.entry,
            target,
            feeds,
            names,
            scratch,
            limits,
            "the source model",
            reference.worker,
        )
    except InfcError as error:
        first = error.diagnostics[0]
        if first.code not in ("E204", "E506"):
            raise
        if source.origin is None:
            _blame_operators(source, target, scratch, limits)
        raise fail(
            "E107",
            first.message,
            notes=first.notes,
            help=_remedy(first.message),
        ) from error
    computed_in = source_precisions(source.model)
    same = source.origin is None
    sets = Sets(feeds, answers, scale_log2, computed_in=computed_in, same_arithmetic=same)
    _require_finite(sets)
    return sets


def _remedy(message: str) -> str:
    """What to do about ONNX Runtime's `message` on a source model."""
    if re.search(r"IR version|till opset", message):
        return (
            "export the model again for an earlier version of ONNX, install a later ONNX Runtime,\n"
            "or skip with `--no-verify`"
        )
    return "give the shapes it needs with `--input`, or skip with `--no-verify`"


def _blame_operators(source: Source, target: Target, scratch: Path, limits: WorkerLimits) -> None:
    """Say which operators the source model's own runtime lacks, where that is why it does not run.

    Raises:
        InfcError: E203 for each of them.
    """
    payload = {"model": str(source.reference.entry.resolve()), "target": target.to_json()}
    job = workers.Call(
        source.reference.module,
        "check",
        payload,
        scratch / "check",
        scratch / "log",
        "the source model",
    )
    try:
        rows = workers.call(job, limits)["unsupported"]
    except InfcError:  # no single operator is to blame
        return
    if rows:
        end = back_end(target.back_end)
        raise building.unsupported(source.model, source.path.name, end, rows)


Check = Callable[[Sets], tuple[OutputError, ...]]


@dataclass(slots=True)
class Reference:
    """The reference of a compilation, which finds other inputs where the first prove nothing."""

    source: Source
    options: VerifyOptions
    scratch: Path
    limits: WorkerLimits
    sets: Sets = field(init=False)
    _settled: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.sets = reference_sets(
            self.source, self.options, self.scratch / "reference", self.limits
        )

    def require(self, check: Check, model: ir.Model) -> tuple[OutputError, ...]:
        """Return what `check` finds; `model` is the optimised graph.

        Where the check fails, and the model is so ill-conditioned on these inputs that rounding
        alone explains it, it is made again on smaller inputs, and, where there are none on which
        the model is well-conditioned, with the unstable outputs held to their own noise.

        Raises:
            InfcError: the check's own.
        """
        try:
            return check(self.sets)
        except InfcError as error:
            if error.diagnostics[0].code not in ("E601", "E602") or self._settled:
                raise
            self._settled = True
            if not self._noise(model, self.sets, seeds=1):
                raise
        self.sets = self._better_sets(model)
        return check(self.sets)

    def warnings(self) -> tuple[Diagnostic, ...]:
        """One for each output that could only be held to its own noise."""
        return tuple(
            Diagnostic(
                "E605",
                f"output `{name}` is ill-conditioned: rounding the model's sums differently by "
                f"{conditioning.JITTER:g} moves it by about "
                f"{noise / NOISE_MARGIN:.2g} of its peak; it was held to {noise:.2g} of it only",
                help="give real inputs with `--verify-data FILE.npz`",
                severity=Severity.WARNING,
            )
            for name, noise in self.sets.noise.items()
        )

    def _better_sets(self, model: ir.Model) -> Sets:
        """The largest of a few smaller scales at which the model is stable, or else the noise."""
        real = self.options.data or self.options.calibration
        for scale_log2 in () if real else SCALES_LOG2:
            scratch = self.scratch / f"reference{scale_log2}"
            sets = reference_sets(self.source, self.options, scratch, self.limits, scale_log2)
            if not self._noise(model, sets, seeds=1):
                return sets
        noise = self._noise(model, self.sets, seeds=3)
        return replace(self.sets, noise={k: NOISE_MARGIN * v for k, v in noise.items()})

    def _noise(self, model: ir.Model, sets: Sets, seeds: int) -> dict[str, float]:
        """The outputs that rounding the sums of `model` otherwise moves beyond their threshold."""
        plain = replace(sets, reference=self._answers(model, sets, "plain"))
        noise: dict[str, float] = {}
        for seed in range(seeds):
            answers = self._answers(conditioning.jitter(model, seed), sets, "jittered")
            for error in compare_sets(plain, answers, THRESHOLDS[Precision.FP32]):
                if not error.ok:
                    noise[error.name] = max(noise.get(error.name, 0.0), error.relative_error)
        return noise

    def _answers(self, model: ir.Model, sets: Sets, which: str) -> tuple[Path, ...]:
        folder = self.scratch / "conditioning" / which
        folder.mkdir(parents=True, exist_ok=True)
        building.save_model(model, folder / "model.onnx")
        names = list(load_tensors(sets.feeds[0])), list(load_tensors(sets.reference[0]))
        return run_entry(
            "infc.targets.onnxruntime",
            folder / "model.onnx",
            UNOPTIMIZED,
            sets.feeds,
            names,
            folder,
            self.limits,
            "the optimised graph",
        )


def describe(options: VerifyOptions, sets: Sets) -> dict[str, Any]:
    """What was run, for the manifest."""
    scaled = (
        f", scaled by 2^{sets.scale_log2}: ill-conditioned otherwise" if sets.scale_log2 else ""
    )
    inputs = f"random, seed {options.seed}{scaled}"
    if options.calibration:
        inputs = "calibration samples"
    if options.data:
        inputs = "the user's data"
    return {
        "reference": "the source model in its own framework, nothing optimised",
        "inputs": inputs,
        "sets": len(sets.feeds),
        **({"noise": dict(sets.noise)} if sets.noise else {}),
        **({"computed_in": dict(sets.computed_in)} if sets.computed_in else {}),
    }


def _require_finite(sets: Sets) -> None:
    """Refuse a reference that proves nothing.

    Raises:
        InfcError: E604 where an output holds no finite value at all in any input set.
    """
    import numpy as np

    finite: dict[str, bool] = {}
    for folder in sets.reference:
        for name, value in load_tensors(folder).items():
            some = value.size == 0 or bool(np.isfinite(value.astype(np.float64)).any())
            finite[name] = finite.get(name, False) or some
    for name, some in finite.items():
        if not some:
            raise fail(
                "E604",
                f"output `{name}` of the source model is NaN or Inf throughout",
                help="give real inputs with `--verify-data FILE.npz`",
            )

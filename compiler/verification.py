"""Proof: the source model, the optimised graph and the artifact, run on the same inputs.

For a reference output r and an answer a, with the sums and maxima over all elements of all input
sets of one size,

    max_abs_error  = max |a - r|
    relative_error = max |a - r| / max |r|
    SQNR           = 10 log10(sum r^2 / sum (a - r)^2)  in dB; none where a = r

Integer and boolean outputs must be equal. NaN equals NaN, an infinity equals itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import workers
from infc.diagnostics import Diagnostic, InfcError, fail
from infc.request import Precision, VerifyOptions, WorkerLimits
from infc.signature import TensorSpec, load_tensors, numpy_dtype, save_tensors

if TYPE_CHECKING:
    import numpy as np

    from infc.targets import Target

    Tensors = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class Threshold:
    """What an output may differ by: `relative_error` at most, `sqnr_db` at least."""

    relative_error: float
    sqnr_db: float


THRESHOLDS = {
    Precision.FP32: Threshold(1e-4, 80.0),
    Precision.FP16: Threshold(2e-2, 40.0),
    Precision.BF16: Threshold(1e-1, 25.0),
    Precision.INT8: Threshold(math.inf, 15.0),
}
"""float32 differs by summation order, 1e-6 to 2e-5 of the peak on the models tried; float16 and
bfloat16 by their 11 and 8 bits; INT8 is judged by SQNR alone, a peak says little about it."""


@dataclass(frozen=True, slots=True)
class OutputError:
    """How far one output is from the reference; None for an SQNR without any noise."""

    name: str
    max_abs_error: float
    relative_error: float
    sqnr_db: float | None
    ok: bool

    def to_json(self) -> dict[str, Any]:
        """A plain dict, with three significant digits: more would be noise."""
        return {
            "name": self.name,
            "max_abs_error": _three_digits(self.max_abs_error),
            "relative_error": _three_digits(self.relative_error),
            "sqnr_db": None if self.sqnr_db is None else round(self.sqnr_db, 1),
            "ok": self.ok,
        }


def _three_digits(value: float) -> float | None:
    return float(f"{value:.3g}") if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Sets:
    """Input sets and the reference's answers, in tensor folders, side by side."""

    feeds: tuple[Path, ...]
    reference: tuple[Path, ...]


def make_feeds(inputs: Sequence[TensorSpec], options: VerifyOptions) -> list[Tensors]:
    """Return the input sets: the user's data, or seeded random ones at each size.

    A bounded dimension is tried at its least, typical and greatest value; one without bounds at
    two small sizes. Floats are standard normal, integers and booleans are 0 or 1, which are
    valid as indices, masks and token ids alike.

    Raises:
        InfcError: E110 where the data does not fit the inputs.
    """
    if options.data is not None:
        return [_user_feeds(inputs, options.data)]
    import numpy as np

    rng = np.random.default_rng(options.seed)
    return [
        {spec.name: _random(rng, spec, size) for spec in inputs}
        for size in _sizes(inputs)
        for _ in range(options.samples)
    ]


def _sizes(inputs: Sequence[TensorSpec]) -> list[int]:
    """0, 1, 2 for low, typical, high; one size where everything is fixed."""
    return [0] if all(spec.is_static for spec in inputs) else [0, 1, 2]


UNBOUNDED_BATCH = (1, 2, 3)
UNBOUNDED_DIM = (16, 24, 32)


def _random(rng: np.random.Generator, spec: TensorSpec, size: int) -> np.ndarray[Any, Any]:
    import numpy as np

    if spec.shape is None:
        raise fail(
            "E107",
            f"the rank of input `{spec.name}` is unknown",
            help=f"give its shape: `--input {spec.name}=...`",
        )
    shape = []
    for axis, dim in enumerate(spec.shape):
        bounds = (spec.bounds or {}).get(str(dim))
        default = UNBOUNDED_DIM if axis else UNBOUNDED_BATCH
        shape.append(dim if isinstance(dim, int) else (bounds or default)[size])
    dtype = numpy_dtype(spec.dtype)
    if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(dtype)
    return rng.standard_normal(shape).astype(np.float32).astype(dtype)


def _user_feeds(inputs: Sequence[TensorSpec], path: Path) -> Tensors:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {spec.name: data[spec.name] for spec in inputs}
    except (OSError, ValueError) as error:
        raise fail("E110", f"`--verify-data {path}` cannot be read: {error}") from error
    except KeyError as error:
        raise fail(
            "E110",
            f"`--verify-data {path}`: {error.args[0]}",
            help="name the arrays as the inputs: " + ", ".join(f"`{s.name}`" for s in inputs),
        ) from error
    for spec in inputs:
        if arrays[spec.name].dtype != numpy_dtype(spec.dtype):
            raise fail(
                "E110",
                f"`--verify-data {path}`: `{spec.name}` is "
                f"{arrays[spec.name].dtype}, the model takes {spec.dtype}",
            )
    return arrays


def write_feeds(feeds: Sequence[Tensors], folder: Path) -> tuple[Path, ...]:
    """Write each input set to a tensor folder of its own."""
    paths = tuple(folder / f"feeds-{i}" for i in range(len(feeds)))
    for path, tensors in zip(paths, feeds, strict=True):
        save_tensors(path, tensors)
    return paths


def run_in_worker(
    module: str,
    entry: Path,
    target: Target,
    feeds: Sequence[Path],
    outputs: Sequence[str],
    scratch: Path,
    log: Path,
    limits: WorkerLimits,
    what: str,
) -> tuple[Path, ...]:
    """Run `entry` on every set of feeds and return the folders its outputs are in.

    Raises:
        InfcError: E204, E5xx.
    """
    inputs = list(load_tensors(feeds[0])) if feeds else []
    folders = tuple(scratch / f"outputs-{i}" for i in range(len(feeds)))
    payload = {
        "entry": str(entry),
        "target": target.to_json(),
        "inputs": inputs,
        "outputs": list(outputs),
        "threads": 1,
        "sets": [[str(f), str(o)] for f, o in zip(feeds, folders, strict=True)],
    }
    workers.call(workers.Call(module, "run", payload, scratch, log, what), limits)
    return folders


def compare(
    sets: Sets,
    answers: Sequence[Path],
    threshold: Threshold,
) -> tuple[OutputError, ...]:
    """Compare the answers in the folders `answers` with the reference, output by output."""
    pairs: dict[str, list[tuple[Any, Any]]] = {}
    for reference, answer in zip(sets.reference, answers, strict=True):
        theirs = load_tensors(answer)
        for name, value in load_tensors(reference).items():
            pairs.setdefault(name, []).append((value, theirs[name]))
    return tuple(_output_error(name, values, threshold) for name, values in pairs.items())


def _output_error(name: str, pairs: Sequence[tuple[Any, Any]], threshold: Threshold) -> OutputError:
    import numpy as np

    worst = peak = noise = signal = 0.0
    exact_needed = False
    for reference, answer in pairs:
        if reference.shape != answer.shape or reference.dtype != answer.dtype:
            return OutputError(name, math.inf, math.inf, None, ok=False)
        exact_needed |= not _is_floating(reference)
        r, a = reference.astype(np.float64), answer.astype(np.float64)
        same = (r == a) | (np.isnan(r) & np.isnan(a))
        difference = np.where(same, 0.0, a - np.where(same, a, r))
        difference = np.where(np.isnan(difference), np.inf, np.abs(difference))
        finite = np.where(np.isfinite(r), np.abs(r), 0.0)
        worst = max(worst, float(difference.max(initial=0.0)))
        peak = max(peak, float(finite.max(initial=0.0)))
        noise += float(np.square(difference).sum())
        signal += float(np.square(finite).sum())
    relative = worst / peak if peak else (0.0 if worst == 0.0 else math.inf)
    sqnr = _sqnr_db(signal, noise)
    if exact_needed:
        ok = worst == 0.0
    else:
        ok = relative <= threshold.relative_error and (sqnr is None or sqnr >= threshold.sqnr_db)
    return OutputError(name, worst, relative, sqnr, ok)


def _is_floating(array: Any) -> bool:
    # ml_dtypes' bfloat16 is of numpy's kind "V" and not a subtype of np.floating.
    return bool(array.dtype.kind == "f" or array.dtype.name == "bfloat16")


def _sqnr_db(signal: float, noise: float) -> float | None:
    if noise == 0.0:
        return None
    if signal == 0.0 or not math.isfinite(noise):
        return -math.inf
    return 10.0 * math.log10(signal / noise)


def require_finite(sets: Sets) -> None:
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


def disagreement(code: str, errors: Sequence[OutputError], what: str, help_: str) -> InfcError:
    """An error that lists every output outside its threshold."""
    return InfcError(
        *(
            Diagnostic(
                code,
                f"output `{e.name}` of {what} is off by {e.relative_error:.3g} of its peak "
                f"(max abs {e.max_abs_error:.3g}, "
                f"SQNR {'-' if e.sqnr_db is None else f'{e.sqnr_db:.1f} dB'})",
                help=help_,
            )
            for e in errors
            if not e.ok
        )
    )


def summary(errors: Sequence[OutputError]) -> Mapping[str, Any]:
    """The rows of one comparison, and whether all of them passed."""
    return {"ok": all(e.ok for e in errors), "outputs": [e.to_json() for e in errors]}

"""Calibration: the float model is run on samples once, and what its tensors hold is measured.

data        the samples, found out and read one at a time
observers   statistics of a tensor, of fixed size, from which every method makes a range
thresholds  those methods
ranges      the file that the statistics are kept in
worker      the process that runs the model
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import workers
from infc.bundle import publish
from infc.diagnostics import Diagnostic, InfcError
from infc.places import cache_folder
from infc.request import WorkerLimits

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.calibration.data import Samples
    from infc.calibration.ranges import Ranges

CACHE_FORMAT = 3
"""Part of every key: raised when the same model and data would give other ranges."""
CHECKPOINT_S = 10.0
"""How often the ranges of the samples so far are kept: 30 ms for a hundred tensors."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """`ranges`, and in `diagnostics` what is remarkable about the data and the tensors.

    `resumed` is after how many samples an earlier run was taken up; `cached` says that the model
    was not run at all.
    """

    ranges: Ranges
    diagnostics: tuple[Diagnostic, ...]
    resumed: int = 0
    cached: bool = False


def calibrate(
    model: ir.Model,
    tensors: Sequence[str],
    samples: Samples,
    scratch: Path,
    limits: WorkerLimits,
    progress: Callable[[int, int | None], None] | None = None,
    *,
    checkpoint_s: float = CHECKPOINT_S,
) -> Calibration:
    """Measure `tensors`, values of the main graph of `model`, on `samples`.

    The float model runs in a worker, in the folder `scratch`. `progress` is called now and then
    with the samples done and how many there are (None: nobody knows). What was measured is kept
    in the cache under the content of model and data, and so is how far a run came that was
    stopped; a function's samples are known by their content once they are read.

    Raises:
        InfcError: E402 to E407 for the data, E411 for a tensor that is none of the model's, E412
            where one holds NaN, E413 where the model does not run on a sample, E50x.
    """
    from infc.calibration.observed import observe_in, write_observed
    from infc.calibration.ranges import load

    sha256, data = model_hash(model), samples.fingerprint
    place = cache_folder() / "ranges" / _key(sha256, data or samples.origin, tensors)
    cached = _cached(place) if data else None
    if cached is not None:
        return cached
    observed = observe_in(model, tensors, scratch.resolve() / "observed.onnx")
    scratch.mkdir(parents=True, exist_ok=True)
    output = scratch / "ranges.json"
    checkpoint = str(place.with_suffix(".partial"))
    payload = {
        "observed": observed.to_json(),
        "sha256": sha256,
        "data": data or "",
        "samples": samples.to_json(),
        "output": str(output.resolve()),
        "checkpoint": checkpoint,
        "checkpoint_s": checkpoint_s,
    }
    what = "the float model while calibrating"
    job = workers.Call(
        "infc.calibration.worker", "calibrate", payload, scratch, scratch / "log", what
    )
    told = (lambda r: progress(r["done"], r["total"])) if progress else None
    try:
        observed.path.unlink(missing_ok=True)
        observed.pending.touch()
        # The model is written while the worker starts: 0.3 s of ResNet-50's 100 MB.
        with ThreadPoolExecutor(1) as beside:
            writing = beside.submit(write_observed, model, observed)
            try:
                answer = workers.call(job, limits, told)
            except InfcError:
                writing.result()  # where that is what ails it
                raise
    finally:
        observed.remove()
    ranges = load(output)
    found = tuple(Diagnostic.from_json(row) for row in answer["diagnostics"])
    if data:
        _keep(place, output, answer["diagnostics"])
        Path(checkpoint).unlink(missing_ok=True)
    resumed = answer["resumed"]
    # A function's samples are read in any case.
    known = data is None and 0 < resumed == ranges.samples
    return Calibration(ranges, (*found, *ranges.findings()), resumed, cached=known)


def model_hash(model: ir.Model) -> str:
    """SHA-256 of the graph and of the weights of `model`."""
    import onnx_ir as ir

    bare, weights = model.clone(), model.graph.initializers
    bare.graph.initializers.clear()
    digest = hashlib.sha256(ir.to_proto(bare).SerializeToString(deterministic=True))
    for name, value in weights.items():
        tensor = value.const_value
        if tensor is not None:
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.tobytes())
    return digest.hexdigest()


def _key(sha256: str, data: str, tensors: Sequence[str]) -> str:
    parts = [CACHE_FORMAT, sha256, data, sorted(tensors)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _cached(place: Path) -> Calibration | None:
    from infc.calibration.ranges import load

    try:
        rows: Any = json.loads((place / "diagnostics.json").read_text(encoding="utf-8"))
        found = tuple(Diagnostic.from_json(row) for row in rows)
        ranges = load(place / "ranges.json")
    except (OSError, ValueError, KeyError, TypeError, InfcError):
        return None  # not there, or damaged: as good as none
    return Calibration(ranges, (*found, *ranges.findings()), cached=True)


def _keep(place: Path, output: Path, diagnostics: Sequence[object]) -> None:
    """Into the cache, in one rename; a cache that cannot be written costs time, no more."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=place.parent))
        try:
            shutil.copyfile(output, partial / "ranges.json")
            text = json.dumps(diagnostics)
            (partial / "diagnostics.json").write_text(text, encoding="utf-8")
            publish(partial, place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError:
        return

"""How long a run of an artifact takes, measured in a worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infc import loaders, native_runs, sealing, workers
from infc.bundle import Bundle
from infc.request import WorkerLimits
from infc.targets import Target, module_of
from infc.verification.running import run_payload, runner_of


@dataclass(frozen=True, slots=True)
class Timing:
    """How a latency is measured: `runs` counted after `warmup`, on `threads` threads."""

    runs: int
    warmup: int
    threads: int


def bench_in_worker(
    bundle: Bundle, feeds: Path, timing: Timing, scratch: Path, limits: WorkerLimits
) -> dict[str, Any]:
    """Time the artifact from Python: `min_ms`, `median_ms`, `max_ms`, `runs`, and `ran_on`."""
    target = Target.from_json(bundle.manifest["target"])
    types = {s.name: s.dtype for s in bundle.outputs}
    what = f"`{target.back_end}` while timing the artifact"
    module, worker = module_of(target.back_end), runner_of(target)
    with sealing.opened(bundle.entry, target, scratch) as plain:
        if worker.native:
            return _bench_natively(bundle, target, plain, feeds, timing, scratch, limits)
        payload = {
            **run_payload(plain, target, [s.name for s in bundle.inputs], list(types)),
            "output_types": types,
            "threads": timing.threads,
            "feeds": str(feeds.resolve()),
            "runs": timing.runs,
            "warmup": timing.warmup,
        }
        job = workers.Call(module, "bench", payload, scratch, scratch / "log", what, worker)
        return workers.call(job, limits)


def _bench_natively(
    bundle: Bundle,
    target: Target,
    plain: Path,
    feeds: Path,
    timing: Timing,
    scratch: Path,
    limits: WorkerLimits,
) -> dict[str, Any]:
    own = native_runs.loader_bundle(
        plain, target, bundle.inputs, bundle.outputs, scratch / "native"
    )
    figures = loaders.bench_through(own, "cpp", feeds, timing, scratch, limits)
    return {**figures, "ran_on": native_runs.DEVICE}

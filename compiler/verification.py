"""Proof: the optimised graph and the artifact, run on the inputs of the reference.

Every run is in a worker. The reference vectors go into the bundle (`reference/<i>/inputs` and
`outputs`), so that the artifact can be proved again where it is used, without the source model or
its framework.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infc import loaders, native_runs, native_types, sealing, workers
from infc.bundle import UNWRITABLE, Bundle, full_disk, unwritable
from infc.comparison import THRESHOLDS, OutputError, Threshold, compare, require
from infc.diagnostics import InfcError, fail
from infc.frontends import Origin
from infc.request import Precision, WorkerLimits
from infc.signature import TensorSpec, load_tensors
from infc.targets import Target, Worker, back_end, module_of

RECORDED_BYTES = 64 << 20
"""Reference vectors beyond this are not kept in the bundle."""

UNOPTIMIZED = Target("unoptimized", "onnxruntime", "", options={"graph-optimization": "off"})
"""ONNX Runtime as the judge: nothing rewritten, nothing fused."""


@dataclass(frozen=True, slots=True)
class Sets:
    """Input sets and the reference's answers, in tensor folders, side by side.

    The random floats among the inputs were multiplied by 2 ** `scale_log2`. `noise` names the
    outputs that are ill-conditioned all the same, with the relative error that rounding causes;
    `computed_in` those that the source model computes in less than float32; `same_arithmetic` says
    that the reference is ONNX Runtime's, which quantises the optimised graph the same way.
    `native` are the inputs and outputs that the artifact has in another type than the source model.
    """

    feeds: tuple[Path, ...]
    reference: tuple[Path, ...]
    scale_log2: int = 0
    noise: Mapping[str, float] = field(default_factory=dict)
    computed_in: Mapping[str, Precision] = field(default_factory=dict)
    same_arithmetic: bool = True
    native: Mapping[str, TensorSpec] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timing:
    """How a latency is measured: `runs` counted after `warmup`, on `threads` threads."""

    runs: int
    warmup: int
    threads: int


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder for a command that publishes nothing.

    Raises:
        InfcError: E701 where it cannot be written, or the disk fills up.
    """
    place = Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryDirectory(prefix="infc-", dir=place) as folder, full_disk(place):
            yield Path(folder)
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise unwritable(place, error, "set TMPDIR to another folder, or make room") from error
        raise


def check_optimized(
    sets: Sets, outputs: Sequence[TensorSpec], scratch: Path, limits: WorkerLimits
) -> tuple[OutputError, ...]:
    """Run the optimised graph in `scratch/model.onnx` with nothing further optimised.

    Raises:
        InfcError: E601 where it does not answer as the source model does, or does not run.
    """
    names = list(load_tensors(sets.feeds[0])), [s.name for s in outputs]
    remedy = "find the pass with `--disable-pass` and report it"
    try:
        answers = run_entry(
            "infc.targets.onnxruntime",
            scratch / "model.onnx",
            UNOPTIMIZED,
            sets.feeds,
            names,
            scratch,
            limits,
            "the optimised graph",
        )
    except InfcError as error:
        first = error.diagnostics[0]
        if first.code != "E204":
            raise
        raise fail("E601", first.message, notes=first.notes, help=remedy) from error
    if sets.same_arithmetic:
        floats = {k: v for k, v in sets.computed_in.items() if v is not Precision.INT8}
        sets = replace(sets, computed_in=floats)
    errors = compare_sets(sets, answers, THRESHOLDS[Precision.FP32])
    require(errors, "E601", "the optimised graph", remedy)
    return errors


def check_imported(
    sets: Sets, origin: Origin, scratch: Path, limits: WorkerLimits
) -> tuple[OutputError, ...]:
    """Run what the exporter wrote, as it wrote it, with nothing optimised.

    Raises:
        InfcError: E112 where it does not answer as the source model does, or does not run.
    """
    names = list(load_tensors(sets.feeds[0])), list(load_tensors(sets.reference[0]))
    what, remedy = f"what `{origin.exporter}` made of the model", "`infc explain E112` has more"
    entry, module = origin.exported, module_of(UNOPTIMIZED.back_end)
    scratch.mkdir(exist_ok=True)
    try:
        answers = run_entry(module, entry, UNOPTIMIZED, sets.feeds, names, scratch, limits, what)
    except InfcError as error:
        first = error.diagnostics[0]
        if first.code not in ("E204", "E506"):
            raise
        raise fail("E112", first.message, notes=first.notes, help=remedy) from error
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
    names = list(load_tensors(sets.feeds[0])), [s.name for s in outputs]
    entry, what = scratch / "model.onnx", "the quantised graph"
    module = module_of(UNOPTIMIZED.back_end)
    answers = run_entry(module, entry, UNOPTIMIZED, sets.feeds, names, scratch, limits, what)
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


def run_artifact(
    sets: Sets,
    target: Target,
    entry: Path,
    scratch: Path,
    limits: WorkerLimits,
    threads: int = 1,
    remote: str = "",
) -> tuple[tuple[Path, ...], str]:
    """Run an artifact on every input set; return the folders of its answers, and the device.

    `remote` is a device elsewhere, "" for this machine.
    """
    how = (limits, threads, remote)
    if not sets.native:
        return _run_artifact(sets.feeds, sets.reference, target, entry, scratch, *how)
    scratch.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="native-", dir=scratch))
    feeds = native_types.encoded(sets.feeds, sets.native, place / "feeds")
    reference = native_types.encoded(sets.reference, sets.native, place / "reference")
    answers, device = _run_artifact(feeds, reference, target, entry, scratch, *how)
    return native_types.decoded(answers, sets.native, place / "answers"), device


def _run_artifact(
    feeds: Sequence[Path],
    reference: Sequence[Path],
    target: Target,
    entry: Path,
    scratch: Path,
    limits: WorkerLimits,
    threads: int,
    remote: str,
) -> tuple[tuple[Path, ...], str]:
    """`run_artifact`, in the artifact's types; those of its answers are the reference's."""
    what = f"`{target.back_end}` while running the artifact"
    types = {k: v.dtype.name for k, v in load_tensors(reference[0]).items()}
    module, worker = module_of(target.back_end), _runner(target)
    if threads != 1:
        what += f" on {threads} threads"
    if remote:
        what += f" on {remote}"
    with sealing.opened(entry, target, scratch) as plain:
        if worker.native:
            return native_runs.run(plain, target, feeds, reference, scratch, limits, threads)
        payload = {
            **_run_payload(plain, target, list(load_tensors(feeds[0])), list(types)),
            "output_types": types,
            "threads": threads,
            "remote": remote,
        }
        return _run_on(module, worker, payload, feeds, scratch, limits, what)


def run_entry(
    module: str,
    entry: Path,
    target: Target,
    feeds: Sequence[Path],
    names: tuple[Sequence[str], Sequence[str]],
    scratch: Path,
    limits: WorkerLimits,
    what: str,
    worker: Worker = Worker(),  # noqa: B008
) -> tuple[Path, ...]:
    """Run `entry` in a worker; `names` are those of its inputs and outputs, in order."""
    payload = _run_payload(entry, target, *names)
    return _run_on(module, worker, payload, feeds, scratch, limits, what)[0]


def _run_on(
    module: str,
    worker: Worker,
    payload: Mapping[str, Any],
    feeds: Sequence[Path],
    scratch: Path,
    limits: WorkerLimits,
    what: str,
) -> tuple[tuple[Path, ...], str]:
    """The folders of the answers to `feeds`, and the device that gave them."""
    folders = tuple((scratch / f"answers-{i}").resolve() for i in range(len(feeds)))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    pairs = [[str(f.resolve()), str(o)] for f, o in zip(feeds, folders, strict=True)]
    job = workers.Call(
        module,
        "run",
        {**payload, "sets": pairs},
        scratch / "run",
        scratch / "log",
        what,
        worker,
    )
    answer = workers.call(job, limits)
    return folders, str(answer["ran_on"])


def _run_payload(
    entry: Path, target: Target, inputs: Sequence[str], outputs: Sequence[str]
) -> dict[str, Any]:
    return {
        "entry": str(entry.resolve()),
        "target": target.to_json(),
        "inputs": list(inputs),
        "outputs": list(outputs),
        "threads": 1,
    }


def bench_in_worker(
    bundle: Bundle, feeds: Path, timing: Timing, scratch: Path, limits: WorkerLimits
) -> dict[str, Any]:
    """Time the artifact from Python: `min_ms`, `median_ms`, `max_ms`, `runs`, and `ran_on`."""
    target = Target.from_json(bundle.manifest["target"])
    types = {s.name: s.dtype for s in bundle.outputs}
    what = f"`{target.back_end}` while timing the artifact"
    module, worker = module_of(target.back_end), _runner(target)
    with sealing.opened(bundle.entry, target, scratch) as plain:
        if worker.native:
            return _bench_natively(bundle, target, plain, feeds, timing, scratch, limits)
        payload = {
            **_run_payload(plain, target, [s.name for s in bundle.inputs], list(types)),
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


def _runner(target: Target) -> Worker:
    """Where artifacts of `target` are run."""
    worker = back_end(target.back_end).worker(target)
    return worker.runner or worker


def compare_sets(
    sets: Sets, answers: Sequence[Path], threshold: Threshold
) -> tuple[OutputError, ...]:
    """Compare the answers in the folders `answers` with the reference."""
    pairs = zip(sets.reference, answers, strict=True)
    loaded = ((load_tensors(r), load_tensors(a)) for r, a in pairs)
    return compare(loaded, threshold, sets.noise, sets.computed_in)


def record_sets(sets: Sets, finished: Path, least: int = 0) -> None:
    """Copy the reference vectors into the bundle, as many as `RECORDED_BYTES` allows.

    `least` of them are copied in any case.
    """
    left = RECORDED_BYTES
    for i, (feeds, reference) in enumerate(zip(sets.feeds, sets.reference, strict=True)):
        left -= sum(p.stat().st_size for f in (feeds, reference) for p in f.iterdir())
        if left < 0 and i >= least:
            return
        shutil.copytree(feeds, finished / "reference" / str(i) / "inputs")
        shutil.copytree(reference, finished / "reference" / str(i) / "outputs")


def recorded_sets(bundle: Bundle) -> Sets:
    """The reference vectors that the bundle holds.

    Raises:
        InfcError: E604 where it holds none.
    """
    folders = sorted((bundle.path / "reference").glob("[0-9]*"), key=lambda p: int(p.name))
    if not folders:
        raise fail(
            "E604",
            f"`{bundle.path}` holds no reference vectors",
            help="name the source model: `--source MODEL`",
        )
    proof = bundle.manifest["verification"]
    return Sets(
        tuple(f / "inputs" for f in folders),
        tuple(f / "outputs" for f in folders),
        noise=proof.get("noise", {}),
        computed_in={k: Precision(v) for k, v in proof.get("computed_in", {}).items()},
        native=native_types.converted((*bundle.inputs, *bundle.outputs)),
    )

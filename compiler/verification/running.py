"""An artifact, or a graph in ONNX Runtime, run on input sets in a worker."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infc import native_runs, native_types, sealing, workers
from infc.request import WorkerLimits
from infc.signature import load_tensors
from infc.targets import Target, Worker, back_end, module_of
from infc.verification.sets import Sets

UNOPTIMIZED = Target("unoptimized", "onnxruntime", "", options={"graph-optimization": "off"})
"""ONNX Runtime as the judge: nothing rewritten, nothing fused."""


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
    end = back_end(target.back_end)
    module, worker = module_of(target.back_end), end.worker(target) if remote else runner_of(target)
    if threads != 1:
        what += f" on {threads} threads"
    if remote:
        what += f" on {remote}"
    with sealing.opened(entry, target, scratch) as plain:
        if worker.native:
            return native_runs.run(plain, target, feeds, reference, scratch, limits, threads)
        payload = {
            **run_payload(plain, target, list(load_tensors(feeds[0])), list(types)),
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
    payload = run_payload(entry, target, *names)
    return _run_on(module, worker, payload, feeds, scratch, limits, what)[0]


def run_unoptimized(
    entry: Path,
    feeds: Sequence[Path],
    outputs: Sequence[str],
    scratch: Path,
    limits: WorkerLimits,
    what: str,
) -> tuple[Path, ...]:
    """Run the graph in `entry` in ONNX Runtime, nothing rewritten; the folders of its answers.

    Raises:
        InfcError: E204 where it does not run, E50x.
    """
    module, names = module_of(UNOPTIMIZED.back_end), (list(load_tensors(feeds[0])), outputs)
    return run_entry(module, entry, UNOPTIMIZED, feeds, names, scratch, limits, what)


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


def run_payload(
    entry: Path, target: Target, inputs: Sequence[str], outputs: Sequence[str]
) -> dict[str, Any]:
    """What a worker is told that runs or times `entry`: on one thread, unless told otherwise."""
    return {
        "entry": str(entry.resolve()),
        "target": target.to_json(),
        "inputs": list(inputs),
        "outputs": list(outputs),
        "threads": 1,
    }


def runner_of(target: Target) -> Worker:
    """Where artifacts of `target` are run."""
    worker = back_end(target.back_end).worker(target)
    return worker.runner or worker

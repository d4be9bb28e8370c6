"""A published bundle proved again, and timed: in its runtime or through its loader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from infc import (
    bundle,
    comparison,
    deferral,
    loaders,
    native_types,
    pruning,
    targets,
)
from infc.bundle import Bundle
from infc.diagnostics import fail
from infc.feeds import typical_feeds, write_feeds
from infc.frontends import recorded
from infc.frontends.frameworks import of_back_ends
from infc.outcomes import Progress, VerifyResult, silent
from infc.reference import reference_sets
from infc.request import VerifyOptions, WorkerLimits
from infc.scratch import scratch_folder
from infc.targets import Target, back_end
from infc.targets.abilities import remote_of
from infc.verification.running import run_artifact
from infc.verification.sets import Sets, compare_sets, recorded_sets
from infc.verification.timing import Timing, bench_in_worker


def verify(
    path: Path,
    *,
    through: str = "runtime",
    source: Path | None = None,
    options: VerifyOptions = VerifyOptions(),  # noqa: B008
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    toolchains: Mapping[str, str] | None = None,
    allow_pickle: bool = False,
    progress: Progress = silent,
    remote: str = "",
) -> VerifyResult:
    """Run the bundle's artifact again and compare it with the source model.

    The reference is the one recorded in the bundle, or, where `source` names the model, that
    model run now with `options`; `allow_pickle` lets its file run code. `through` is `runtime`,
    `cpp` or `java`; `remote` a device elsewhere that the artifact runs on. `toolchains` maps the
    bundle's back end, and the source's framework, to the environments that their workers run in.

    Raises:
        InfcError: E702 for a damaged bundle, E602 or E603 where an output is outside its
            threshold, and what building and running the loader may raise; E110 for a `remote`
            that the back end cannot run on, E516 and E517.
    """
    subject, target = _open(path, toolchains)
    if remote:
        _require_remote(remote, target, through)
    threshold = comparison.THRESHOLDS[target.precision]
    with scratch_folder() as scratch:
        if source is not None:
            progress("", "running the source model")
            place, given = scratch / "source", toolchains or {}
            how = recorded.reading_of(subject, place, limits, given, allow_pickle=allow_pickle)
            origin = recorded.load(source, subject, how)
            origin = replace(origin, inputs=native_types.source_specs(subject.inputs))
            origin = pruning.again(origin, subject.manifest, scratch / "pruned")
            sets = reference_sets(origin, options, scratch / "reference", limits)
            native = native_types.converted((*subject.inputs, *subject.outputs))
            sets = replace(sets, native=native)
        else:
            sets = recorded_sets(subject)
        progress("", f"running the artifact {f'on {remote}' if remote else f'through {through}'}")
        answers, ran_on = _run_bundle(subject, target, sets, through, scratch, limits, remote)
        errors = compare_sets(sets, answers, threshold)
    code = "E602" if through == "runtime" else "E603"
    through, device = remote or through, remote or target.device
    comparison.require(errors, code, f"`{path}` through {through}", "compile the model again")
    return VerifyResult(path, through, len(sets.feeds), errors, device, ran_on)


def bench(
    path: Path,
    *,
    runs: int = 20,
    warmup: int = 3,
    threads: int = 1,
    through: str = "runtime",
    dims: Mapping[str, int] | None = None,
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    toolchains: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Time the bundle's artifact: the least, median and greatest latency in milliseconds.

    `dims` gives values to dynamic dimensions; the others take their typical value. `toolchains`
    is as for `verify`.

    Raises:
        InfcError: E110 for an unknown dimension, E702, and what running may raise.
    """
    subject, target = _open(path, toolchains)
    with scratch_folder() as scratch:
        feeds = typical_feeds(subject.inputs, dims or {})
        (folder,) = write_feeds([feeds], scratch)
        timing = Timing(runs, warmup, threads)
        if through == "runtime":
            figures = bench_in_worker(subject, folder, timing, scratch / "run", limits)
        else:
            figures = loaders.bench_through(subject, through, folder, timing, scratch, limits)
            figures = {**figures, "ran_on": _loader_device(subject, target)}
    return {
        "bundle": str(path),
        "target": target.name,
        "device": target.device,
        "through": through,
        "threads": threads,
        "inputs": {k: list(v.shape) for k, v in feeds.items()},
        **figures,
    }


def _open(path: Path, toolchains: Mapping[str, str] | None) -> tuple[Bundle, Target]:
    """A bundle and its target, whose workers run where the user says."""
    subject = bundle.open_bundle(path)
    deferral.require_finished(subject)
    built_for = Target.from_json(subject.manifest["target"])
    (target,) = targets.in_toolchains([built_for], of_back_ends(toolchains or {}))
    return replace(subject, manifest={**subject.manifest, "target": target.to_json()}), target


def _require_remote(remote: str, target: Target, through: str) -> None:
    """Refuse a device elsewhere that nothing here can run on.

    Raises:
        InfcError: E110.
    """
    check = remote_of(back_end(target.back_end))
    if check is None:
        raise fail(
            "E110",
            f"`--remote {remote}`: artifacts of `{target.back_end}` run on no device elsewhere",
            help="copy the bundle there, and verify it there",
        )
    if through != "runtime":
        raise fail(
            "E110",
            f"`--remote` and `--through {through}` do not go together",
            help="a device's server runs the artifact itself; leave one of the two away",
        )
    check(remote)


def _run_bundle(
    subject: Bundle,
    target: Target,
    sets: Sets,
    through: str,
    scratch: Path,
    limits: WorkerLimits,
    remote: str,
) -> tuple[tuple[Path, ...], str]:
    """The folders of the answers, and the device that gave them."""
    if through == "runtime":
        place = scratch / "run"
        return run_artifact(sets, target, subject.entry, place, limits, 1, remote)
    answers = tuple(scratch / f"outputs-{i}" for i in range(len(sets.feeds)))
    feeds = native_types.encoded(sets.feeds, sets.native, scratch / "native")
    loaders.run_through(subject, through, feeds, answers, scratch, limits)
    found = native_types.decoded(answers, sets.native, scratch / "outputs")
    return found, _loader_device(subject, target)


def _loader_device(subject: Bundle, target: Target) -> str:
    """What `loaders` run a loader on: where the artifact itself was verified."""
    return str(subject.manifest["artifact"]["notes"].get("verified_on", target.device))

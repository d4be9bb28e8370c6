"""A PyTorch model for TorchScript: through the graph, or directly, by torch's own tracer.

    -X path=ir       the optimised graph, as for every back end
    -X path=direct   the module, traced or scripted, frozen
    -X path=auto     both are built, verified and timed in turns; the graph's is kept unless the
                     other is faster by a clear margin (the default, where there is a proof)

Times differ from run to run and bundles may not: the manifest says which was kept, and why; the
figures are in `timings.json` of the log folder. What was decided of two artifacts is remembered by
their hashes, so that a decision near the margin stays what it was on this machine.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import turns, workers
from infc.bundle import sha256_of
from infc.diagnostics import InfcError, fail
from infc.front import Optimized
from infc.places import cache_folder
from infc.request import Precision, Request
from infc.targets import Artifact, Target, choice
from infc.verification import check_artifact

if TYPE_CHECKING:
    from infc.logbook import Stopwatch

PATHS = ("auto", "ir", "direct")
OPTION = "path"
MODULE = "infc.frontends.pytorch.direct"
FRAMEWORK = "pytorch"
CLEARLY = 0.85
"""The part of the graph's time that the direct one takes at most, to be kept."""

ROUNDS = 5

Build = Callable[[Path], Artifact]
"""Builds the artifact of the graph in a folder."""


def build(
    request: Request,
    optimized: Optimized,
    target: Target,
    through_graph: Build,
    output: Path,
    scratch: Path,
    watch: Stopwatch,
) -> Artifact:
    """Build the artifact of `target` in the folder `output`; its notes say which way, if two.

    Raises:
        InfcError: E205 where the direct path is asked for and there is none; what building and
            verifying raise, of the graph where both fail.
    """
    asked = _asked(request, optimized, target)
    if asked is None:
        return through_graph(output)
    if asked == "ir" or (asked == "auto" and optimized.reference is None):
        return _noted(through_graph(output), {OPTION: "ir"})
    try:
        direct = _direct(request, optimized, target, scratch / "direct")
    except InfcError as error:
        if asked == "auto":
            return _noted(through_graph(output), {OPTION: "ir", "direct": _failed(error)})
        raise fail(
            "E204",
            f"`{target.name}` cannot be built directly: {error.diagnostics[0].message}",
            notes=error.diagnostics[0].notes,
            help="`-X path=ir` goes through the graph",
        ) from error
    if asked == "direct":
        return _keep(direct, scratch / "direct", output, {OPTION: "direct"})
    place = scratch / "ir"
    place.mkdir()
    try:
        graph = through_graph(place / "model")
        _verify(request, optimized, target, place / "model" / graph.entry, place)
    except InfcError as error:
        only = {OPTION: "direct", "ir": _failed(error)}
        return _keep(direct, scratch / "direct", output, only)
    watch.start("timing both paths")
    faster, figures = _race(request, optimized, target, (place, graph), (scratch, direct))
    watch.latency |= {"paths": figures}
    if faster:
        said = f"it takes less than {CLEARLY:.0%} of the time of what the graph gives"
        return _keep(direct, scratch / "direct", output, {OPTION: "direct", "because": said})
    said = f"the direct one does not take less than {CLEARLY:.0%} of its time"
    return _keep(graph, place, output, {OPTION: "ir", "because": said})


def _asked(request: Request, optimized: Optimized, target: Target) -> str | None:
    """What of PATHS is to be done; None where a target has but one.

    Raises:
        InfcError: E205 where `direct` is asked for and is not to be had.
    """
    if target.back_end != "torchscript":
        return None
    asked = choice(target, OPTION, PATHS, "auto")
    obstacle = _obstacle(request, optimized, target)
    if asked == "direct" and obstacle:
        raise fail("E205", f"`-X path=direct`: {obstacle}", help="leave it out")
    if obstacle:
        return None if asked == "auto" else asked
    return asked


def _obstacle(request: Request, optimized: Optimized, target: Target) -> str:
    """Why there is no direct path; "" where there is one."""
    origin = optimized.source.origin
    if origin is None or origin.framework != FRAMEWORK:
        return "the source is no model of PyTorch"
    if optimized.pruning is not None:
        return "channels are pruned in the graph"
    if target.precision not in (Precision.FP32, Precision.INT8_DYNAMIC):
        return f"{target.precision} is written into the graph"
    if request.native_io or request.keep_float:
        return "`--io native` and `--keep-float` are about the graph"
    if choice(target, "mobile", ("on", "off"), "off") == "on":
        return "`-X mobile=on` goes through the graph"
    return ""


def _direct(request: Request, optimized: Optimized, target: Target, folder: Path) -> Artifact:
    """The artifact in `folder`/model, verified.

    Raises:
        InfcError: E204 where the module can be neither traced nor scripted, E602, E5xx.
    """
    folder.mkdir()
    source = optimized.source
    payload = {
        "entry": str(source.reference.entry.resolve()),
        "output": str((folder / "model").resolve()),
        "inputs": [s.name for s in optimized.inputs],
        "outputs": [s.name for s in optimized.outputs],
        "dynamic": target.precision is Precision.INT8_DYNAMIC,
        "freeze": choice(target, "freeze", ("on", "off"), "on") == "on",
    }
    job = workers.Call(
        MODULE,
        "direct",
        payload,
        folder / "work",
        folder.parent / "log",
        "`pytorch` while tracing the model",
        source.reference.worker,
    )
    value = workers.call(job, request.limits)
    artifact = Artifact(value["entry"], tuple(value["files"]), value["notes"])
    _verify(request, optimized, target, folder / "model" / artifact.entry, folder)
    return artifact


def _verify(
    request: Request, optimized: Optimized, target: Target, entry: Path, scratch: Path
) -> None:
    if optimized.reference is not None:
        optimized.reference.require(
            lambda sets: check_artifact(sets, target, entry, scratch, request.limits),
            optimized.model,
        )


def _failed(error: InfcError) -> str:
    """What the manifest says of a path that failed: the message, which may name places, is not."""
    return f"failed ({', '.join(dict.fromkeys(d.code for d in error.diagnostics))})"


def _keep(artifact: Artifact, place: Path, output: Path, notes: Mapping[str, Any]) -> Artifact:
    """Move the artifact from `place`/model to `output`."""
    if output.exists():
        shutil.rmtree(output)
    shutil.move(place / "model", output)
    return _noted(artifact, notes)


def _noted(artifact: Artifact, notes: Mapping[str, Any]) -> Artifact:
    return replace(artifact, notes={**artifact.notes, **notes})


def _race(
    request: Request,
    optimized: Optimized,
    target: Target,
    graph: tuple[Path, Artifact],
    direct: tuple[Path, Artifact],
) -> tuple[bool, dict[str, Any]]:
    """Whether the direct artifact is clearly faster, and the times in ms."""
    entries = [
        graph[0] / "model" / graph[1].entry,
        direct[0] / "direct" / "model" / direct[1].entry,
    ]
    place = cache_folder() / "paths" / f"{_key(target, entries)}.json"
    scratch = direct[0] / "race"
    figures = turns.race(entries, target, optimized.signature, ROUNDS, scratch, request.limits)
    through, straight = (statistics.median(column) for column in zip(*figures, strict=True))
    ratios = [b / a for a, b in figures]
    ratio = statistics.median(ratios)
    spread = statistics.median(abs(r - ratio) for r in ratios)
    faster = ratio + 2 * spread < CLEARLY
    known = _remembered(place)
    if known is None:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"direct": faster}), encoding="utf-8")
        known = faster
    found = {"ir_ms": through, "direct_ms": straight, "ratio": ratio, "spread": spread}
    return known, {**found, "rounds": len(figures), "kept": "direct" if known else "ir"}


def _key(target: Target, entries: list[Path]) -> str:
    from importlib.metadata import version

    words = [version("torch"), str(target.precision), *map(sha256_of, entries)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _remembered(place: Path) -> bool | None:
    try:
        return bool(json.loads(place.read_text(encoding="utf-8"))["direct"])
    except (OSError, ValueError, KeyError, TypeError):
        return None

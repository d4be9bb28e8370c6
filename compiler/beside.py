"""What a run of an artifact takes beside the same model in ONNX Runtime, both timed in turns.

Times are no part of a bundle, which is the same in every build: they are told when it is compiled,
and kept in `timings.json` of the log folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import building, targets, workers
from infc.diagnostics import InfcError
from infc.feeds import typical_feeds, write_feeds
from infc.request import WorkerLimits
from infc.signature import TensorSpec, load_tensors
from infc.targets import RunJob, Target, module_of

if TYPE_CHECKING:
    import onnx_ir as ir

TURNS = 5
TURN_S = 0.05
"""Each runs for about so long in a turn."""
TOTAL_S = 1.5
"""No turn begins later."""


def time_beside(
    peer: str,
    target: Target,
    entry: Path,
    model: ir.Model,
    signature: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
    scratch: Path,
    limits: WorkerLimits,
) -> dict[str, Any]:
    """Time the artifact `entry`, and the neutral graph `model` in the back end `peer`.

    `artifact_ms` and `peer_ms` are the least times of a run on one thread, `ratio` the artifact's
    to the peer's. {} where one of them does not run here as it is.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    building.save_model(model, scratch / "peer.onnx")
    other = targets.look_up(peer)
    subjects = [_subject(target, entry), _subject(other, scratch / "peer.onnx")]
    (feeds,) = write_feeds([typical_feeds(signature[0], {})], scratch / "feeds")
    payload = {
        "subjects": subjects,
        "inputs": [s.name for s in signature[0]],
        "outputs": [s.name for s in signature[1]],
        "feeds": str(feeds.resolve()),
    }
    worker = targets.back_end(target.back_end).worker(target)
    what = f"`{target.back_end}` while timing the artifact"
    job = workers.Call(
        "infc.beside", "race", payload, scratch / "race", scratch / "log", what, worker
    )
    try:
        times = workers.call(job, limits)["least_s"]
    except InfcError:
        return {}  # no reason not to publish a bundle that was proved
    if len(times) < 2:
        return {}
    mine, others = times
    return {
        "peer": peer,
        "artifact_ms": mine * 1e3,
        "peer_ms": others * 1e3,
        "ratio": mine / others,
    }


def _subject(target: Target, entry: Path) -> dict[str, Any]:
    return {
        "module": module_of(target.back_end),
        "target": target.to_json(),
        "entry": str(entry.resolve()),
    }


def _race(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The least seconds of a run of each; none where one would run on a stand-in. In a worker."""
    feeds = load_tensors(Path(payload["feeds"]))
    runs = []
    for row in payload["subjects"]:
        end: Any = import_module(row["module"])
        target = Target.from_json(row["target"])
        if end.device(target) != target.device:
            return {"least_s": []}
        names = tuple(payload["outputs"]), tuple(payload["inputs"])
        runs.append(end.open(RunJob(Path(row["entry"]), target, *names, threads=1)))
    least = [min(_seconds(run, feeds, 1) for _ in range(2)) for run in runs]
    began = time.perf_counter()
    for _ in range(TURNS):
        for i, run in enumerate(runs):
            number = max(1, min(1000, int(TURN_S / max(least[i], 1e-6))))
            least[i] = min(least[i], _seconds(run, feeds, number))
        if time.perf_counter() - began > TOTAL_S:
            break
    return {"least_s": least}


def _seconds(run: Callable[[Any], Any], feeds: Any, number: int) -> float:
    """The least of so many runs."""
    least = float("inf")
    for _ in range(number):
        start = time.perf_counter()
        run(feeds)
        least = min(least, time.perf_counter() - start)
    return least


ACTIONS = {"race": _race}

"""Some of the samples as tensor folders: for back ends that calibrate by themselves, and for proof.

Reading samples may run the user's code, so that this, too, is a worker's job.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import workers
from infc.request import WorkerLimits
from infc.workers.protocol import report

if TYPE_CHECKING:
    from infc.calibration.data import Samples


def export(
    samples: Samples, count: int, folder: Path, scratch: Path, limits: WorkerLimits
) -> tuple[Path, ...]:
    """Write at most `count` runs of `samples`, spread evenly, into the new folder `folder`.

    Returns their tensor folders (`infc.signature`), in the order of the samples.

    Raises:
        InfcError: E402 to E407 for the data, E50x.
    """
    payload = {"samples": samples.to_json(), "count": count, "folder": str(folder.resolve())}
    job = workers.Call(
        "infc.calibration.exporting",
        "export",
        payload,
        scratch,
        scratch / "log",
        "the calibration data",
    )
    written = int(workers.call(job, limits)["written"])
    return tuple(folder / str(i) for i in range(written))


def _export(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The action. Where nobody knows how many runs there are, the first ones are taken."""
    from infc.calibration.data import reopen
    from infc.signature import save_tensors

    samples, count = reopen(payload["samples"]), int(payload["count"])
    folder = Path(payload["folder"])
    total = samples.count
    if total is None or total <= count:
        wanted = set(range(count))
    else:
        wanted = {i * total // count for i in range(count)}
    written = 0
    for number, feed in enumerate(samples):
        if number in wanted:
            save_tensors(folder / str(written), feed)
            written += 1
            report(done=written, total=count)
        if written == len(wanted):
            break
    return {"written": written}


ACTIONS = {"export": _export}

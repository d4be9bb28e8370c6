"""The worker's side of calibration: run the float model, sample by sample, and keep statistics.

IN_FLIGHT samples are run at a time, each by a thread of its own: while the statistics of one are
gathered, the next is computed. That also uses few cores better than all of them for one sample
(ResNet-50 on two cores: 53 ms of CPU per sample instead of 107; the rest is waiting for each other
in a loop). Statistics are added up in the order of the samples, so that a run that was killed and
resumed gives the same bytes as one that was not.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.calibration.checkpoints import Checkpoint, Kept
from infc.diagnostics import InfcError, fail
from infc.workers.protocol import report

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime

    from infc.calibration.data import Samples
    from infc.calibration.observed import Observed
    from infc.calibration.observers import Statistics
    from infc.calibration.ranges import Ranges

    Tensors = Mapping[str, np.ndarray[Any, Any]]
    Found = dict[str, Statistics]
    Run = Callable[[int, Tensors], Found]

IN_FLIGHT = 2
WAIT_S = 0.005
REPORT_S = 0.1
"""How often the driver is told how far this is."""
IN_PLACE = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
"""Types that are read where ONNX Runtime has them; of any other it gives a copy."""


def calibrate(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The action: leave the ranges file at `output`.

    `checkpoint` is where the ranges of the samples so far are kept, every `checkpoint_s` seconds,
    "" for nowhere. The answer says after how many samples this was resumed (0: from the start),
    and what is remarkable about the data.

    Raises:
        InfcError: E402 to E407 the data, E412 a tensor holds NaN, E413 the model does not run
            on a sample.
    """
    # Before numpy is loaded: its BLAS would start a thread for each core beside the model's.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    from infc.calibration.data import reopen
    from infc.calibration.observed import Observed

    samples = reopen(payload["samples"])
    kept = Kept(payload["checkpoint"], payload["checkpoint_s"])
    known = kept.load(payload["sha256"], payload["data"])
    ranges, feeds, digests = start_of(samples, known, payload["data"])
    start = ranges.samples
    progress = Reported(samples.count)
    feed = next(feeds, None)
    if feed is not None:
        run = open_model(Observed.from_json(payload["observed"]))
        for found in in_order(run, itertools.chain([feed], feeds), start):
            ranges = grown(ranges, found)
            progress(ranges.samples)
            kept.save(ranges, digests)
    Path(payload["output"]).write_text(kept.finish(ranges, digests), encoding="utf-8")
    return {"resumed": start, "diagnostics": [d.to_json() for d in samples.warnings]}


ACTIONS = {"calibrate": calibrate}


def start_of(
    samples: Samples, known: Checkpoint, data: str
) -> tuple[Ranges, Iterator[Tensors], list[str] | None]:
    """The ranges to go on from, the samples that are still to be run, and the digests of all.

    There are digests, which grow with the samples, where no fingerprint `data` tells what they are.
    """
    from infc.calibration.repetition import Repetition

    if data:
        return known.ranges, samples.start(known.ranges.samples), None
    again = Repetition(lambda: samples.start(0), known.digests if samples.repeats() else ())
    done, rest = again.rest()
    return known.ranges if done else known.ranges.emptied(), rest, again.digests


def in_order(run: Run, feeds: Iterable[Tensors], start: int) -> Iterator[Found]:
    """What `run` finds in each of `feeds`, the first of which is sample `start`, in their order."""
    pending: deque[Future[Found]] = deque()
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        try:
            for sample, tensors in enumerate(feeds, start):
                pending.append(pool.submit(run, sample, tensors))
                # One more than can run, so that no thread waits for this one.
                if len(pending) > IN_FLIGHT:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def grown(ranges: Ranges, found: Found) -> Ranges:
    """`ranges` with one more sample.

    Raises:
        InfcError: E412 where a tensor holds NaN.
    """
    from infc.calibration.ranges import Ranges

    sample = ranges.samples
    broken = [name for name, s in found.items() if s.nans]
    if broken:
        more = f" and {len(broken) - 1} more tensors" if len(broken) > 1 else ""
        raise fail(
            "E412",
            f"`{broken[0]}`{more} of the float model holds NaN on calibration sample {sample}",
            help="look at that sample (the first is 0), and at what the model makes of it",
        )
    tensors = {n: ranges.tensors[n] + s if sample else s for n, s in found.items()}
    return Ranges(ranges.model, ranges.data, sample + 1, tensors)


def open_model(observed: Observed) -> Run:
    """A function that runs the model on a sample and returns the statistics of its tensors.

    It may be called by several threads at once.

    Raises:
        InfcError: E413 where ONNX Runtime refuses the model or the sample.
    """
    import onnxruntime  # noqa: F401 - 30 ms, in which the model is being written

    from infc.calibration.observers import observe
    from infc.calibration.reductions import shapes_for

    wait_for(observed)
    opened = Sessions()
    reductions = observed.reductions

    def observed_in(tensors: Tensors, names: Iterable[str], sample: int) -> Found:
        return {n: observe(tensors[n], observed.axis(n, tensors[n].ndim), sample) for n in names}

    def reduced(sample: int, tensors: Tensors) -> Found | None:
        shapes = shapes_for(reductions, observed.dims, tensors)
        if shapes is None:
            return None
        asked = [*reductions.outputs, *observed.unreduced]
        feeds = {**tensors, **reductions.places(shapes, sample)}
        values = opened.run(observed.path, asked, feeds, sample)
        found = reductions.statistics(list(values.values()), shapes, sample)
        if found is None:
            return None
        return found | observed_in(values, observed.unreduced, sample)

    def run(sample: int, tensors: Tensors) -> Found:
        found = reduced(sample, tensors) if reductions.rows else None
        if found is None:
            values = opened.run(observed.whole, observed.outputs, tensors, sample)
            found = observed_in(values, observed.outputs, sample)
        return found | observed_in(tensors, observed.inputs, sample)

    return run


class Sessions:
    """Of the files that were run."""

    def __init__(self) -> None:
        self._sessions: dict[Path, onnxruntime.InferenceSession] = {}
        self._lock = threading.Lock()

    def run(self, file: Path, names: Sequence[str], feeds: Tensors, sample: int) -> Tensors:
        """The tensors `names` of `file` for `feeds`, of sample number `sample`.

        Raises:
            InfcError: E413 where ONNX Runtime refuses the sample.
        """
        import onnxruntime

        with self._lock:
            if file not in self._sessions:
                self._sessions[file] = _load(file)
            session = self._sessions[file]
        # A model may have no other outputs than those observed, but has to be asked for one.
        asked = list(names) or [session.get_outputs()[0].name]
        given = {n: onnxruntime.OrtValue.ortvalue_from_numpy(v) for n, v in feeds.items()}
        try:
            values = session.run_with_ort_values(asked, given)
        except Exception as error:
            what = f"the float model does not run on calibration sample {sample}"
            raise _refused(what, error) from error
        return {name: _array(v) for name, v in zip(asked, values, strict=True)}


def _load(file: Path) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.use_deterministic_compute = True
    # One block for all tensors of a run is kept for the next run by each thread: ResNet-50 takes
    # 24 MB less without (95 where the tensors are outputs), and no more time.
    options.enable_mem_pattern = False
    # Each sample in flight has a thread of its own besides those of the session.
    cores = len(os.sched_getaffinity(0))
    options.intra_op_num_threads = max(1, cores + 1 - IN_FLIGHT)
    try:
        session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    except Exception as error:
        raise _refused("the float model does not load", error) from error
    _release_memory()
    return session


def wait_for(observed: Observed) -> None:
    """Wait until the driver has written the model, or could not, which it says itself."""
    while observed.pending.exists():
        time.sleep(WAIT_S)
    if not observed.path.exists():
        raise fail("E413", "the float model was not written")


def _refused(what: str, error: Exception) -> InfcError:
    from infc.targets.onnxruntime import message_of

    return fail("E413", f"{what}: {message_of(error)}")


def _release_memory() -> None:
    """Give back what loading the model took and freed: 160 MB of 340 for ResNet-50 (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _array(value: Any) -> np.ndarray[Any, Any]:
    """A tensor of ONNX Runtime's, which lives as long as the array does."""
    import numpy as np

    dtype, shape = IN_PLACE.get(value.data_type()), value.shape()
    if dtype is None or 0 in shape:
        copied: np.ndarray[Any, Any] = value.numpy()
        return copied
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = (ctypes.c_char * size).from_address(value.data_ptr())
    memory.owner = value
    return np.frombuffer(memory, dtype).reshape(shape)


@dataclass(slots=True)
class Reported:
    """Tells the driver how many of `total` samples are done."""

    total: int | None
    _last: float = 0.0

    def __call__(self, done: int) -> None:
        """Now `done` of them are; said now and then, and when it is the last."""
        now = time.monotonic()
        if done == self.total or now - self._last >= REPORT_S:
            self._last = now
            report(done=done, total=self.total)

"""Kernels timed on this machine, each round in a child process that may crash or hang.

The child is forked: it has TVM already, and compiles a kernel in memory, so that a candidate takes
some tenths of a second. What it learns goes through a pipe, a line for each candidate and step. A
candidate during which the child dies, or is too slow, is the only one lost: another child is forked
for those that are left.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from infc.targets.tvm_compiler.tuning.measuring import (
    Argument,
    Candidate,
    MeasuringError,
    Timing,
)

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu

TIMEOUT_S = 20.0
"""For one step of a candidate: compiling it, or timing it once."""
TURNS = 6
"""How often each candidate is timed, in turns."""
TURN_S = 4e-3
"""About so long each time."""
HOPELESS = 1.5
"""Times the least of all, after a turn: given up."""
PR_SET_PDEATHSIG = 1


class HostMeasurer:
    """Times kernels for `cpu`, which this machine is, on one thread."""

    places = 1

    def __init__(self, cpu: Cpu, timeout_s: float = TIMEOUT_S) -> None:
        self._cpu = cpu
        self._timeout_s = timeout_s

    def measure(self, candidates: Sequence[Candidate]) -> list[Timing]:
        """Time the candidates, in as many children as it takes."""
        found: dict[int, Timing] = {}
        while len(found) < len(candidates):
            left = [i for i in range(len(candidates)) if i not in found]
            known, lost = self._round(candidates, left)
            # What was timed before the child was lost is in the same round as nothing that follows.
            found.update({i: t for i, t in known.items() if lost is None or t.seconds is None})
            if lost is not None:
                found[lost[0]] = Timing(None, lost[1])
        return [found[i] for i in range(len(candidates))]

    def _round(
        self, candidates: Sequence[Candidate], numbers: Sequence[int]
    ) -> tuple[dict[int, Timing], tuple[int, str] | None]:
        """What a child found, and the candidate that it was lost with, and why."""
        found: dict[int, Timing] = {}
        at = numbers[0]
        with _child(lambda tell: self.work(candidates, numbers, tell)) as (pid, lines):
            deadline = time.monotonic() + self._timeout_s
            while True:
                line = lines.get(deadline)
                if line is None:
                    _kill(pid)
                    return found, (at, f"stopped after {self._timeout_s:g} s")
                if not line:
                    break
                row = json.loads(line)
                deadline = time.monotonic() + self._timeout_s
                if "gone" in row:
                    raise MeasuringError(row["gone"])
                if "done" in row:
                    return found, None
                at = row["candidate"]
                if "failed" in row:
                    found[at] = Timing(None, row["failed"])
                elif "seconds" in row:
                    found[at] = Timing(row["seconds"])
        return found, (at, "it crashed")

    def work(
        self, candidates: Sequence[Candidate], numbers: Sequence[int], tell: Callable[..., None]
    ) -> None:
        """What a child does: it tells how far it is, and what it found."""
        os.environ["TVM_NUM_THREADS"] = "1"
        import tvm

        target = tvm.target.Target(self._cpu.target())
        time_all(candidates, numbers, lambda _, candidate: _compiled(candidate, target), tell)

    def close(self) -> None:
        """Nothing is kept between rounds."""


_FORKING = threading.Lock()
"""A child that another thread forks meanwhile would hold this one's pipe open."""


class _Lines:
    """Lines from a pipe, with a time limit."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = b""

    def get(self, deadline: float) -> str | None:
        """The next line; "" at the end, None where it does not come in time."""
        while b"\n" not in self._buffer:
            ready, _, _ = select.select(
                [self._descriptor], [], [], max(0.0, deadline - time.monotonic())
            )
            if not ready:
                return None
            some = os.read(self._descriptor, 65536)
            if not some:
                return ""
            self._buffer += some
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()


@contextlib.contextmanager
def _child(work: Callable[[Callable[..., None]], None]) -> Iterator[tuple[int, _Lines]]:
    """Fork; the child does `work`, which tells rows of JSON, and ends. It is gone afterwards."""
    _FORKING.acquire()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            _die_with_parent()

            def tell(**row: Any) -> None:
                os.write(writing, (json.dumps(row) + "\n").encode())

            work(tell)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    _FORKING.release()
    try:
        yield pid, _Lines(reading)
    finally:
        os.close(reading)
        _kill(pid)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _die_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def time_all(
    candidates: Sequence[Candidate],
    numbers: Sequence[int],
    ready: Callable[[int, Candidate], Callable[[int], float]],
    tell: Callable[..., None],
) -> None:
    """Run each candidate once, and time them in turns. In the child.

    `ready` gives a function that runs a candidate so many times, and gives the mean of the seconds.
    """
    runs: dict[int, Callable[[int], float]] = {}
    for i in numbers:
        tell(candidate=i)
        try:
            runs[i] = ready(i, candidates[i])
            runs[i](1)
        except ConnectionError:
            raise
        except Exception as error:
            runs.pop(i, None)
            tell(
                candidate=i, failed=(str(error).strip().splitlines() or [type(error).__name__])[-1]
            )
    least: dict[int, float] = {}
    for _ in range(TURNS):
        for i in list(runs):
            tell(candidate=i)
            once = least.get(i) or runs[i](1)
            taken = runs[i](max(1, min(1000, int(TURN_S / max(once, 1e-9)))))
            least[i] = min(taken, once)
        best = min(least.values(), default=0.0)
        runs = {i: run for i, run in runs.items() if least[i] <= HOPELESS * best}
    for i, seconds in least.items():
        tell(candidate=i, seconds=seconds)
    tell(done=True)


def _compiled(candidate: Candidate, target: Any) -> Callable[[int], float]:
    """A function that runs the kernel so many times, and gives the mean of the seconds."""
    import tvm

    module = tvm.tirx.build(tvm.IRModule({"main": candidate.func}), target=target)
    arguments = random_arguments(candidate.arguments)

    def run(number: int) -> float:
        evaluator = module.time_evaluator("main", tvm.cpu(), number=number, repeat=1)
        return float(evaluator(*arguments).results[0])

    return run


def random_arguments(arguments: Sequence[Argument]) -> list[Any]:
    """TVM's tensors of these types: numbers in -1..1, integers of 0, which index anything."""
    import ml_dtypes  # noqa: F401  (numpy learns bfloat16 by it)
    import numpy as np
    import tvm

    rng = np.random.default_rng(0)
    found = []
    for argument in arguments:
        dtype = np.dtype(argument.dtype)
        if dtype.kind in "iub":
            array = np.zeros(argument.shape, dtype)
        else:
            array = rng.uniform(-1, 1, argument.shape).astype(dtype)
        found.append(tvm.runtime.tensor(array))
    return found

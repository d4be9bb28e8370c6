"""How a kernel's time is taken: what a tuner hands over, and what it is told.

A `Measurer` times candidates where they will run: on this machine (`host_measuring`), or on a
device elsewhere. It is all that a tuner knows of the place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Argument:
    """A tensor that a kernel is called with."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A kernel with one schedule.

    `func` is a scheduled TIR function with fixed shapes, `main` its global symbol, that is ready
    for `tvm.tirx.build` with the target of the processor. Its parameters are buffers of the types
    in `arguments`, in order: inputs, outputs, and what it works in. It allocates nothing.
    """

    func: Any
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Timing:
    """The least time of a run in seconds, or None and the reason why there is none."""

    seconds: float | None
    reason: str = ""


class MeasuringError(Exception):
    """Nothing can be measured any more, whatever the candidate: the device is gone."""


class Measurer(Protocol):
    """Times candidates on one kind of processor."""

    places: int
    """How many calls of `measure` may be under way at once, from threads of their own: 1, or the
    number of devices."""

    def measure(self, candidates: Sequence[Candidate]) -> list[Timing]:
        """Time the candidates on random arguments, as a tuner's one round; answers in their order.

        They are run in turns and the least time of each is taken, so that others who use the
        machine slow all of them alike. The first is what the others are compared with: one that
        turns out to be much slower may be given up early, with the time that it had.

        A candidate that is not compiled, crashes or takes too long fails alone: `Timing(None,
        reason)`.

        Raises:
            MeasuringError: nothing can be measured any more. A tuner keeps what it has and stops.
        """
        ...

    def close(self) -> None:
        """Let go of devices and processes."""
        ...

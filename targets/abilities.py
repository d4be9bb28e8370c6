"""What a back end may be able to do besides; where it says nothing, it cannot.

CONVERTS   the precisions that its own converter makes of the float graph
samples    how many calibration samples that wants for a target, at most
SEAL       how its artifacts are encrypted
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from infc.request import Precision
from infc.targets import BackEnd, Target


@dataclass(frozen=True, slots=True)
class Seal:
    """How the artifact of a back end is encrypted where the user asks for it.

    `wanted` says whether a target asks for it. `close` encrypts the bytes of the file that a
    loader opens, and `open` undoes it; both run in the driver, and raise E706 for a key that is
    missing or wrong. `secrets` are the options that say where the key is (`Target.secrets`).
    """

    wanted: Callable[[Target], bool]
    close: Callable[[bytes, Target], bytes]
    open: Callable[[bytes, Target], bytes]
    secrets: frozenset[str] = frozenset()


def seal_of(end: BackEnd) -> Seal | None:
    """How artifacts of `end` are encrypted, None where they cannot be."""
    seal: Seal | None = getattr(end, "SEAL", None)
    return seal


def converts(end: BackEnd, precision: Precision) -> bool:
    """Whether the back end's own converter makes `precision` of the float graph.

    The graph is then left in float32: no casts, no Q/DQ.
    """
    own: tuple[Precision, ...] = getattr(end, "CONVERTS", ())
    return precision in own


def samples_wanted(end: BackEnd, target: Target) -> int:
    """How many calibration samples the back end's own converter is given at most, 0 for none."""
    wanted: Callable[[Target], int] | None = getattr(end, "samples", None)
    return wanted(target) if wanted else 0

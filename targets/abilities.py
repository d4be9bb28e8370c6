"""What a back end may be able to do besides; where it says nothing, it cannot.

samples    it quantises by itself: how many calibration samples its converter wants, at most
SEAL       its artifacts can be encrypted, and how
release    its artifacts say which release of its SDK wrote them
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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


def samples_of(end: BackEnd) -> Callable[[Target], int] | None:
    """For a back end that makes INT8 of the float graph: how many samples a target wants at most.

    None where Q/DQ are written into the graph instead. 0 is for INT8 without any samples.
    """
    wanted: Callable[[Target], int] | None = getattr(end, "samples", None)
    return wanted


def release_of(end: BackEnd, entry: Path) -> str | None:
    """The version of the SDK that wrote the artifact `entry`, None where it does not say."""
    release: Callable[[Path], str] | None = getattr(end, "release", None)
    return release(entry) if release else None

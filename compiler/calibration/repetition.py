"""Samples that code makes, told from those of an earlier run by what they hold.

What a function will yield is known once it has yielded it. So its samples are read again, and as
long as each has the digest that the sample in its place had before, it is not run: statistics
depend on nothing else. After the last of those the model goes on; where there is no more, it was
the cache. At the first sample that differs everything is measured anew, from a second call of the
function, so that one that yields something else every time is measured once, on one of them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Feed = Mapping[str, np.ndarray[Any, Any]]

DIGEST_BYTES = 16


def digest_of(feed: Feed) -> str:
    """A digest of the values for each input."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for name, array in feed.items():
        digest.update(f"{name} {array.dtype} {array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def fingerprint_of(digests: Sequence[str]) -> str:
    """SHA-256 of samples with these digests."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


@dataclass(slots=True)
class Repetition:
    """The samples of `start` in the light of `known`, the digests of those measured before.

    `start` begins anew at every call. `digests` grows as the samples are read.
    """

    start: Callable[[], Iterable[Feed]]
    known: Sequence[str]
    digests: list[str] = field(default_factory=list)

    def rest(self) -> tuple[int, Iterator[Feed]]:
        """How many samples need not be run, and those after them.

        Raises:
            InfcError: as reading the samples does.
        """
        feeds = iter(self.start())
        for feed in feeds:
            found = digest_of(feed)
            if len(self.digests) == len(self.known):
                return len(self.known), self._noted(itertools.chain([feed], feeds))
            if found != self.known[len(self.digests)]:
                return 0, self._anew(feed, feeds)
            self.digests.append(found)
        if len(self.digests) < len(self.known):
            return 0, self._anew(None, iter(()))
        return len(self.known), iter(())

    def _anew(self, feed: Feed | None, feeds: Iterator[Feed]) -> Iterator[Feed]:
        """All samples; the first of a function that has only just begun need not be made twice."""
        first, self.digests = not self.digests and feed is not None, []
        if first and feed is not None:
            return self._noted(itertools.chain([feed], feeds))
        return self._noted(iter(self.start()))

    def _noted(self, feeds: Iterator[Feed]) -> Iterator[Feed]:
        for feed in feeds:
            self.digests.append(digest_of(feed))
            yield feed

"""The ranges of the samples so far, kept in a file while the worker runs, and taken up again."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from infc.diagnostics import InfcError

if TYPE_CHECKING:
    from infc.calibration.ranges import Ranges


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The ranges of an earlier run, and of its samples the digests where only they tell them."""

    ranges: Ranges
    digests: Sequence[str]


@dataclass(slots=True)
class Kept:
    """The ranges of the samples so far, in the file `path`, at most every `every_s` seconds."""

    path: str
    every_s: float
    _saved: float = field(default_factory=time.monotonic)

    def load(self, model: str, data: str) -> Checkpoint:
        """Those that are there, if they are of this model and data, else empty ones.

        Without `data` they are of the samples whose digests lie beside them.
        """
        from infc.calibration.ranges import Ranges, load
        from infc.calibration.repetition import fingerprint_of

        if self.path and Path(self.path).exists():
            # What is damaged is as good as not there.
            with contextlib.suppress(InfcError, OSError, ValueError):
                found, digests = load(Path(self.path)), []
                if not data:
                    digests = Path(self.digests).read_text(encoding="ascii").split()
                wanted = data or fingerprint_of(digests)
                fits = data or len(digests) == found.samples
                if fits and (found.model, found.data) == (model, wanted):
                    return Checkpoint(found, digests)
        return Checkpoint(Ranges(model, data, 0, {}), [])

    @property
    def digests(self) -> str:
        """The file of the samples' digests."""
        return f"{self.path}.samples"

    def save(self, ranges: Ranges, digests: Sequence[str] | None = None) -> None:
        """Replace the files, each in one rename, if it is time.

        `digests` are those of the samples, of which more may have been read than were measured. A
        full disk costs no more than that.
        """
        if self.path and time.monotonic() - self._saved >= self.every_s:
            self._keep(ranges, digests)
            self._saved = time.monotonic()

    def finish(self, ranges: Ranges, digests: Sequence[str] | None) -> str:
        """The text of the ranges of all samples.

        With `digests`, which another run will compare with its own, they are kept, too.
        """
        return ranges.dump() if digests is None else self._keep(ranges, digests)

    def _keep(self, ranges: Ranges, digests: Sequence[str] | None) -> str:
        from infc.calibration.repetition import fingerprint_of

        if digests is not None:
            done = digests[: ranges.samples]
            ranges = replace(ranges, data=fingerprint_of(done))
            self._write(self.digests, "\n".join(done))
        text = ranges.dump()
        self._write(self.path, text)
        return text

    def _write(self, path: str, text: str) -> None:
        if not self.path:
            return
        partial = Path(f"{path}.{os.getpid()}")
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)

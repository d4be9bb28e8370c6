"""A place for what a command makes and does not publish."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from infc.bundle import UNWRITABLE, full_disk, unwritable


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder for a command that publishes nothing.

    Raises:
        InfcError: E701 where it cannot be written, or the disk fills up.
    """
    place = Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryDirectory(prefix="infc-", dir=place) as folder, full_disk(place):
            yield Path(folder)
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise unwritable(place, error, "set TMPDIR to another folder, or make room") from error
        raise

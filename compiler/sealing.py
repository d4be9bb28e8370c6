"""Encrypted artifacts, for the time that they are read: the plain file never leaves this machine.

A back end says how (`infc.targets.abilities.Seal`). The artifact is encrypted as soon as it is
built, before its hash is taken for the loader, and verified by decrypting it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from infc.model_key import wrong_key
from infc.targets import Target, back_end
from infc.targets.abilities import Seal, seal_of


def close(entry: Path, target: Target) -> None:
    """Encrypt the file `entry` in place where `target` asks for it, and try that it opens again.

    Raises:
        InfcError: E706, E501.
    """
    seal = _seal(target)
    if seal is None:
        return
    plain = entry.read_bytes()
    sealed = seal.close(plain, target)
    if seal.open(sealed, target) != plain:
        raise wrong_key(f"what was made of `{entry.name}`")
    partial = entry.with_name(f"{entry.name}.sealed")
    partial.write_bytes(sealed)
    partial.replace(entry)


@contextlib.contextmanager
def opened(entry: Path, target: Target, scratch: Path) -> Iterator[Path]:
    """The file that the runtime opens: `entry`, or what is in it, as long as the block lasts.

    That is in a folder in `scratch` and may be read by nobody else.

    Raises:
        InfcError: E706, E501.
    """
    seal = _seal(target)
    if seal is None:
        yield entry
        return
    plain = seal.open(entry.read_bytes(), target)
    scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="opened-", dir=scratch))
    try:
        file = folder / entry.name
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(plain)
        yield file
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _seal(target: Target) -> Seal | None:
    seal = seal_of(back_end(target.back_end))
    return seal if seal is not None and seal.wanted(target) else None

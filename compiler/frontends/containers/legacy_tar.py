"""PyTorch 0.1 checkpoints: a tar archive of pickles, and nothing that infc reads on.

Source: torch/serialization.py, `legacy_load`.
"""

from __future__ import annotations

import tarfile
from io import BytesIO
from pathlib import Path

from infc.frontends.containers.archives import damaged, unsafe
from infc.frontends.containers.description import Description
from infc.frontends.containers.pickles import MAX_PICKLE_BYTES, unsafe_globals

MAX_MEMBERS = 1000
PICKLES = ("sys_info", "pickle")


def describe(path: Path) -> Description:
    """What the archive `path` holds.

    Raises:
        InfcError: E116 where a member leads outside or is no file, E117 where it is damaged.
    """
    found: list[str] = []
    try:
        with tarfile.open(path, "r:") as archive:
            names = []
            for member in archive:
                names.append(member.name)
                _require_sane(member, path)
                if len(names) > MAX_MEMBERS:
                    raise unsafe(str(path), f"it has more than {MAX_MEMBERS:,} members")
                stream = archive.extractfile(member) if member.name in PICKLES else None
                if stream is not None:
                    data = stream.read(min(member.size, MAX_PICKLE_BYTES))
                    found += unsafe_globals(BytesIO(data))
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise damaged(str(path), f"its tar archive cannot be read: {error}") from error
    return Description(
        "torch-tar",
        "PyTorch 0.1 checkpoint",
        details={"members": ", ".join(names)},
        unsafe=list(dict.fromkeys(found)),
    )


def _require_sane(member: tarfile.TarInfo, path: Path) -> None:
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts or "\\" in member.name:
        raise unsafe(str(path), f"`{member.name}` would lie outside its folder")
    if not (member.isfile() or member.isdir()):
        raise unsafe(str(path), f"`{member.name}` is neither a file nor a folder")

"""Where infc keeps what outlives a command."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """`$INFC_HOME`, else `$XDG_DATA_HOME/infc`, else `~/.local/share/infc`; an absolute path."""
    home = os.environ.get("INFC_HOME")
    if home:
        return Path(home).expanduser().absolute()
    base = os.environ.get("XDG_DATA_HOME")
    # The XDG Base Directory Specification has relative paths ignored.
    data = Path(base) if base and Path(base).is_absolute() else Path.home() / ".local" / "share"
    return data / "infc"


def toolchain_folder(name: str) -> Path:
    """Where the toolchain called `name` is, if it is installed; a link."""
    return data_folder() / "toolchains" / name

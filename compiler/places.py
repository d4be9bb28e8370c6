"""Where infc keeps what outlives a command."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """`$INFC_HOME`, else `$XDG_DATA_HOME/infc`, else `~/.local/share/infc`; an absolute path."""
    return _home() or _base("XDG_DATA_HOME", Path(".local", "share")) / "infc"


def cache_folder() -> Path:
    """`$INFC_HOME/cache`, else `$XDG_CACHE_HOME/infc`, else `~/.cache/infc`; an absolute path."""
    home = _home()
    return home / "cache" if home else _base("XDG_CACHE_HOME", Path(".cache")) / "infc"


def toolchain_folder(name: str) -> Path:
    """Where the toolchain called `name` is, if it is installed; a link."""
    return data_folder() / "toolchains" / name


def _home() -> Path | None:
    home = os.environ.get("INFC_HOME")
    return Path(home).expanduser().absolute() if home else None


def _base(variable: str, default: Path) -> Path:
    """The folder that `variable` names, else `default` in the user's home."""
    base = os.environ.get(variable)
    # The XDG Base Directory Specification has relative paths ignored.
    return Path(base) if base and Path(base).is_absolute() else Path.home() / default

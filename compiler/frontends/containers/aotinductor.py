"""AOTInductor packages: compiled code of a torch.export program; the graph itself is not in them.

Source: torch/export/pt2_archive/constants.py, `AOTINDUCTOR_DIR`.
"""

from __future__ import annotations

from pathlib import Path

from infc.frontends.containers import torch_archives
from infc.frontends.containers.description import Description

FOLDER = "data/aotinductor"


def describe(path: Path) -> Description:
    """What the package `path` holds.

    Raises:
        InfcError: E116 where it is not safe to open, E117 where it is damaged.
    """
    with torch_archives.open_archive(path) as archive:
        libraries = [n for n in archive.under(FOLDER) if n.endswith((".so", ".pyd", ".dll"))]
        version = archive.text("archive_version")
    names = ", ".join(name.removeprefix(f"{FOLDER}/") for name in libraries)
    details = {"libraries": names or "none found"}
    if version:
        details["archive"] = f"version {version}"
    return Description("aotinductor", "AOTInductor package", details=details)

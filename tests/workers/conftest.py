"""Installs the misbehaving back end as another distribution would: metadata on the path."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infc import targets


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make the target `evil` known to the driver and its workers; returns the pid file."""
    site = tmp_path / "site"
    metadata = site / "evil-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[infc.targets]\nevil = evil_back_end\n")
    shutil.copyfile(Path(__file__).with_name("evil_back_end.py"), site / "evil_back_end.py")
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("INFC_EVIL_PID", str(tmp_path / "pid"))
    targets.profiles.cache_clear()
    targets._offered.cache_clear()
    yield tmp_path / "pid"
    targets.profiles.cache_clear()
    targets._offered.cache_clear()
    sys.modules.pop("evil_back_end", None)

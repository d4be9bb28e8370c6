"""examples/pytorch: every command of its README, run as it stands there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from infc.bundle import open_bundle

EXAMPLE = ROOT / "examples" / "pytorch"


@pytest.mark.slow
def test_the_commands_of_the_readme(tmp_path: Path, need_module: Callable[[str], None]) -> None:
    need_module("torch")
    need_module("onnxscript")
    folder = tmp_path / "pytorch"
    shutil.copytree(EXAMPLE, folder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    commands = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    assert sum(line.startswith("infc ") for line in commands) == 6
    places = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(places)}
    for command in commands:
        done = subprocess.run(
            command.split(),
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    exporters = {"commands": "torch.export", "program": "torch.export", "traced": "torchscript"}
    for name, exporter in exporters.items():
        manifest = open_bundle(folder / "build" / f"{name}-cpu").manifest
        assert manifest["source"]["import"]["exporter"] == exporter
        assert [row["name"] for row in manifest["outputs"]] == ["scores", "embedding"]
    dynamic = open_bundle(folder / "build" / "dynamic" / "commands-cpu").manifest
    assert [row["shape"] for row in dynamic["inputs"]] == [
        ["batch", 40, "length"],
        ["batch", "length"],
    ]

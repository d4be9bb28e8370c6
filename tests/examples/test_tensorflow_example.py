"""examples/tensorflow: every command of its README, run as it stands there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, missing

from infc.bundle import open_bundle
from infc.workers import toolchains

EXAMPLE = ROOT / "examples" / "tensorflow"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    environment = toolchains.find("tensorflow")
    if environment is None:
        missing("the toolchain tensorflow (`infc toolchain install tensorflow`)")
    folder = tmp_path / "tensorflow"
    shutil.copytree(EXAMPLE, folder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    commands = [line.split() for line in text.splitlines() if line.startswith("    ")]
    assert sum(words[0] == "infc" for words in commands) == 7
    places = [str(Path(sys.executable).parent), os.environ["PATH"]]
    variables = {**os.environ, "PATH": os.pathsep.join(places)}
    for words in commands:
        if words[0].endswith("/python"):
            words[0] = str(environment.python)  # `~` is the shell's; INFC_HOME may say otherwise
        done = subprocess.run(
            words, cwd=folder, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr}"
    bundles = {p.parent.name: open_bundle(p) for p in folder.glob("build/*/*-cpu")}
    assert set(bundles) == {"keras", "hdf5", "saved_model", "tflite", "nchw", "int8"}
    for bundle in bundles.values():
        assert bundle.manifest["verification"]["verdict"] == "passed"
    assert bundles["keras"].inputs[0].shape == ("batch", 32, 32, 3)
    assert bundles["nchw"].inputs[0].shape == ("batch", 3, 32, 32)
    assert [spec.name for spec in bundles["keras"].outputs] == ["species"]

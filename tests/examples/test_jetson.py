"""examples/jetson: the script, with the library that stands in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from programs import EXAMPLES

from infc.bundle import open_bundle


def test_run_compiles_and_finishes(need_module: Callable[[str], None], tmp_path: Path) -> None:
    need_module("tensorrt_rtx")
    venv = Path(sys.prefix)
    done = subprocess.run(
        [str(EXAMPLES / "jetson" / "run"), "", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "INFC_VENV": str(venv)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "jetson" in done.stdout.splitlines()[0]
    assert "deferred" in done.stdout.splitlines()[0]
    assert "built: " in done.stdout
    assert "not verified" in done.stderr
    assert open_bundle(tmp_path / "digits-jetson").manifest["state"] == "built"


def test_the_readme_names_what_is_there() -> None:
    text = (EXAMPLES / "jetson" / "README.md").read_text()
    assert (EXAMPLES / "jetson" / "../../targets/TENSORRT.md").is_file()
    assert "examples/digits/digits.onnx" in text
    assert (EXAMPLES / "digits" / "digits.onnx").is_file()

"""examples/firmware: the model on a microcontroller, in qemu."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from programs import EXAMPLES


@pytest.mark.parametrize("cpu", ["cortex-m4", "cortex-m7", "cortex-m33"])
def test_the_firmware_answers_as_the_source_model(
    tmp_path: Path,
    need_module: Callable[[str], None],
    need_tool: Callable[[str], str],
    cpu: str,
) -> None:
    need_module("tvm")
    need_module("ziglang")
    need_tool("qemu-system-arm")
    done = subprocess.run(
        [EXAMPLES / "firmware" / "run", cpu, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "INFC_VENV": str(Path(sys.prefix))},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "accuracy 59/60" in done.stdout
    found = re.search(r"flash (\d+) bytes, RAM (\d+) bytes, stack (\d+) bytes", done.stdout)
    assert found is not None
    flash, ram, stack = map(int, found.groups())
    assert 43_688 < flash < 100_000
    assert 8_000 < ram < 16_000
    assert 0 < stack < 8_192

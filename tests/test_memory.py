"""A model of 2 GB with its weights in a file beside it is optimised in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_two_gigabytes_are_optimised_in_half_a_gigabyte(tmp_path: Path) -> None:
    bench = ROOT / "scripts" / "bench_memory.py"
    done = subprocess.run(
        [sys.executable, bench, "--folder", tmp_path, "--size-gb", "2", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    row = json.loads(done.stdout)
    assert row["weights_bytes"] > 1.9e9
    assert row["above_baseline_bytes"] < 500e6
    assert done.returncode == 0

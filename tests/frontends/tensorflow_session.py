"""Runs the scripts beside it in the toolchain's Python, once for all pytest workers."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from conftest import missing

from infc import workers
from infc.workers import toolchains

HERE = Path(__file__).parent
TIMEOUT_S = 900


def python() -> Path:
    """The interpreter that has TensorFlow; a skip, or a failure, where there is none."""
    environment = toolchains.find("tensorflow")
    if environment is None:
        missing("the toolchain tensorflow (`infc toolchain install tensorflow`)")
    return environment.python


def zoo() -> Path:
    """The folder of models, made anew where what makes them has changed."""
    interpreter = python()
    names = ("tensorflow_zoo.py", "tensorflow_sources.py", "tensorflow_states.py")
    state = [(HERE / name).read_bytes() for name in names]
    state.append(str(interpreter.resolve()).encode())
    key = hashlib.sha256(b"\0".join(state)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"infc-tensorflow-zoo-{os.getuid()}-{key}"
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                made = Path(scratch) / "zoo"
                _run([str(interpreter), str(HERE / "tensorflow_zoo.py"), str(made)])
                made.rename(folder)
    return folder


def import_all(cases: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """What `tensorflow_importer` says of each case: path, options and inputs."""
    protocol = Path(workers.__file__).parent
    job = {
        "protocol": str(protocol),
        "packages": {
            name: str(next(iter(import_module(name).__path__))) for name in workers.PACKAGES
        },
        "cases": {
            name: {
                "path": str(case["path"]),
                "options": case.get("options", {}),
                "inputs": case.get("inputs", []),
                "home": str(HERE),
            }
            for name, case in cases.items()
        },
        "output": str(folder / "imports"),
        "answer": str(folder / "answer.json"),
    }
    (folder / "job.json").write_text(json.dumps(job))
    _run([str(python()), str(HERE / "tensorflow_importer.py"), str(folder / "job.json")], folder)
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    return answer


def _run(command: list[str], folder: Path | None = None) -> None:
    # tf2onnx goes through sets of names: a worker's order is always the same, and so is this one's.
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "0",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr[-3000:]

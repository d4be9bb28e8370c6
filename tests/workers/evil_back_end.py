"""A back end that misbehaves on purpose; the option `how` says in which way, `when` at which step.

The tests install it through the `infc.targets` entry point, as another distribution would.
"""

from __future__ import annotations

import builtins
import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any

from infc.request import Precision
from infc.targets import Artifact, BuildJob, LoaderSpec, RunJob, Target, Worker, choice

NAME = "evil"
SUMMARY = "misbehaves on purpose"
EXTRA = "evil"
DISTRIBUTIONS = ("infc",)
MODULES = ("evil_back_end",)
OPTIONS = {"how": "the way it misbehaves", "when": "build or run"}
PRECISIONS = (Precision.FP32,)
MIN_OPSET = 13
THREADS = (1,)
LOADER = LoaderSpec("onnxruntime", dict, list)


def worker(target: Target) -> Worker:
    return Worker(target.toolchain)


def require_options(target: Target) -> None:
    choice(target, "how", ("legalize", *ways), "nothing")
    choice(target, "when", ("build", "run"), "build")


def legalize(model: Any, target: Target) -> None:
    """In the driver's own process."""
    if target.options.get("how") == "legalize":
        raise RuntimeError("a bug in the back end's own code")


def check(model: Path, target: Target) -> list[Any]:
    return []


def build(job: BuildJob) -> Artifact:
    misbehave(job.target, "build")
    (job.output / "model.txt").write_text("artifact")
    if job.target.options.get("how") == "no-file":
        return Artifact("absent.bin", ("absent.bin",))
    import onnx

    (opset,) = onnx.load(job.model).opset_import
    return Artifact("model.txt", ("model.txt",), {"opset": opset.version})


def open(job: RunJob) -> Any:
    import numpy as np

    def run(feeds: Any) -> Any:
        misbehave(job.target, "run")
        return {name: np.zeros((1,), np.float32) for name in job.outputs}

    return run


def device(target: Target) -> str:
    return "CPU"


def misbehave(target: Target, step: str) -> None:
    if target.options.get("when", "build") != step:
        return
    print(f"about to misbehave while asked to {step}", flush=True)
    ways[target.options.get("how", "nothing")]()


def segfault() -> None:
    ctypes.string_at(0)


def hang() -> None:
    if os.fork() == 0:  # and leaves a child behind that hangs as well
        Path(os.environ["INFC_EVIL_PID"]).write_text(str(os.getpid()))
    while True:
        time.sleep(1)


def garbage() -> None:
    """Whatever would be read as the result is not one."""
    job = Path(sys.argv[1])
    sys.stdout.buffer.write(bytes(range(256)) * 4)
    sys.stdout.flush()
    (job.parent / "result.json").write_bytes(b"\xff\xfe{not json")
    os._exit(0)


def silent_exit() -> None:
    os._exit(0)


def exit_with_status() -> None:
    sys.stderr.write("giving up\n")
    sys.stderr.flush()
    os._exit(7)


def raise_error() -> None:
    raise RuntimeError("something in the SDK broke")


def eat_memory() -> None:
    blocks = []
    while True:
        blocks.append(bytearray(64 << 20))


def flood() -> None:
    """Far more output than anybody wants to see, then an abort."""
    line = "x" * 5000 + "\n"
    for _ in range(2000):
        sys.stdout.write(line)
    print("the last words", flush=True)
    os.abort()


ways = {
    "nothing": lambda: None,
    "no-file": lambda: None,
    "segfault": segfault,
    "hang": hang,
    "garbage": garbage,
    "silent-exit": silent_exit,
    "exit": exit_with_status,
    "raise": raise_error,
    "memory": eat_memory,
    "flood": flood,
}
assert builtins.open is not open

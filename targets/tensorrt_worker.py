"""What the workers of both TensorRT back ends do with the builder: check, build, open.

`trt` is the module that is driven, `tensorrt` or `tensorrt_rtx`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import fail
from infc.signature import numpy_dtype
from infc.targets import (
    Artifact,
    BackEndError,
    BuildJob,
    RunJob,
    Target,
    Unsupported,
    tensorrt_builder,
)
from infc.targets.tensorrt_spec import spec_of

if TYPE_CHECKING:
    from infc.targets import Runner, Tensors

ENGINE = "model.engine"
SPEC = "build.json"
KEPT = ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
"""Variables without which the library may not be found, or another GPU."""
REPORT_S = 0.1
"""Progress is reported no more often: TensorRT has thousands of steps."""
TURING_HELP = (
    "GPUs of compute capability 7.5 multiply matrices in float16 only: `--precision fp16`, or "
    "build for later ones (`--target rtx-any`)"
)
REMEDIES = {"FP32 GEMM is not supported": TURING_HELP}
"""What a message of TensorRT's comes down to."""


def check(trt: Any, model: Path) -> Sequence[Unsupported]:
    """Every node that the parser refuses.

    Raises:
        BackEndError: it refuses the model, and no node of it.
    """
    try:
        rows = tensorrt_builder.unsupported(trt, str(model))
    except tensorrt_builder.BuildError as error:
        raise BackEndError(str(error)) from error
    if not rows:
        return ()
    import onnx

    nodes = onnx.load(model, load_external_data=False).graph.node
    found = []
    for name, op_type, reason in rows:
        if not op_type:
            raise BackEndError(reason)
        number = int(name[1:]) if name.startswith("#") else -1
        if 0 <= number < len(nodes) and nodes[number].op_type == op_type:
            name = next((v for v in nodes[number].output if v), name)  # noqa: PLW2901
        domain = next((n.domain for n in nodes if name in (n.name, *n.output)), "")
        found.append(Unsupported(name, op_type, domain, reason))
    return found


def build(
    trt: Any, job: BuildJob, timing_cache: Path | None = None, *, apart: bool = False
) -> Artifact:
    """Build the engine, and say how far that is; `apart` in a process that knows no paths.

    Raises:
        BackEndError: TensorRT refuses; the message is its own.
        InfcError: E204 where there is more to say than that, E206.
    """
    spec = spec_of(job.target, job.inputs, job.outputs)
    cache = str(timing_cache) if timing_cache else None
    engine = str(job.output / ENGINE)
    progress = _Reporter(job.report) if job.report else None
    try:
        if apart:
            facts = _build_apart(trt.__name__, spec, job.model, Path(engine), progress)
        else:
            facts = tensorrt_builder.build(trt, spec, str(job.model), engine, cache, progress)
    except tensorrt_builder.BuildError as error:
        for said, help in REMEDIES.items():
            if said in str(error):
                message = f"`{job.target.back_end}` while building: {error}"
                raise fail("E204", message, help=help) from error
        raise BackEndError(str(error)) from error
    kept = ("profiles", "layers")
    return Artifact(ENGINE, (ENGINE,), {key: facts[key] for key in kept})


def _build_apart(
    module: str,
    spec: Mapping[str, Any],
    model: Path,
    engine: Path,
    progress: Callable[[str, int, int], None] | None,
) -> Mapping[str, Any]:
    """What `tensorrt_builder.build` gives, of the builder run as a program.

    All its paths are relative and its environment is always the same. A longer path, or one more
    variable, moves everything behind it in memory, and engines are numbered by addresses.

    Raises:
        BuildError: the library refuses.
    """
    (model.parent / SPEC).write_text(json.dumps(spec, sort_keys=True), encoding="utf-8")
    command = [sys.executable, "-I", str(Path(tensorrt_builder.__file__).resolve())]
    command += ["--module", module, "--spec", SPEC, "--model", model.name, "--engine", ENGINE]
    kept = {k: v for k, v in os.environ.items() if k in KEPT}
    process = subprocess.Popen(
        command,
        cwd=model.parent,
        env={**kept, "PATH": os.defpath, "PYTHONHASHSEED": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        sys.stderr.write(line)
        said.append(line.rstrip())
        if progress is not None and not line.startswith("error: "):
            progress(line.strip(), 0, 1)
    answer = process.stdout.read()
    if process.wait():
        reasons = [line for line in said if line.startswith("error: ")]
        start = said.index(reasons[-1]) if reasons else max(0, len(said) - 5)
        reason = "\n".join(said[start:]).removeprefix("error: ")
        raise tensorrt_builder.BuildError(reason or f"the builder left with {process.returncode}")
    (model.parent / ENGINE).replace(engine)
    facts: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return facts


class _Reporter:
    """Passes progress on to the driver, now and then."""

    def __init__(self, report: Callable[..., None]) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._due = 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        with self._lock:
            now = time.monotonic()
            if now >= self._due:
                self._due = now + REPORT_S
                self._report(phase=phase, done=done, total=total)


def open(trt: Any, job: RunJob) -> Runner:
    """Load an engine and return the function that runs it.

    Raises:
        BackEndError: there is no GPU, or the engine is for another one.
    """
    import numpy as np

    try:
        session = tensorrt_builder.open_engine(trt, str(job.entry), _spec_to_run(job.target))
    except tensorrt_builder.BuildError as error:
        raise BackEndError(str(error)) from error

    def run(feeds: Tensors) -> dict[str, Any]:
        given = {
            name: (a.dtype.name, a.shape, np.asarray(a, order="C").tobytes())
            for name, a in feeds.items()
        }
        try:
            answers = session.run(given)
        except tensorrt_builder.BuildError as error:
            raise BackEndError(str(error)) from error
        return {
            name: np.frombuffer(contents, numpy_dtype(dtype)).reshape(shape)
            for name, (dtype, shape, contents) in answers.items()
        }

    return run


def _spec_to_run(target: Target) -> dict[str, Any]:
    return {"version_compatible": target.options.get("version-compatible") == "on"}


@cache
def gpu() -> Mapping[str, Any]:
    """The GPU that is here (`tensorrt_builder.probe`), or the reason why there is none."""
    return tensorrt_builder.probe()


def absence() -> str:
    """Why no engine can be run here; "" where one can."""
    return str(gpu().get("reason", ""))

"""ONNX Runtime: the artifact is an optimised `model.onnx`, the runtime its CPU provider.

Source: onnxruntime 1.31 Python and C API.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import fail
from infc.request import Precision
from infc.targets import Artifact, BackEndError, BuildJob, LoaderSpec, RunJob, Target, Unsupported

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.targets import Runner, Tensors

NAME = "onnxruntime"
SUMMARY = "ONNX Runtime (CPU): optimised .onnx"
EXTRA = "onnxruntime"
DISTRIBUTIONS = ("onnxruntime",)
MODULES = ("onnxruntime",)
OPTIONS = {"graph-optimization": "off | basic | all: what the runtime does when it loads (all)"}
PRECISIONS = (Precision.FP32,)
MIN_OPSET = 7


def _sdk() -> dict[str, str]:
    raise fail("E501", "no ONNX Runtime C headers were found")


LOADER = LoaderSpec("onnxruntime", _sdk, list)


def legalize(model: ir.Model, target: Target) -> None:
    """Nothing to do yet: ONNX Runtime takes the neutral graph."""


def check(model: Path, target: Target) -> Sequence[Unsupported]:
    """Every operator of a valid model is supported; a custom one is found when it is loaded."""
    return ()


def build(job: BuildJob) -> Artifact:
    """Load the model once, so that a refusal is found now, and keep it."""
    _session(job.model, job.target, threads=1)
    shutil.copyfile(job.model, job.output / "model.onnx")
    return Artifact("model.onnx", ("model.onnx",))


def open(job: RunJob) -> Runner:
    """Open `job.entry` in an InferenceSession."""
    session = _session(job.entry, job.target, job.threads)

    def run(feeds: Tensors) -> dict[str, Any]:
        return dict(zip(job.outputs, session.run(list(job.outputs), dict(feeds)), strict=True))

    return run


def _session(model: Path, target: Target, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = {
        "off": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "all": levels.ORT_ENABLE_ALL,
    }[target.options.get("graph-optimization", "all")]
    try:
        return onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
    except Exception as error:
        raise BackEndError(str(error)) from error

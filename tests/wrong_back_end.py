"""ONNX Runtime with a bug: a back end that computes one operator wrongly.

`-X operator=Tanh` says which; `-X only=fused` lets it be wrong only where what it reads is no
output of the graph, as a fusion would be, `-X only=refused` lets it be right, but no output. The
tests install it through the `infc.targets` entry point, as another distribution would.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infc.request import Precision
from infc.targets import Artifact, BackEndError, BuildJob, LoaderSpec, Target, Worker, onnxruntime

NAME = "wrong"
SUMMARY = "computes one operator wrongly"
EXTRA = "wrong"
DISTRIBUTIONS = ("infc",)
MODULES = ("wrong_back_end",)
OPTIONS = {"operator": "the one", "only": "always | fused | refused"}
PRECISIONS = (Precision.FP32,)
MIN_OPSET = 13
THREADS = (1,)
LOADER = LoaderSpec("onnxruntime", dict, list)


def worker(target: Target) -> Worker:
    return Worker(target.toolchain)


def require_options(target: Target) -> None:
    pass


def legalize(model: Any, target: Target) -> None:
    pass


def check(model: Path, target: Target) -> list[Any]:
    return []


def build(job: BuildJob) -> Artifact:
    """The model with 10 % added to what the operator gives."""
    import numpy as np
    import onnx

    model = onnx.load(job.model)
    outputs = {v.name for v in model.graph.output}
    only = job.target.options.get("only", "always")
    factor = onnx.numpy_helper.from_array(np.array(1.1, np.float32), "factor")
    model.graph.initializer.append(factor)
    for index, node in enumerate(list(model.graph.node)):
        if node.op_type != job.target.options["operator"]:
            continue
        if only == "refused" and node.output[0] in outputs:
            raise BackEndError(f"{node.op_type} cannot be an output")
        if only == "refused" or (only == "fused" and node.input[0] in outputs):
            continue
        right, given = f"{node.output[0]}/right", node.output[0]
        node.output[0] = right
        scaled = onnx.helper.make_node("Mul", [right, "factor"], [given])
        model.graph.node.insert(index + 1, scaled)
    onnx.save(model, job.output / "model.onnx")
    return Artifact("model.onnx", ("model.onnx",))


open = onnxruntime.open


def device(target: Target) -> str:
    return "CPU"

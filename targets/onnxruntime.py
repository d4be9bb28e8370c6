"""ONNX Runtime: the artifact is an optimised `model.onnx`, the runtime its CPU provider.

Conv and activation are fused in the file (`onnxruntime_fusion`); what depends on the machine, the
blocked layout above all, the runtime adds when it loads. `-X format=ort` gives ONNX Runtime's own
flatbuffer instead, which also its minimal builds (without an ONNX parser) load. A flatbuffer is
optimised when it is written and not again when it is loaded: up to `extended`, which every CPU
runs. What is beyond that, the blocked layout, is of one kind of CPU, and ONNX Runtime writes it
differently every time; it is worth a factor of two (ultraface RFB-320: 4.4 ms against 1.8 ms).

fp16 stores the weights in float16 and computes in float32: half the size at the same speed, since
the runtime widens them once, when it loads the model (densenet121: 31.1 ms either way). Its x86
kernels have no float16: a graph whose operators compute in it runs between Casts, 1.0 to 2.2 times
as long (densenet121 42 -> 64 ms, inception_v2 28 -> 63 ms). It has no bfloat16 Conv at all. A
flatbuffer would hold the weights that were widened: fp16 is refused with it.

This module also runs the reference of ONNX models, with `graph-optimization=off`.

Source: onnxruntime 1.31 Python and C API, session options; ORT model format.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import fail
from infc.request import Precision
from infc.targets import (
    Artifact,
    BackEndError,
    BuildJob,
    LoaderSpec,
    RunJob,
    Target,
    Unsupported,
    Worker,
    choice,
    onnxruntime_sdk,
    schemes,
)
from infc.targets.arithmetic import Arithmetic
from infc.targets.dynamic import Dynamic
from infc.targets.onnxruntime_flatbuffer import canonicalize

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.targets import Runner, Tensors


def _quantize_lstm(model: ir.Model, keep_float: frozenset[str]) -> tuple[tuple[str, ...], int, int]:
    # A worker has no use for onnx_ir, which takes as long to import as ONNX Runtime, twice over.
    from infc.targets.onnxruntime_recurrent import quantize_lstm

    return quantize_lstm(model, keep_float)


NAME = "onnxruntime"
SUMMARY = "ONNX Runtime (CPU): optimised .onnx, or .ort"
EXTRA = "onnxruntime"
DISTRIBUTIONS = ("onnxruntime",)
MODULES = ("onnxruntime",)
OPTIONS = {
    "format": "onnx | ort: the artifact's format (onnx)",
    "graph-optimization": "off | basic | extended | all: what the runtime does to an .onnx when "
    "it loads (all), or what is done to an .ort before it is written (extended; all is refused)",
}
PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8, Precision.INT8_DYNAMIC)
ARITHMETIC = {Precision.FP16: Arithmetic(converts=False, stores="float16")}
DYNAMIC = Dynamic("integer", _quantize_lstm)
MIN_OPSET = 7
SCHEME = schemes.ONNXRUNTIME
THREADS = (1,)

LEVELS = {
    "off": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
FORMATS = ("onnx", "ort")
LOG_ERRORS, LOG_NOTHING = 3, 4
BFLOAT16 = 16
"""onnx.TensorProto.BFLOAT16; numpy has no such type, so that it needs a way of its own."""


def worker(target: Target) -> Worker:
    """Any environment that has the package."""
    return Worker(target.toolchain)


def require_options(target: Target) -> None:
    """The format, and a level of optimisation and a precision that it can have."""
    _level(target)
    if _format(target) == "ort" and target.precision is Precision.FP16:
        raise fail(
            "E205",
            "`-X format=ort` cannot be built at `fp16`: its weights are widened when it is written",
            help="leave the format out: a model.onnx at fp16 is half as large",
        )


def legalize(model: ir.Model, target: Target) -> None:
    """Fuse Conv and activation."""
    from infc.targets.onnxruntime_fusion import fuse_conv_activation

    fuse_conv_activation(model)


def check(model: Path, target: Target) -> Sequence[Unsupported]:
    """Load the model; where that fails, find every node that is to blame.

    Raises:
        BackEndError: no single node is to blame.
    """
    from infc.targets import one_node

    try:
        _session(model, level="off")
    except BackEndError:
        nodes = one_node.refused(model, _reason, known=_operators())
        if nodes:
            return nodes
        raise
    return ()


def _reason(model: bytes) -> str:
    try:
        _session(model, level="off", log=LOG_NOTHING)
    except BackEndError as error:
        return str(error)
    return ""


def _operators() -> frozenset[str]:
    """The full names of all operators this ONNX Runtime has, those that are functions included."""
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    schemas = get_all_operator_schema()
    return frozenset(f"{s.domain}.{s.name}" if s.domain else s.name for s in schemas)


def build(job: BuildJob) -> Artifact:
    """Keep the model, with its weights beside it where it has such, or write the flatbuffer."""
    if _format(job.target) == "ort":
        return _build_ort(job)
    files = ["model.onnx"]
    shutil.copyfile(job.model, job.output / "model.onnx")
    weights = job.model.with_name(f"{job.model.name}.data")
    if weights.exists():
        # The model names the file of its weights: both keep their names.
        shutil.copyfile(weights, job.output / weights.name)
        files.append(weights.name)
    return Artifact("model.onnx", tuple(files))


def _build_ort(job: BuildJob) -> Artifact:
    _session(job.model, level=_level(job.target), save_as=job.output / "model.ort")
    canonicalize(job.output / "model.ort")
    return Artifact("model.ort", ("model.ort",))


def open(job: RunJob) -> Runner:
    """Open `job.entry` in an InferenceSession; `threads` of 0 is one for each core."""
    session = _session(job.entry, level=_level(job.target), threads=job.threads)
    kinds = [v.type for v in (*session.get_inputs(), *session.get_outputs())]
    call = _run_bits if "tensor(bfloat16)" in kinds else _run
    names = list(dict.fromkeys(job.outputs))

    def run(feeds: Tensors) -> dict[str, Any]:
        try:
            return dict(zip(names, call(session, names, feeds), strict=True))
        except Exception as error:
            raise BackEndError(message_of(error)) from error

    return run


def device(target: Target) -> str:
    """Always the CPU."""
    return "CPU"


def _run(session: Any, names: list[str], feeds: Tensors) -> list[Any]:
    return list(session.run(names, dict(feeds)))


def _run_bits(session: Any, names: list[str], feeds: Tensors) -> list[Any]:
    """As `_run`, with bfloat16 tensors going in and coming out as their 16 bits."""
    import ctypes

    import numpy as np
    import onnxruntime

    from infc.signature import numpy_dtype

    def value(array: Any) -> Any:
        if array.dtype.name != "bfloat16":
            return onnxruntime.OrtValue.ortvalue_from_numpy(array)
        bits = np.ascontiguousarray(array).view(np.uint16)
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, BFLOAT16)

    def array(result: Any) -> Any:
        if result.data_type() != "tensor(bfloat16)":
            return result.numpy()
        shape = result.shape()
        data = ctypes.string_at(result.data_ptr(), 2 * int(np.prod(shape)))
        return np.frombuffer(data, numpy_dtype("bfloat16")).reshape(shape)

    # The OrtValue refers to the array that it was made from: both must live through the run.
    arrays = {name: np.asarray(a, order="C") for name, a in feeds.items()}
    results = session.run_with_ort_values(names, {n: value(a) for n, a in arrays.items()})
    return [array(result) for result in results]


def _session(
    model: Path | bytes,
    *,
    level: str,
    threads: int = 1,
    save_as: Path | None = None,
    log: int = LOG_ERRORS,
) -> Any:
    """An InferenceSession on the CPU.

    Raises:
        BackEndError: ONNX Runtime refuses the model.
    """
    import onnxruntime

    onnxruntime.set_default_logger_severity(log)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = log
    options.intra_op_num_threads = threads
    options.use_deterministic_compute = True
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[level])
    if save_as is not None:
        options.optimized_model_filepath = str(save_as)
        options.add_session_config_entry("session.save_model_format", "ORT")
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"])
    except Exception as error:
        raise BackEndError(message_of(error)) from error


def _format(target: Target) -> str:
    return choice(target, "format", FORMATS, "onnx")


def _level(target: Target) -> str:
    if _format(target) == "ort":
        return choice(target, "graph-optimization", ("off", "basic", "extended"), "extended")
    return choice(target, "graph-optimization", tuple(LEVELS), "all")


def message_of(error: Exception) -> str:
    """ONNX Runtime's message without its status code, its source files and our temporary paths."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    text = re.sub(r"Load model from \S+ failed:", "", text)
    text = re.sub(r"/onnxruntime_src/\S+ [^\n]*?\) (?=[A-Z]|\S+ was false)", "", text)
    return " ".join(text.split())


LOADER = LoaderSpec("onnxruntime", onnxruntime_sdk.entries, onnxruntime_sdk.library_path)

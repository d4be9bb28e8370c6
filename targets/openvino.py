"""OpenVINO: the artifact is its IR, `model.xml` with the weights in `model.bin`.

The IR is independent of the device: the device is named when it is loaded, and building needs
none. Where the target's device is absent, the artifact runs, and so is verified, on the CPU, and
the manifest's notes say so (`verified_on`).

fp16 is written into the graph, and the weights of what stays in float32 are stored in float16 too:
half the size. A GPU, told to keep the accuracy of the graph (`EXECUTION_MODE_HINT`), then computes
in the types that are written; its default is float16 for everything, whatever would overflow. A
CPU is told to compute in float32 (`INFERENCE_PRECISION_HINT`): it has no float16 arithmetic, and
its default is bfloat16 where it has that. (ultraface slim-320 against ONNX Runtime: float32
149 dB, fp16 74 dB, bfloat16 62 dB.)

bf16 is that default, on purpose: an IR with weights in float16, and a CPU that is told to compute
in bfloat16 where it can (AVX512_BF16, AMX), else in float32. One thread of a Zen 5, fp32 -> bf16:
ResNet-50 47 -> 24 ms, densenet121 35 -> 18 ms, ShuffleNet 6.2 -> 3.7 ms. A graph written in
bfloat16 is no faster, and less exact: it rounds what the plugin keeps in float32 (densenet121
88 dB against 47 dB).
int8-dynamic stores weights in int8; the CPU plugin rounds what they are multiplied with by itself,
in groups of 128, which the IR tells it (`runtime_options`): 13 ms, where its default of 32 takes
15.6 and float32 25 (`targets/dynamic.py`).
The CPU plugin computes int64, uint64 and uint32 in 32 bits and saturates there.

Source: openvino 2026.4 Python API: Core.read_model, save_model, query_model; IR version 11.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.request import Precision
from infc.signature import TensorSpec
from infc.targets import (
    Artifact,
    BackEndError,
    BuildJob,
    LoaderSpec,
    RunJob,
    Target,
    Unsupported,
    Worker,
    openvino_sdk,
    schemes,
)
from infc.targets.arithmetic import Arithmetic
from infc.targets.dynamic import Dynamic
from infc.targets.openvino_slices import keep_sliced

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.targets import Runner, Tensors

NAME = "openvino"
SUMMARY = "OpenVINO: IR for Intel CPUs, GPUs and NPUs"
EXTRA = "openvino"
DISTRIBUTIONS = ("openvino",)
MODULES = ("openvino",)
OPTIONS: Mapping[str, str] = {}
PRECISIONS = (
    *(Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8, Precision.INT8_DYNAMIC),
)
ARITHMETIC = {
    Precision.FP16: Arithmetic(converts=True, stores="float16"),
    Precision.BF16: Arithmetic(converts=False, stores="float16"),
}
DYNAMIC = Dynamic("weights")
DYNAMIC_GROUP = 128
"""Elements of a row that are rounded with one scale at int8-dynamic."""
MIN_OPSET = 7
SCHEME = schemes.OPENVINO
THREADS = (1,)

NO_RULE = "OpenVINO has no conversion rule for it"


def worker(target: Target) -> Worker:
    """Any environment that has the package.

    Its own importers of models and their telemetry, two fifths of the time it takes to start, are
    optional, and left out.
    """
    return Worker(target.toolchain, without=("openvino.tools.ovc",))


def require_options(target: Target) -> None:
    """Nothing: it has none."""


def legalize(model: ir.Model, target: Target) -> None:
    """Nothing: OpenVINO's frontend takes the neutral graph, and fuses Conv and activation."""


def check(model: Path, target: Target) -> Sequence[Unsupported]:
    """Convert the model; where that fails, find every node that is to blame.

    Raises:
        BackEndError: no single node is to blame.
    """
    import onnx

    from infc.targets import one_node

    try:
        _read(model)
    except BackEndError as error:
        unknown, failed = _unconverted(str(error.__cause__))
    else:
        return ()
    found = []
    whole = onnx.load(model, load_external_data=False)
    rows = {u.node: u for u in one_node.refused(model, _reason, only=failed)}
    for node, _, _ in one_node.nodes(whole):
        row = one_node.unsupported(node, NO_RULE)
        if one_node.full_name(node) in unknown:
            found.append(row)
        elif row.node in rows:
            found.append(rows[row.node])
    if not found:
        _read(model)
    return found


def _unconverted(message: str) -> tuple[frozenset[str], frozenset[str]]:
    """The operators without a rule, and those whose rule failed, of the frontend's summary."""

    def listed(line: str) -> frozenset[str]:
        match = re.search(rf"^-- {line}: (.*)$", message, re.MULTILINE)
        names = match[1].split(", ") if match else []
        return frozenset(re.sub(r"-\d+$", "", name.strip()) for name in names)

    return (
        listed("No conversion rule found for operations"),
        listed("Conversion is failed for"),
    )


def _reason(model: bytes) -> str:
    try:
        _read(model)
    except BackEndError as error:
        return str(error)
    return ""


def build(job: BuildJob) -> Artifact:
    """Convert, apply the bounds of dynamic dimensions, and write the IR."""
    import openvino

    network = _read(job.model)
    keep_sliced(network)
    shapes = {spec.name: shape for spec in job.inputs if (shape := _bounded(spec)) is not None}
    try:
        if shapes:
            network.reshape(shapes)
        if job.target.precision is Precision.INT8_DYNAMIC:
            # In the IR: whoever compiles it needs to say nothing.
            key = ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"]
            network.set_rt_info(str(DYNAMIC_GROUP), key)
        # The types are those of the graph: OpenVINO's own compression clips what is too large.
        openvino.save_model(network, job.output / "model.xml", compress_to_fp16=False)
    except RuntimeError as error:
        raise BackEndError(message_of(error)) from error
    notes = {}
    present = _device(openvino.Core(), job.target)
    if present != job.target.device:
        notes["verified_on"] = present
    return Artifact("model.xml", ("model.xml", "model.bin"), notes)


def _bounded(spec: TensorSpec) -> Any:
    """The PartialShape of an input some of whose dimensions have bounds, else None."""
    import openvino

    if not spec.bounds or spec.shape is None:
        return None
    dims = []
    for dim in spec.shape:
        low, _, high = spec.bounds.get(str(dim), (0, 0, -1))
        dims.append(dim if isinstance(dim, int) else openvino.Dimension(low, high))
    return openvino.PartialShape(dims)


def open(job: RunJob) -> Runner:
    """Compile the IR for the target's device, for the CPU where that device is absent."""
    import openvino

    core = openvino.Core()
    present = _device(core, job.target)
    # AUTO and HETERO pass neither on to the CPU.
    core.set_property("CPU", {"INFERENCE_PRECISION_HINT": _cpu_precision(core, job.target)})
    if job.threads:
        core.set_property("CPU", {"INFERENCE_NUM_THREADS": job.threads})
    config = {"PERFORMANCE_HINT": "LATENCY"}
    if job.target.precision is Precision.FP32:
        config["INFERENCE_PRECISION_HINT"] = "f32"
    elif job.target.precision is Precision.FP16 and present.startswith("GPU"):
        config["EXECUTION_MODE_HINT"] = "ACCURACY"
    try:
        compiled = core.compile_model(str(job.entry), present, config)
        request = compiled.create_infer_request()
        # By position: the CPU plugin merges the names of outputs that are one constant.
        ports = dict(zip(job.outputs, compiled.outputs, strict=True))
    except RuntimeError as error:
        raise BackEndError(message_of(error)) from error

    def run(feeds: Tensors) -> dict[str, Any]:
        try:
            for name, array in feeds.items():
                request.set_tensor(name, _tensor(array))
            request.infer()
        except RuntimeError as error:
            raise BackEndError(message_of(error)) from error
        return {name: _array(request.get_tensor(port)) for name, port in ports.items()}

    return run


def device(target: Target) -> str:
    """The target's, or the CPU where the target's is absent."""
    import openvino

    return _device(openvino.Core(), target)


def _cpu_precision(core: Any, target: Target) -> str:
    """What a CPU computes in: bfloat16 where that is asked for and there."""
    has = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if has and target.precision is Precision.BF16 else "f32"


def _tensor(array: Any) -> Any:
    """A copy as an OpenVINO tensor; bfloat16, which numpy has not, goes in as its 16 bits."""
    import numpy as np
    import openvino

    if array.dtype.name == "bfloat16":
        bits = np.ascontiguousarray(array).view(np.uint16)
        return openvino.Tensor(bits, array.shape, openvino.Type.bf16)
    return openvino.Tensor(np.asarray(array, order="C"), shared_memory=False)


def _array(tensor: Any) -> Any:
    """The inverse of `_tensor`."""
    import openvino

    from infc.signature import numpy_dtype

    array = tensor.data.copy()
    # OpenVINO shows bfloat16 as float16 of the same bits.
    return (
        array.view(numpy_dtype("bfloat16")) if tensor.element_type == openvino.Type.bf16 else array
    )


def _read(model: Path | bytes) -> Any:
    """The model, converted whole.

    Raises:
        BackEndError: OpenVINO refuses it; the cause is its own error.
    """
    import openvino

    try:
        return openvino.Core().read_model(model if isinstance(model, bytes) else str(model))
    except RuntimeError as error:
        raise BackEndError(message_of(error)) from error


def _device(core: Any, target: Target) -> str:
    """The target's device, or CPU where a device that it names is absent."""
    present = {name.partition(".")[0] for name in core.available_devices}
    _, _, named = target.device.rpartition(":")
    wanted = {name.partition(".")[0] for name in named.split(",")} - {"AUTO", "HETERO", "MULTI"}
    return target.device if wanted <= present else "CPU"


def message_of(error: Exception) -> str:
    """OpenVINO's message without the checks and source files it was raised from."""
    text = re.sub(r"Exception from \S+:\d+:\s*", "", str(error))
    text = re.sub(r"Check '[^\n]*?' failed at \S+?:\d+:\s*", "", text)
    text = re.sub(r"FrontEnd API failed with \w+:\s*|^Model wasn't fully converted\.\s*", "", text)
    return " ".join(text.split())


LOADER = LoaderSpec("openvino", openvino_sdk.entries, openvino_sdk.library_path)

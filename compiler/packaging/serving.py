"""What Triton's back ends take, and how what a bundle was proved with is told them.

Source: the README and the code of triton-inference-server/onnxruntime_backend, openvino_backend,
pytorch_backend and tensorrt_backend (main, August 2026).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from infc.bundle import Bundle
from infc.diagnostics import fail
from infc.request import Precision
from infc.targets import Target

DATA_TYPES = {
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "bool": "TYPE_BOOL",
}
"""infc's element types as model_config.proto names them."""

_NOT_IN_TORCH = ("bfloat16", "uint16", "uint32", "uint64")
_IN_TENSORRT = ("float32", "float16", "bfloat16", "int8", "int32", "int64", "uint8", "bool")


@dataclass(frozen=True, slots=True)
class Serving:
    """One of Triton's back ends.

    `file` is what it opens by default; `dtypes` are the element types that it takes. `kinds` are
    where instances can run, the default first. `ordinal` says that tensors go by their place:
    INPUT__0. `scalars` says whether tensors without a dimension but the batch are taken.
    `parameters` gives what the artifact was proved with, in the back end's own keys, and
    `threads` is the key for their number. `level` is the graph optimisation level.
    """

    backend: str
    platform: str
    file: str
    kinds: tuple[str, ...]
    dtypes: frozenset[str] = frozenset(DATA_TYPES)
    ordinal: bool = False
    scalars: bool = True
    threads: str = ""
    parameters: Callable[[Target, bool], Mapping[str, str]] = lambda target, batched: {}
    level: Callable[[Target, str], int] = lambda target, entry: 0


def _openvino_parameters(target: Target, batched: bool) -> Mapping[str, str]:
    """The device and the hints; the back end fixes the batch, so that smaller ones are padded."""
    found = {"PERFORMANCE_HINT": "LATENCY", "TARGET_DEVICE": target.device}
    if target.precision is Precision.BF16:
        found["HINT_BF16"] = "YES"
    return {**found, "ENABLE_BATCH_PADDING": "YES"} if batched else found


def _onnxruntime_level(target: Target, entry: str) -> int:
    """0 is all optimisations; what is saved in the format .ort had the extended ones."""
    default = "extended" if entry.endswith(".ort") else "all"
    chosen = target.options.get("graph-optimization", default)
    return {"off": 2, "basic": -1, "extended": 1}.get(chosen, 0)


SERVINGS: Mapping[str, Serving] = {
    "onnxruntime": Serving(
        "onnxruntime",
        "onnxruntime_onnx",
        "model.onnx",
        ("cpu", "gpu"),
        threads="intra_op_thread_count",
        level=_onnxruntime_level,
    ),
    "openvino": Serving(
        "openvino",
        "",
        "model.xml",
        ("cpu",),
        scalars=False,
        threads="INFERENCE_NUM_THREADS",
        parameters=_openvino_parameters,
    ),
    "torchscript": Serving(
        "pytorch",
        "pytorch_libtorch",
        "model.pt",
        ("cpu",),
        frozenset(DATA_TYPES) - frozenset(_NOT_IN_TORCH),
        ordinal=True,
        scalars=False,
        threads="INTRA_OP_THREAD_COUNT",
    ),
    "tensorrt": Serving(
        "tensorrt", "tensorrt_plan", "model.plan", ("gpu",), frozenset(_IN_TENSORRT)
    ),
}
"""infc's back ends to those of Triton. OpenVINO's reaches GPUs and NPUs from a CPU instance."""

_ABSENT = {
    "tensorrt-rtx": "Triton's TensorRT back end runs engines of TensorRT only",
    "mindspore-lite": "MindSpore Lite has a server of its own",
}


def serving_of(target: Target) -> Serving:
    """The back end of Triton's that runs artifacts for `target`.

    Raises:
        InfcError: E708 where there is none.
    """
    found = SERVINGS.get(target.back_end)
    if found is not None:
        return found
    why = _ABSENT.get(target.back_end)
    raise fail(
        "E708",
        f"Triton has no back end for `{target.back_end}` (target `{target.name}`)",
        notes=[why] if why else [],
        help="compile for a target of " + ", ".join(f"`{name}`" for name in SERVINGS),
    )


def require_types(bundle: Bundle, serving: Serving) -> None:
    """Refuse element types that the back end of Triton's does not take.

    Raises:
        InfcError: E708.
    """
    for spec in (*bundle.inputs, *bundle.outputs):
        if spec.dtype not in serving.dtypes:
            raise fail(
                "E708",
                f"`{spec.name}` of `{bundle.path}` holds {spec.dtype}, which Triton's back end "
                f"`{serving.backend}` does not take",
                help="it takes " + ", ".join(sorted(serving.dtypes)),
            )

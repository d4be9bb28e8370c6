"""The engine builder's spec as command lines of `trtexec`, which comes with TensorRT.

    spec -> {"10": "trtexec --onnx=...", "11": "trtexec --onnx=..."}

In 11.x every network is strongly typed and the options of 10.x that chose a type are gone; where
10.x builds for a DLA it chooses types itself (`infc.targets.tensorrt_builder`).

Source: `trtexec --help` of TensorRT 10.3 and 11.4; samples/common/sampleOptions.cpp.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

_VERBOSITY = {"none": "none", "names": "layer_names_only", "detailed": "detailed"}
_HARDWARE = {"ampere+": "ampere+", "same": "sameComputeCapability"}
_WEAK = {"fp16": ("--fp16",), "int8": ("--int8", "--fp16")}
"""Precision to the options of 10.x for a network that is not strongly typed."""


def lines(spec: Mapping[str, Any], graph: str, engine: str) -> dict[str, str]:
    """Major version of TensorRT to the command that builds `engine` of `graph`, for a shell."""
    common = [f"--onnx={graph}", f"--saveEngine={engine}"]
    rest = [*_shapes(spec["inputs"]), *_settings(spec), "--skipInference"]
    weak = spec.get("dla_core") is not None
    typed = _WEAK.get(spec["precision"], ()) if weak else ("--stronglyTyped",)
    return {
        "10": shlex.join(["trtexec", *common, *typed, *rest]),
        "11": shlex.join(["trtexec", *common, *rest]),
    }


def _shapes(inputs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The optimization profiles, in their order."""
    dynamic = [row for row in inputs if row.get("profiles")]
    if not dynamic:
        return []
    count = len(dynamic[0]["profiles"])
    words = []
    for i in range(count):
        words += [f"--profile={i}"] if count > 1 else []
        for at, option in enumerate(("minShapes", "optShapes", "maxShapes")):
            shapes = (f"{_name(r['name'])}:{_shape(r['profiles'][i][at])}" for r in dynamic)
            words.append(f"--{option}={','.join(shapes)}")
    return words


def _name(name: str) -> str:
    """Trtexec takes a name with a colon or a comma in quotes."""
    return f"'{name}'" if set(name) & set(":,") else name


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) if shape else "scalar"


def _settings(spec: Mapping[str, Any]) -> list[str]:
    words = ["--timingCacheFile=timing.cache"]
    if spec.get("workspace_bytes") is not None:
        words.append(f"--memPoolSize=workspace:{spec['workspace_bytes'] / (1 << 20):g}")
    if spec.get("optimization_level") is not None:
        words.append(f"--builderOptimizationLevel={spec['optimization_level']}")
    if spec.get("dla_core") is not None:
        words += [f"--useDLACore={spec['dla_core']}", "--allowGPUFallback"]
    if not spec.get("tf32"):
        words.append("--noTF32")
    if spec.get("version_compatible"):
        words.append("--versionCompatible")
    hardware = _HARDWARE.get(spec.get("hardware_compatible", "none"))
    if hardware:
        words.append(f"--hardwareCompatibilityLevel={hardware}")
    words.append(f"--profilingVerbosity={_VERBOSITY[spec.get('profiling', 'names')]}")
    return words

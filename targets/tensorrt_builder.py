"""One engine builder for TensorRT 10.x and 11.x and for TensorRT for RTX.

    network -> config -> optimization profiles -> plan

This very file runs in the workers of `tensorrt-rtx` and `tensorrt`, and on the device, out of a
deferred bundle, as `build_engine.py`. It needs the standard library of Python 3.8 and the module it
drives, which every function takes as `trt`: `tensorrt` or `tensorrt_rtx`. Enums are used by name:
their integers moved between releases.

    build(trt, spec, model_path, engine_path, timing_cache_path=None, progress=None) -> facts
    unsupported(trt, model_path) -> [(node, operator, reason), ...]
    run(trt, engine_path, feeds, spec) -> {name: (dtype, shape, bytes)}
    bench(trt, engine_path, feeds, spec, runs, warmup) -> [milliseconds, ...]
    probe() -> {"name", "compute_capability", "driver"} of the first GPU, or {"reason"}
    open_engine(trt, engine_path, spec) -> Session, which runs many times

`feeds` maps input names to (dtype, shape, bytes); bytes are little-endian, C order. Whatever goes
wrong is one `BuildError` with a message for people. `progress(phase, done, total)` is called from
TensorRT's threads.

`spec` is plain JSON; a key that is left out has the value in parentheses:

    inputs                [{"name", "dtype", "shape": [-1, 3, 224, 224],
                            "profiles": [[min, opt, max], ...], each a shape,
                            "values": [[min, opt, max], ...]}, ...]
                          dtype is infc's (`float32`); -1 is a dynamic dimension. Every input with
                          one has as many profiles as the others. `values`: of an integer input
                          that shapes are computed from, its least, typical and greatest contents
    outputs               [{"name", "dtype", "shape"}, ...]
    precision             "fp32" | "fp16" | "bf16" | "int8": for the record; the types are those
                          that are written in the graph
    compute_capabilities  ["sm86", ...], [] for the library's choice, or "current" (current)
                          tensorrt builds on the device: there it is what the device must have
    workspace_bytes       most memory a layer may use (null: the device's)
    dla_core              the DLA core to build for; the GPU runs what that cannot (null)
    version_compatible    runs on later releases of the same major version too (false)
    hardware_compatible   "none" | "ampere+" | "same" (compute capability) (none)
    profiling             "none" | "names" | "detailed": what an inspector is told of layers (names)
    optimization_level    0 to 5: how long tactics are searched for (null: the library's)
    tf32                  multiply float32 in 19 bits where the GPU has that (false)

As a program, `python3 build_engine.py --spec build.json --module tensorrt` builds; what else it
does is in `--help`. Facts go to standard output, in JSON; log and errors go to standard error. It
leaves with 0, or with 1 where it failed, or 4 where there is no GPU to do it with.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import importlib
import json
import os
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple  # noqa: UP035

DEFAULTS = {
    "compute_capabilities": "current",
    "workspace_bytes": None,
    "dla_core": None,
    "version_compatible": False,
    "hardware_compatible": "none",
    "profiling": "names",
    "optimization_level": None,
    "tf32": False,
}
HARDWARE = {"ampere+": "AMPERE_PLUS", "same": "SAME_COMPUTE_CAPABILITY"}
PROFILING = {"none": "NONE", "names": "LAYER_NAMES_ONLY", "detailed": "DETAILED"}
DTYPES = {
    "FLOAT": ("float32", 4),
    "HALF": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "INT8": ("int8", 1),
    "INT32": ("int32", 4),
    "INT64": ("int64", 8),
    "UINT8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
"""TensorRT's name of a type -> infc's, and its size in bytes."""
ONLY_IN = {"_aim": ("tensorrt_rtx",), "_weakly_typed": ("tensorrt 10",)}
"""Functions that touch what only these have; everything else exists in all of them."""
PROBE_TIMEOUT_S = 60.0
MAX_REASONS = 4
NO_GPU = 4

Tensor = Tuple[str, Tuple[int, ...], bytes]  # noqa: UP006
"""dtype, shape, contents."""
Progress = Callable[[str, int, int], None]


class BuildError(Exception):
    """TensorRT, the GPU or the spec refuses; the message is for people."""


def build(
    trt: Any,
    spec: dict[str, Any],
    model_path: str,
    engine_path: str,
    timing_cache_path: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Build the ONNX model at `model_path` into the file `engine_path`; return facts.

    The facts are `seconds`, `bytes`, `sha256`, `profiles`, `layers`, `module`, `version` and
    `timing_cache`, whether the cache was read. The cache is written back, where there is a path.

    Raises:
        BuildError: nothing is written then.
    """
    spec = dict(DEFAULTS, **spec)
    log = _log(trt)
    builder = _made(trt.Builder(log), "a builder", log)
    weak = spec["dla_core"] is not None and _has_flags(trt)
    network = _network(trt, builder, log, model_path, 0 if weak else _strongly_typed(trt))
    config = builder.create_builder_config()
    _configure(trt, builder, config, spec)
    if weak:
        _weakly_typed(trt, config)
    profiles = _add_profiles(builder, config, network, spec)
    cached = _read_cache(trt, config, timing_cache_path)
    # It must outlive the configuration.
    monitor = _monitor(trt, progress) if progress else None
    if monitor is not None:
        config.progress_monitor = monitor
    started = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    seconds = time.monotonic() - started
    if plan is None:
        raise BuildError(log.reasons() or "the engine was not built, and TensorRT does not say why")
    contents = memoryview(plan)
    _write(engine_path, contents)
    if cached is not None and timing_cache_path is not None:
        _write(timing_cache_path, memoryview(config.get_timing_cache().serialize()))
    return {
        "seconds": round(seconds, 3),
        "bytes": contents.nbytes,
        "sha256": hashlib.sha256(contents).hexdigest(),
        "profiles": profiles,
        "layers": network.num_layers,
        "module": trt.__name__,
        "version": trt.__version__,
        "timing_cache": bool(cached),
    }


def unsupported(trt: Any, model_path: str) -> list[tuple[str, str, str]]:
    """Every node that TensorRT's parser refuses: its name, its operator, and why.

    A node without a name goes by `#` and its number. Nothing that is wrong with the whole model is
    in the list: the name is "" then.

    Raises:
        BuildError: there is no parser, or the model cannot be read.
    """
    log = _log(trt)
    builder = _made(trt.Builder(log), "a builder", log)
    parser = trt.OnnxParser(builder.create_network(_strongly_typed(trt)), log)
    with _opened(model_path) as stream:
        model = stream.read()
    if parser.supports_model_v2(model, model_path):
        return []
    found = []
    for error in (parser.get_error(i) for i in range(parser.num_errors)):
        name = error.node_name() or ("#%d" % error.node() if error.node() >= 0 else "")
        found.append((name, error.node_operator(), _reason_of(error)))
    return found or [("", "", log.reasons() or "the parser does not say why")]


def _log(trt: Any) -> Any:
    """A logger that prints what matters, and remembers the errors."""
    severity = trt.ILogger.Severity
    failures = (severity.INTERNAL_ERROR, severity.ERROR)

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in failures:
                self.errors.append(message)
            if severity in failures or severity == trt.ILogger.Severity.WARNING:
                sys.stderr.write(message.rstrip() + "\n")

        def reasons(self) -> str:
            return "; ".join(dict.fromkeys(_sentence(m) for m in self.errors[-MAX_REASONS:]))

    return Log()


def _sentence(message: str) -> str:
    """An error without the function and the source file that it was raised in."""
    head, _, tail = message.strip().partition(": ")
    text = tail if tail and head.startswith(("[", "IBuilder", "INetwork", "IRuntime")) else message
    return " ".join(text.rsplit(" (In ", 1)[0].split())


def _made(made: Any, what: str, log: Any) -> Any:
    if made is None:
        raise BuildError(log.reasons() or "TensorRT made no %s" % what)
    return made


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    """The file `path` for reading.

    Raises:
        BuildError: it cannot be opened.
    """
    try:
        stream = open(path, "rb")  # noqa: PTH123, SIM115
    except OSError as error:
        raise BuildError("%s: %s" % (path, error.strerror)) from error
    with stream:
        yield stream


def _write(path: str, contents: memoryview) -> None:
    """Write the file in one rename, so that it is whole where it is there.

    Raises:
        BuildError: the disk is full, or the folder cannot be written.
    """
    partial = path + ".partial"
    try:
        with open(partial, "wb") as stream:  # noqa: PTH123
            stream.write(contents)
        os.replace(partial, path)  # noqa: PTH105
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(partial)  # noqa: PTH108
        raise BuildError("%s: %s" % (path, error.strerror)) from error

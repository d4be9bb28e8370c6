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
from typing import Any, Callable, Iterator, Tuple  # noqa: UP035

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

_LOGS: dict[str, Any] = {}
"""Module to its logger."""

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
    builder = _builder(trt, log)
    weak = spec["dla_core"] is not None and _has_flags(trt)
    network = builder.create_network(0 if weak else _strongly_typed(trt))
    # The parser holds the weights that the network refers to.
    _parser = _parse(trt, network, log, model_path)
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
        cache = config.get_timing_cache()
        _write(timing_cache_path, memoryview(cache.serialize()))
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
    builder = _builder(trt, log)
    # The parser does not keep its network alive.
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, log)
    with _opened(model_path) as stream:
        model = stream.read()
    if parser.supports_model_v2(model, model_path):
        return []
    found = []
    for error in (parser.get_error(i) for i in range(parser.num_errors)):
        name = error.node_name() or (f"#{error.node()}" if error.node() >= 0 else "")
        found.append((name, error.node_operator(), _reason_of(error)))
    return found or [("", "", log.reasons() or "the parser does not say why")]


def _log(trt: Any) -> Any:
    """A logger that prints what matters, and remembers the errors since it was last asked for.

    The library keeps the first one that it is given in a process, and ignores the others.
    """
    if trt.__name__ in _LOGS:
        _LOGS[trt.__name__].errors.clear()
        return _LOGS[trt.__name__]
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

    _LOGS[trt.__name__] = Log()
    return _LOGS[trt.__name__]


def _sentence(message: str) -> str:
    """An error without the function and the source file that it was raised in."""
    head, _, tail = message.strip().partition(": ")
    text = tail if tail and head.startswith(("[", "IBuilder", "INetwork", "IRuntime")) else message
    return " ".join(text.rsplit(" (In ", 1)[0].split())


def _builder(trt: Any, log: Any) -> Any:
    """A builder; TensorRT's needs a GPU to be made at all, and crashes without one."""
    if not _builds_ahead(trt):
        _require_gpu(trt)
    return _made(trt.Builder(log), "a builder", log)


def _builds_ahead(trt: Any) -> bool:
    """Whether engines are built for GPUs that are not here: TensorRT for RTX."""
    return hasattr(trt, "ComputeCapability")


def _require_gpu(trt: Any) -> dict[str, Any]:
    found = probe()
    if "reason" in found:
        raise NoGpu(f"{trt.__name__} builds on the GPU, and {found['reason']}")
    return found


def _made(made: Any, what: str, log: Any) -> Any:
    if made is None:
        raise BuildError(log.reasons() or f"TensorRT made no {what}")
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
        raise BuildError(f"{path}: {error.strerror}") from error
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
        raise BuildError(f"{path}: {error.strerror}") from error


def _strongly_typed(trt: Any) -> int:
    """The flag that makes the graph's types binding; later releases know no other way."""
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _has_flags(trt: Any) -> bool:
    """Whether precision can be a builder's flag: TensorRT 10, whose DLA takes no typed network."""
    return "FP16" in trt.BuilderFlag.__members__


def _weakly_typed(trt: Any, config: Any) -> None:
    config.set_flag(trt.BuilderFlag.FP16)


def _parse(trt: Any, network: Any, log: Any, model_path: str) -> Any:
    """Fill `network` from the ONNX model, whose weights may lie beside it; return the parser."""
    parser = trt.OnnxParser(network, log)
    with _opened(model_path):
        pass
    if not parser.parse_from_file(model_path):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        said = [f"{e.node_name()} ({e.node_operator()}): {_reason_of(e)}" for e in errors]
        raise BuildError("; ".join(said[:MAX_REASONS]) or log.reasons() or "no ONNX model")
    return parser


def _reason_of(error: Any) -> str:
    """What a ParserError says, without the condition of its source code that did not hold."""
    text = " ".join(error.desc().split())
    if text.startswith("Assertion failed: "):
        text = text[len("Assertion failed: ") :]
    _, quote, said = text.partition('&& "')
    if quote:
        text = said.partition('"')[0]
    elif ": " in text:
        text = text.partition(": ")[2]
    return text if text not in ("", "false") else f"the parser refuses it ({error.func()})"


def _configure(trt: Any, builder: Any, config: Any, spec: dict[str, Any]) -> None:
    """Everything of `spec` that is about the whole network."""
    _aim_at(trt, config, spec)
    config.profiling_verbosity = _member(
        trt.ProfilingVerbosity, PROFILING.get(spec["profiling"], ""), "profiling", spec
    )
    if spec["workspace_bytes"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, spec["workspace_bytes"])
    if spec["optimization_level"] is not None:
        config.builder_optimization_level = spec["optimization_level"]
    if not spec["tf32"]:
        config.clear_flag(trt.BuilderFlag.TF32)
    if spec["version_compatible"]:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if spec["hardware_compatible"] != "none":
        config.hardware_compatibility_level = _member(
            trt.HardwareCompatibilityLevel,
            HARDWARE.get(spec["hardware_compatible"], ""),
            "hardware_compatible",
            spec,
        )
    if spec["dla_core"] is not None:
        if spec["dla_core"] >= builder.num_DLA_cores:
            raise BuildError(f"there is no DLA core {spec['dla_core']} here")
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = spec["dla_core"]
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _member(enum: Any, name: str, key: str, spec: dict[str, Any]) -> Any:
    if name not in enum.__members__:
        raise BuildError(f"this TensorRT has no `{key}: {spec[key]}`")
    return enum.__members__[name]


def _aim_at(trt: Any, config: Any, spec: dict[str, Any]) -> None:
    """Choose the GPUs: any of them for TensorRT for RTX, the one that is here for TensorRT."""
    wanted = spec["compute_capabilities"]
    if _builds_ahead(trt):
        if wanted == "current":
            _require_gpu(trt)
        if wanted:
            _aim(trt, config, ["CURRENT"] if wanted == "current" else wanted)
        return
    found = _require_gpu(trt)
    here = found["compute_capability"]
    if wanted not in ("current", []) and here not in wanted:
        aim = ", ".join(wanted)
        raise BuildError(f"this GPU, {found['name']}, is {here}; the engine is for {aim}")


def _aim(trt: Any, config: Any, wanted: list[str]) -> None:
    known = trt.ComputeCapability.__members__
    config.num_compute_capabilities = len(wanted)
    for i, name in enumerate(wanted):
        if name.upper() not in known or not config.set_compute_capability(known[name.upper()], i):
            raise BuildError(f"{trt.__name__} {trt.__version__} builds nothing for {name}")


def _add_profiles(builder: Any, config: Any, network: Any, spec: dict[str, Any]) -> int:
    """Add the optimization profiles of all inputs; return how many there are."""
    given = {row["name"]: row for row in spec["inputs"]}
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    ranged = {}
    for tensor in tensors:
        ranges = _ranges(tensor, given.get(tensor.name, {}))
        if ranges is not None:
            ranged[tensor.name] = ranges
    counts = {len(ranges) for ranges in ranged.values()}
    if len(counts) > 1:
        raise BuildError("the inputs have different numbers of optimization profiles")
    count = counts.pop() if counts else 0
    held = {t.name for t in tensors if t.is_shape_tensor}
    for i in range(count):
        profile = builder.create_optimization_profile()
        for name, rows in ranged.items():
            least, typical, greatest = (tuple(shape) for shape in rows[i])
            define = profile.set_shape_input if name in held else profile.set_shape
            define(name, least, typical, greatest)
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(f"optimization profile {i} makes no sense: {ranged!r}")
    return count


def _ranges(tensor: Any, row: dict[str, Any]) -> list[Any] | None:
    """The profiles of an input; None where it needs none."""
    if tensor.is_shape_tensor:
        if not row.get("values"):
            raise BuildError(
                f"shapes are computed from what is in the input `{tensor.name}`: say what it holds "
                "at least, typically and at most"
            )
        return list(row["values"])
    if all(dim >= 0 for dim in tensor.shape):
        return None
    if not row.get("profiles"):
        raise BuildError(
            f"the input `{tensor.name}` has the shape {tuple(tensor.shape)!r}, and no range for "
            "what is dynamic in it"
        )
    return list(row["profiles"])


def _read_cache(trt: Any, config: Any, path: str | None) -> bool | None:
    """Give the config a timing cache; whether it was read, None where there is to be none."""
    if path is None:
        return None
    contents = b""
    if os.path.exists(path):  # noqa: PTH110
        with _opened(path) as stream:
            contents = stream.read()
    cache = config.create_timing_cache(contents)
    if cache is None or not config.set_timing_cache(cache, False):
        # Of another device or release: it is measured anew.
        sys.stderr.write(f"the timing cache {path} is not for this GPU and release\n")
        contents = b""
        config.set_timing_cache(config.create_timing_cache(contents), False)
    return bool(contents)


def _monitor(trt: Any, progress: Progress) -> Any:
    """An IProgressMonitor that passes on every step, with the phase that it belongs to."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps
            progress(phase, 0, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            progress(phase, step + 1, self.steps.get(phase, step + 1))
            return True

        def phase_finish(self, phase: str) -> None:
            steps = self.steps.pop(phase, 1)
            progress(phase, steps, steps)

    return Monitor()


class NoGpu(BuildError):  # noqa: N818
    """There is no GPU, or no driver for it."""


def probe() -> dict[str, Any]:
    """The first GPU, asked for in a process of its own: a driver may crash instead of answering."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", os.path.abspath(__file__), "--probe"],  # noqa: PTH100
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=PROBE_TIMEOUT_S,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout.decode())
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return {"reason": f"the CUDA driver fails: {type(error).__name__}"}
    return found


def _probe_here() -> dict[str, Any]:
    try:
        return Cuda().facts()
    except NoGpu as error:
        return {"reason": str(error)}


class Cuda:
    """The CUDA driver's library, with the context that TensorRT uses: the device's primary one.

    Source: CUDA driver API. `libcuda` comes with the driver, on Jetson too; the runtime's library
    would have to be found, and be of the right version.
    """

    MAJOR, MINOR = 75, 76

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise NoGpu("there is no CUDA driver here (libcuda.so.1)") from error
        self.device = ctypes.c_int()
        self._context = ctypes.c_void_p()
        for name, arguments in (
            ("cuInit", (0,)),
            ("cuDeviceGet", (ctypes.byref(self.device), 0)),
            ("cuDevicePrimaryCtxRetain", (ctypes.byref(self._context), self.device)),
            ("cuCtxSetCurrent", (self._context,)),
        ):
            self.call(name, *arguments, kind=NoGpu)

    def call(self, name: str, *arguments: Any, kind: type[BuildError] = BuildError) -> None:
        """Call a function of the driver.

        Raises:
            BuildError, or `kind`: it fails.
        """
        status = getattr(self._library, name)(*arguments)
        if status:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(text))
            reason = text.value.decode() if text.value else f"error {status}"
            raise kind(f"the CUDA driver's {name} fails: {reason}")

    def facts(self) -> dict[str, Any]:
        """The device's name and compute capability (`sm87`), and the driver's version."""
        name = ctypes.create_string_buffer(256)
        major, minor, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        self.call("cuDeviceGetName", name, len(name), self.device)
        self.call("cuDeviceGetAttribute", ctypes.byref(major), self.MAJOR, self.device)
        self.call("cuDeviceGetAttribute", ctypes.byref(minor), self.MINOR, self.device)
        self.call("cuDriverGetVersion", ctypes.byref(version))
        return {
            "name": name.value.decode("utf-8", "replace"),
            "compute_capability": f"sm{major.value}{minor.value}",
            "driver": f"{version.value // 1000}.{version.value % 1000 // 10}",
        }

    def allocate(self, size: int) -> int:
        """The address of `size` bytes on the device."""
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        return address.value

    def free(self, address: int) -> None:
        """Give them back."""
        self.call("cuMemFree_v2", ctypes.c_uint64(address))

    def upload(self, address: int, contents: bytes) -> None:
        """Copy to the device."""
        size = ctypes.c_size_t(len(contents))
        self.call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), contents, size)

    def download(self, address: int, size: int) -> bytes:
        """Copy from the device."""
        buffer = ctypes.create_string_buffer(max(size, 1))
        self.call("cuMemcpyDtoH_v2", buffer, ctypes.c_uint64(address), ctypes.c_size_t(size))
        return buffer.raw[:size]

    def stream(self) -> int:
        """A new stream."""
        stream = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(stream), 0)
        return stream.value or 0

    def wait(self, stream: int) -> None:
        """Until everything in the stream is done."""
        self.call("cuStreamSynchronize", ctypes.c_void_p(stream))


def open_engine(trt: Any, engine_path: str, spec: dict[str, Any]) -> Session:
    """Load an engine.

    Raises:
        NoGpu: there is none. BuildError: the engine is not for this GPU or this TensorRT.
    """
    found = probe()
    if "reason" in found:
        raise NoGpu(found["reason"])
    return Session(trt, engine_path, spec)


def run(
    trt: Any, engine_path: str, feeds: dict[str, Tensor], spec: dict[str, Any]
) -> dict[str, Tensor]:
    """Run an engine once.

    Raises:
        BuildError: as `open_engine`, and where a shape is outside every optimization profile.
    """
    return open_engine(trt, engine_path, spec).run(feeds)


def bench(
    trt: Any,
    engine_path: str,
    feeds: dict[str, Tensor],
    spec: dict[str, Any],
    runs: int,
    warmup: int,
) -> list[float]:
    """The milliseconds of each of `runs` runs after `warmup`, copies of the tensors included."""
    session = open_engine(trt, engine_path, spec)
    times_ms = []
    for _ in range(warmup + runs):
        started = time.perf_counter()
        session.run(feeds)
        times_ms.append((time.perf_counter() - started) * 1e3)
    return times_ms[warmup:]


class Session:
    """An engine on the GPU."""

    def __init__(self, trt: Any, engine_path: str, spec: dict[str, Any]) -> None:
        self._trt = trt
        self._log = _log(trt)
        self._cuda = Cuda()
        runtime = _made(trt.Runtime(self._log), "a runtime", self._log)
        if spec.get("version_compatible"):
            runtime.engine_host_code_allowed = True
        with _opened(engine_path) as stream:
            engine = runtime.deserialize_cuda_engine(stream.read())
        self._runtime = runtime
        self._engine = _made(engine, f"an engine of {engine_path}", self._log)
        context = self._engine.create_execution_context()
        self._context = _made(context, "an execution context", self._log)
        self._stream = self._cuda.stream()

    def run(self, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run once; the answers are complete when it returns."""
        engine, context, trt = self._engine, self._context, self._trt
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        fed = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        missing = [n for n in fed if n not in feeds]
        if missing:
            raise BuildError(f"no values for the input `{missing[0]}`")
        if engine.num_optimization_profiles > 1:
            profile = self._profile_for(fed, feeds)
            context.set_optimization_profile_async(profile, self._stream)
        addresses, hosted = [], []
        allocators = {}
        try:
            for name in fed:
                dtype, shape, contents = feeds[name]
                self._require_type(name, dtype)
                if engine.is_shape_inference_io(name):
                    buffer = ctypes.create_string_buffer(contents, max(len(contents), 1))
                    hosted.append(buffer)
                    address = ctypes.addressof(buffer)
                else:
                    address = self._cuda.allocate(len(contents))
                    addresses.append(address)
                    self._cuda.upload(address, contents)
                if not context.set_input_shape(name, tuple(shape)):
                    raise BuildError(self._log.reasons() or f"`{name}` may not be {shape!r}")
                context.set_tensor_address(name, address)
            for name in (n for n in names if n not in fed):
                allocators[name] = _allocator(trt, self._cuda)
                context.set_output_allocator(name, allocators[name])
            if not context.execute_async_v3(self._stream):
                raise BuildError(self._log.reasons() or "the engine does not run")
            self._cuda.wait(self._stream)
            return {name: self._answer(name, row) for name, row in allocators.items()}
        finally:
            for address in (*addresses, *(row.address for row in allocators.values())):
                if address:
                    self._cuda.free(address)

    def _profile_for(self, fed: list[str], feeds: dict[str, Tensor]) -> int:
        """The first optimization profile that takes these shapes."""
        engine = self._engine
        for i in range(engine.num_optimization_profiles):
            ranges = ((engine.get_tensor_profile_shape(name, i), feeds[name][1]) for name in fed)
            if all(
                all(
                    low <= dim <= high
                    for low, dim, high in zip(least, shape, greatest)  # noqa: B905
                )
                for (least, _, greatest), shape in ranges
            ):
                return i
        shapes = ", ".join(f"{name} {tuple(feeds[name][1])!r}" for name in fed)
        raise BuildError(f"no optimization profile takes {shapes}")

    def _require_type(self, name: str, dtype: str) -> None:
        wanted = DTYPES[self._engine.get_tensor_dtype(name).name][0]
        if wanted != dtype:
            raise BuildError(f"the engine's input `{name}` is {wanted}, not {dtype}")

    def _answer(self, name: str, row: Any) -> Tensor:
        dtype, size = DTYPES[self._engine.get_tensor_dtype(name).name]
        count = 1
        for dim in row.shape:
            count *= dim
        return dtype, row.shape, self._cuda.download(row.address, count * size)


def _allocator(trt: Any, cuda: Cuda) -> Any:
    """Memory for one output: how much may be known only once it is computed."""

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.address = 0
            self.shape: tuple[int, ...] = ()
            self._size = 0

        def reallocate_output_async(
            self, name: str, memory: int, size: int, alignment: int, stream: int
        ) -> int:
            if size > self._size or not self.address:
                if self.address:
                    cuda.free(self.address)
                self.address, self._size = cuda.allocate(size), size
            return self.address

        def notify_shape(self, name: str, shape: Any) -> None:
            self.shape = tuple(shape)

    return Allocator()


def read_tensors(folder: str) -> dict[str, Tensor]:
    """Read a tensor folder of a bundle (`reference/0/inputs`)."""
    with _opened(os.path.join(folder, "tensors.json")) as stream:  # noqa: PTH118
        rows = json.loads(stream.read().decode())
    found = {}
    for row in rows:
        with _opened(os.path.join(folder, row["file"])) as stream:  # noqa: PTH118
            found[row["name"]] = (row["dtype"], tuple(row["shape"]), stream.read())
    return found


def write_tensors(folder: str, tensors: dict[str, Tensor]) -> None:
    """Write the new tensor folder `folder`."""
    os.makedirs(folder)  # noqa: PTH103
    rows = []
    for i, (name, (dtype, shape, contents)) in enumerate(tensors.items()):
        _write(os.path.join(folder, f"{i}.bin"), memoryview(contents))  # noqa: PTH118
        rows.append({"name": name, "dtype": dtype, "shape": list(shape), "file": f"{i}.bin"})
    text = json.dumps(rows, indent=1) + "\n"
    _write(os.path.join(folder, "tensors.json"), memoryview(text.encode()))  # noqa: PTH118


def main(arguments: list[str] | None = None) -> int:
    """The program; see the top of this file."""
    command = argparse.ArgumentParser(description="Build a TensorRT engine, or run one.")
    command.add_argument("--spec", default="build.json", help="what to build (build.json)")
    command.add_argument("--module", default="tensorrt", help="tensorrt, or tensorrt_rtx")
    command.add_argument("--model", default="model.onnx", help="the ONNX model (model.onnx)")
    command.add_argument("--engine", default="model.engine", help="the engine (model.engine)")
    command.add_argument("--timing-cache", help="read and written where it is given")
    command.add_argument("--check", action="store_true", help="name the nodes that are not taken")
    command.add_argument("--run", metavar="FOLDER", help="run the engine on this tensor folder")
    command.add_argument("--outputs", metavar="FOLDER", help="the new folder of the answers")
    command.add_argument("--probe", action="store_true", help="say which GPU is here")
    given = command.parse_args(arguments)
    if given.probe:
        print(json.dumps(_probe_here()))  # noqa: T201
        return 0
    try:
        print(json.dumps(_do(given)))  # noqa: T201
    except NoGpu as error:
        sys.stderr.write(f"error: {error}\n")
        return NO_GPU
    except BuildError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _do(given: argparse.Namespace) -> Any:
    with _opened(given.spec) as stream:
        try:
            spec = json.loads(stream.read().decode())
        except ValueError as error:
            raise BuildError(f"{given.spec}: {error}") from error
    try:
        trt = importlib.import_module(given.module)
    except ImportError as error:
        raise BuildError(f"{given.module}: {error}") from error
    if given.check:
        return [list(row) for row in unsupported(trt, given.model)]
    if given.run:
        answers = run(trt, given.engine, read_tensors(given.run), spec)
        if given.outputs:
            write_tensors(given.outputs, answers)
        return {name: [dtype, list(shape)] for name, (dtype, shape, _) in answers.items()}
    shown: list[str] = []

    def progress(phase: str, done: int, total: int) -> None:
        if not shown or shown[-1] != phase:
            shown.append(phase)
            sys.stderr.write(f"{phase}\n")

    return build(trt, spec, given.model, given.engine, given.timing_cache, progress)


if __name__ == "__main__":
    sys.exit(main())

"""The worker of MindSpore Lite: converts, runs and times, in its own environment.

Run by `infc.workers.protocol`, in the syntax of Python 3.7, with no more than the standard library,
numpy and mindspore_lite 2.0.0. A converter that reports success has proved nothing: whoever asked
for the build runs its result, in another process, and compares.

Source: MindSpore Lite 2.0 Python API (mindspore_lite.Converter, Model, Context).
"""

import json
import os
import re
import statistics
import sys
import time
from typing import Any, Callable, Dict, List, Mapping, Tuple  # noqa: UP035

import numpy as np

# ruff: noqa: B904, B905, UP006, PTH103, PTH109, PTH113, PTH118, PTH123
Tensors = Dict[str, Any]
Runner = Callable[[Tensors], Tensors]

ARTIFACT = "model.ms"
SECOND_RUN = "INFC_MINDSPORE_LITE_PRELOADED"
"""Set in a process that has been started again with the converter's library preloaded."""
INT32 = (-(2**31), 2**31 - 1)


class BackEndError(Exception):
    """The converter or the runtime refused; the protocol knows it by its name."""


def build(payload: Mapping[str, Any]) -> Dict[str, Any]:
    """Convert the ONNX file `payload["model"]` to `model.ms` in the folder `payload["output"]`.

    `payload["calibration"]` lists the tensor folders of the samples, for int8.
    """
    if payload.get("calibration"):
        _preload_converter()
    import mindspore_lite as mslite

    os.makedirs(payload["output"], exist_ok=True)
    converter = mslite.Converter()
    converter.save_type = mslite.ModelType.MINDIR_LITE
    # Otherwise the artifact wants its inputs in NHWC, and its runtime says NCHW all the same.
    converter.input_format = mslite.Format.NCHW
    converter.weight_fp16 = payload["target"]["precision"] == "fp16"
    if _on_ascend(payload):
        converter.optimize = "ascend_oriented"
    for section, values in quantization(payload).items():
        converter.set_config_info(section, values)
    stem = os.path.join(payload["output"], "model")
    with _Captured() as said:
        try:
            converter.convert(mslite.FmkType.ONNX, payload["model"], stem)
        except RuntimeError as error:
            raise BackEndError(_reason(said.text(), str(error)))
    artifact = os.path.join(payload["output"], ARTIFACT)
    if not os.path.isfile(artifact):
        raise BackEndError(_reason(said.text(), "the converter wrote no file"))
    os.chmod(artifact, 0o644)  # noqa: PTH101
    notes = dict({"verified_on": device(payload)}, **quantized(payload))
    return {"entry": ARTIFACT, "files": [ARTIFACT], "notes": notes}


def run(payload: Mapping[str, Any]) -> Dict[str, Any]:
    """Run every folder of feeds through the artifact; outputs go to the paired folder."""
    call = _open(payload)
    for feeds, outputs in payload["sets"]:
        _save(outputs, call(_load(feeds)))
    return {"ran_on": device(payload)}


def bench(payload: Mapping[str, Any]) -> Dict[str, Any]:
    """Time runs on one set of feeds, in milliseconds."""
    call, feeds = _open(payload), _load(payload["feeds"])
    for _ in range(payload["warmup"]):
        call(feeds)
    times_ms = []
    for _ in range(payload["runs"]):
        start = time.perf_counter()
        call(feeds)
        times_ms.append((time.perf_counter() - start) * 1e3)
    return {
        "runs": len(times_ms),
        "min_ms": min(times_ms),
        "median_ms": statistics.median(times_ms),
        "max_ms": max(times_ms),
        "ran_on": device(payload),
    }


ACTIONS = {"build": build, "run": run, "bench": bench}


def _on_ascend(payload: Mapping[str, Any]) -> bool:
    return bool(payload["target"]["device"] == "ASCEND")


def device(payload: Mapping[str, Any]) -> str:
    """Where artifacts are run: the CPU stands in for a phone's chips.

    What is converted for Ascend runs nowhere else (MindSpore Lite 2.0, `Converter.optimize`).
    """
    return "ASCEND" if _on_ascend(payload) else "CPU"


def quantization(payload: Mapping[str, Any]) -> Dict[str, Dict[str, str]]:
    """The sections of the converter's configuration that ask for int8; none for a float precision.

    "full" quantises weights and activations, over what the samples in `payload["calibration"]`
    span; "dynamic" the weights of MatMul, whose other input is quantised anew in every run.

    Source: MindSpore Lite 2.0, "Post Training Quantization".
    """
    if payload["target"]["precision"] != "int8":
        return {}
    if payload["target"]["options"].get("quant", "full") == "dynamic":
        return {"common_quant_param": {"quant_type": "DYNAMIC_QUANT", "bit_num": "8"}}
    names = [spec["name"] for spec in payload["inputs"]]
    for name in names:
        if ":" in name or "," in name:
            raise BackEndError(
                f"full quantisation cannot name the input `{name}`: `:` and `,` separate names in "
                "the converter's configuration"
            )
    folders = [_raw_files(i, name, payload["calibration"]) for i, name in enumerate(names)]
    return {
        "common_quant_param": {"quant_type": "FULL_QUANT", "bit_num": "8"},
        "data_preprocess_param": {
            "calibrate_path": ",".join(f"{n}:{f}" for n, f in zip(names, folders)),
            "calibrate_size": str(len(payload["calibration"])),
            "input_type": "BIN",
        },
        # On 16 photos and 8 others, SQNR of ultraface's scores and boxes: MAX_MIN 43 and 52 dB,
        # REMOVAL_OUTLIER 36 and 47, KL 16 and 33; without the correction of biases 43 and 50.
        "full_quant_param": {"activation_quant_method": "MAX_MIN", "bias_correction": "true"},
    }


def quantized(payload: Mapping[str, Any]) -> Dict[str, Any]:
    """What the manifest says about it."""
    if payload["target"]["precision"] != "int8":
        return {}
    samples = len(payload["calibration"])
    return {"quantized": {"by": "the converter", "calibration_samples": samples}}


def _raw_files(index: int, name: str, samples: List[str]) -> str:
    """A new folder with the values of an input in every sample, in the order of their names."""
    folder = os.path.join(os.getcwd(), "calibration", str(index))
    os.makedirs(folder)
    for number, sample in enumerate(samples):
        array = _load(sample)[name]
        if array.dtype == np.int64:
            array = array.astype(np.int32)
        array.tofile(os.path.join(folder, f"{number:05}.bin"))
    return folder


def _preload_converter() -> None:
    """Start this process again with the converter's library preloaded.

    FULL_QUANT runs the model inside the converter, which finds its kernels only then.
    """
    if os.environ.get(SECOND_RUN):
        return
    libraries = os.path.join(_package(), "lib")
    environment = dict(os.environ)
    environment["LD_LIBRARY_PATH"] = libraries
    environment["LD_PRELOAD"] = os.path.join(libraries, "libmindspore_converter.so")
    environment[SECOND_RUN] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, "-I", *sys.argv], environment)


def _package() -> str:
    """The folder of mindspore_lite, without importing it."""
    from importlib.util import find_spec

    spec = find_spec("mindspore_lite")
    assert spec is not None and spec.origin
    return os.path.dirname(spec.origin)  # noqa: PTH120


def _open(payload: Mapping[str, Any]) -> Runner:
    """The function that runs the artifact on `payload["threads"]` threads."""
    import mindspore_lite as mslite

    context = mslite.Context()
    context.target = ["ascend"] if _on_ascend(payload) else ["cpu"]
    context.cpu.precision_mode = "enforce_fp32"
    if payload["threads"]:
        context.cpu.thread_num = payload["threads"]

    def load() -> Tuple[Any, "_Captured"]:
        model = mslite.Model()
        with _Captured() as said:
            try:
                model.build_from_file(payload["entry"], mslite.ModelType.MINDIR_LITE, context)
            except RuntimeError as error:
                raise BackEndError(_reason(said.text(), str(error)))
        return model, said

    model, said = load()
    resized = False
    types = payload["output_types"]

    def call(feeds: Tensors) -> Tensors:
        nonlocal model, said, resized
        inputs = model.get_inputs()
        arrays = [_fitting(tensor, feeds) for tensor in inputs]
        if [list(a.shape) for a in arrays] != [list(t.shape) for t in inputs]:
            if resized and payload["threads"] != 1:
                # On several threads MatMul packs its weights for the first shapes it is told, and
                # gives wrong answers for later ones.
                model, said = load()
                inputs = model.get_inputs()
            model.resize(inputs, [list(a.shape) for a in arrays])
            resized = True
            inputs = model.get_inputs()
        for tensor, array in zip(inputs, arrays):
            tensor.set_data_from_numpy(array)
        try:
            answers = {t.name: t.get_data_to_numpy() for t in model.predict(inputs)}
        except RuntimeError as error:
            raise BackEndError(_reason(said.text(), str(error)))
        missing = [name for name in types if name not in answers]
        if missing:
            raise BackEndError(f"the artifact has no output `{missing[0]}`")
        return {name: answers[name].astype(types[name], copy=False) for name in types}

    return call


def _fitting(tensor: Any, feeds: Tensors) -> Any:
    """The feed of `tensor` in the type that the artifact takes: int64 inputs became int32."""
    import mindspore_lite as mslite

    if tensor.name not in feeds:
        raise BackEndError(f"the artifact wants an input `{tensor.name}`")
    array = feeds[tensor.name]
    if tensor.dtype == mslite.DataType.INT32 and array.dtype == np.int64:
        low, high = INT32
        if array.size and not low <= array.min() <= array.max() <= high:
            raise BackEndError(f"input `{tensor.name}` does not fit into int32")
        return array.astype(np.int32)
    return array


def _load(folder: str) -> Tensors:
    """Read a tensor folder (`infc.signature`)."""
    with open(os.path.join(folder, "tensors.json"), encoding="utf-8") as stream:
        rows = json.load(stream)
    return {
        row["name"]: np.fromfile(os.path.join(folder, row["file"]), row["dtype"]).reshape(
            row["shape"]
        )
        for row in rows
    }


def _save(folder: str, tensors: Tensors) -> None:
    """Write a tensor folder."""
    os.makedirs(folder)
    index = []
    for i, (name, array) in enumerate(tensors.items()):
        file = f"{i}.bin"
        np.ascontiguousarray(array).tofile(os.path.join(folder, file))
        row = {"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "file": file}
        index.append(row)
    with open(os.path.join(folder, "tensors.json"), "w", encoding="utf-8") as stream:
        json.dump(index, stream)


class _Captured:
    """What is written to standard error meanwhile; it reaches the log as well, at the end."""

    def __enter__(self) -> "_Captured":
        import tempfile

        sys.stderr.flush()
        self._file = tempfile.TemporaryFile()
        self._saved = os.dup(2)
        os.dup2(self._file.fileno(), 2)
        return self

    def __exit__(self, *_: object) -> None:
        os.dup2(self._saved, 2)
        os.close(self._saved)
        self._text = self._read()
        self._file.close()
        sys.stderr.write(self._text)

    def text(self) -> str:
        return self._text if self._file.closed else self._read()

    def _read(self) -> str:
        self._file.seek(0)
        return self._file.read().decode("utf-8", "replace")


_NOISE = re.compile(r"^\[(?:ERROR|WARNING|INFO)\][^\]]*?\[[^\]]*\] \w+\] ")


def _reason(log: str, otherwise: str) -> str:
    """The first error in MindSpore Lite's log, which is the cause; the last is a return code."""
    found: List[Tuple[str, str]] = []
    for line in log.splitlines():
        if line.startswith("[ERROR]"):
            found.append((line, _NOISE.sub("", line)))
    return found[0][1] if found else otherwise

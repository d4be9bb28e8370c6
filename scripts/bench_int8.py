"""`scripts/bench int8`: what INT8 costs in accuracy and saves in time, infc's and its peers'.

Accuracy, on the models and data of `int8_subjects.py`, in ONNX Runtime and in OpenVINO:

    infc METHOD   `infc.quantize` with the scheme of the runtime
    ort METHOD    onnxruntime.quantization: static, Q/DQ, per channel, uint8 activations, int8
                  weights, after its own quant_pre_process; ONNX Runtime only
    nncf PRESET   nncf.quantize on ONNX

The peers get infc's optimised graph at opset 17: neither folds BatchNorm where weights are also
inputs, and both want opset 13 for weights per channel; NNCF the source model at opset 17 where it
refuses that (an empty name, which stands for an input left out). Every tool runs in a process of
its own and takes the same samples. Of each output the SQNR in dB against the float model; and the
subject's own figures, in percent. With `--seeds N` all of it N times, on other samples: the means,
and their standard errors.

Latency, with `--latency`: all tools' graphs compiled by infc, Q/DQ kept as it came, run through the
C++ loader on one thread; the bundles take turns, least and median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench_int8_latency
import int8_subjects
import numpy as np
from int8_subjects import ROOT, SUBJECTS, Array, Outputs, Subject

METHODS = ("minmax", "percentile", "entropy", "mse", "average")
PEERS = ("ort MinMax", "ort Percentile", "ort Entropy", "nncf performance", "nncf mixed")
INFC = """
import infc
for method in words:
    for scheme in ("onnxruntime", "openvino"):
        infc.quantize(f"{folder}/source.onnx", f"{folder}/infc {method} {scheme}.onnx", scheme,
            infc.CalibrationOptions(f"{folder}/calibrate.npz", samples=None, method=method),
            verify=False)
"""
OPTIMIZED = """
import infc, onnx
from onnx.version_converter import convert_version
infc.optimize(f"{folder}/source.onnx", f"{folder}/optimized.onnx", verify=False)
for name, raised in ("optimized", "float"), ("source", "source-17"):
    model = onnx.load(f"{folder}/{name}.onnx")
    model = convert_version(model, 17) if model.opset_import[0].version < 17 else model
    model.ir_version = max(model.ir_version, 8)
    onnx.save(model, f"{folder}/{raised}.onnx")
"""
SAMPLES = """
import numpy as np
with np.load(f"{folder}/calibrate.npz") as arrays:
    data = {name: arrays[name] for name in arrays.files}
count = len(next(iter(data.values())))
feeds = [{name: rows[i:i + 1] for name, rows in data.items()} for i in range(count)]
"""
ORT = """
from onnxruntime.quantization import (CalibrationDataReader, CalibrationMethod, QuantFormat,
    QuantType, quantize_static)
from onnxruntime.quantization.shape_inference import quant_pre_process
class Reader(CalibrationDataReader):
    rest = iter(feeds)
    def get_next(self):
        return next(self.rest, None)
prepared = f"{folder}/prepared.onnx"
quant_pre_process(f"{folder}/float.onnx", prepared)
quantize_static(prepared, f"{folder}/ort {words[0]}.onnx", Reader(), QuantFormat.QDQ,
    per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    calibrate_method=getattr(CalibrationMethod, words[0]))
"""
NNCF = """
import nncf, onnx
def quantized(name):
    return nncf.quantize(onnx.load(f"{folder}/{name}.onnx"), nncf.Dataset(feeds),
        preset=nncf.QuantizationPreset(words[0]), subset_size=count)
try:
    model = quantized("float")
except nncf.ValidationError:
    model = quantized("source-17")
onnx.save(model, f"{folder}/nncf {words[0]}.onnx")
"""
PROGRAMS = {"ort": SAMPLES + ORT, "nncf": SAMPLES + NNCF}


def child(program: str, folder: Path, *words: str) -> str:
    """Run a tool; the last line of what it said where it failed, else nothing."""
    head = "import sys\nfolder, *words = sys.argv[1:]\n"
    done = subprocess.run(
        [sys.executable, "-c", head + program, str(folder), *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    lines = (done.stdout + done.stderr).strip().splitlines()
    return "" if done.returncode == 0 else (lines or [f"exit {done.returncode}"])[-1]


def make(subject: Subject, folder: Path, tools: list[str]) -> dict[str, str]:
    """Every tool's graphs in `folder`; why there is none, by tool."""
    (folder / "source.onnx").write_bytes(subject.path.read_bytes())
    np.savez(folder / "calibrate.npz", **subject.calibrate)  # type: ignore[arg-type]
    ours = [tool.split()[1] for tool in tools if tool.startswith("infc")]
    failed = {"infc": child(INFC, folder, *ours)} if ours else {}
    theirs = [tool for tool in tools if not tool.startswith("infc")]
    if theirs and (why := child(OPTIMIZED, folder)):
        raise RuntimeError(why)
    for tool in theirs:
        name, word = tool.split()
        failed[tool] = child(PROGRAMS[name], folder, word)
    return {tool: why for tool, why in failed.items() if why}


def in_openvino(path: Path, data: dict[str, Array]) -> Outputs:
    """The outputs for every row of `data`, in OpenVINO on one thread."""
    import openvino as ov

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = ov.Core().compile_model(path, "CPU", settings)
    request = compiled.create_infer_request()
    results = (request.infer(feed) for feed in int8_subjects.feeds(data))
    return int8_subjects.stacked([[np.array(r[o]) for o in compiled.outputs] for r in results])


RUNTIMES = {"onnxruntime": int8_subjects.run, "openvino": in_openvino}


def sqnr_db(reference: Array, found: Array) -> float:
    """10 log10 of signal over error, both summed over all samples."""
    exact = reference.astype(np.float64)
    noise = float(((found.astype(np.float64) - exact) ** 2).sum())
    return 10 * math.log10(float((exact**2).sum()) / noise) if noise else math.inf


def figures(subject: Subject, reference: Outputs, found: Outputs) -> dict[str, Any]:
    """The SQNR of each output, and what the subject is judged by."""
    pairs = zip(reference, found, strict=True)
    out: dict[str, Any] = {"sqnr_db": [round(sqnr_db(a, b), 2) for a, b in pairs]}
    if subject.judge:
        out |= {k: round(v, 2) for k, v in subject.judge(reference, found).items()}
    return out


def accuracy(subject: Subject, folder: Path, tools: list[str]) -> dict[str, Any]:
    """Figures by runtime and tool."""
    failed = make(subject, folder, tools)
    reference = int8_subjects.run(subject.path, subject.test, plain=True)
    table: dict[str, Any] = {}
    for runtime, run in RUNTIMES.items():
        rows = table[runtime] = {"float": figures(subject, reference, reference)}
        for tool in tools:
            name = f"{tool} {runtime}" if tool.startswith("infc") else tool
            if tool.startswith("ort") and runtime != "onnxruntime":
                continue
            path = folder / f"{name}.onnx"
            if not path.is_file():
                rows[tool] = {"error": failed.get(tool) or failed.get("infc", "no graph")}
                continue
            try:
                rows[tool] = figures(subject, reference, run(path, subject.test))
            except Exception as error:
                rows[tool] = {"error": str(error).strip().splitlines()[-1]}
    return table


def over_seeds(tables: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all seeds by runtime, tool and name: (seeds, values of the name).

    Where a tool failed for one of them, what it said.
    """
    out: dict[str, Any] = {}
    for runtime, rows in tables[0].items():
        of_runtime = out[runtime] = {}
        for tool, row in rows.items():
            all_ = [table[runtime][tool] for table in tables]
            errors = [r["error"] for r in all_ if "error" in r]
            of_runtime[tool] = (
                {"error": errors[0]}
                if errors
                else {what: np.array([np.atleast_1d(r[what]) for r in all_]) for what in row}
            )
    return out


def standard_error(values: Array) -> Array:
    """That of the mean over the first axis; 0 for one value."""
    count = len(values)
    if count == 1 or not np.isfinite(values).all():  # an exact output is infinitely good
        return np.zeros(values.shape[1:])
    return np.asarray(values.std(axis=0, ddof=1) / math.sqrt(count))


def behind(name: str, table: dict[str, Any]) -> list[str]:
    """Where infc's default method loses more than a peer does, of figures `over_seeds`.

    With several seeds a difference counts beyond twice its standard error: both tools had the same
    samples. What INT8 gains on the float model is luck, and nobody's merit.
    """
    import infc

    faults = []
    for runtime, rows in table.items():
        ours = rows.get(f"infc {infc.CalibrationOptions('data').method}")
        if ours is None:
            continue
        if "error" in ours:
            faults.append(f"{name} in {runtime}: {ours['error']}")
            continue
        for tool, theirs in rows.items():
            if tool not in PEERS or "error" in theirs:
                continue
            for what in ours:
                gap = ours[what] - np.minimum(theirs[what], rows["float"][what])
                error = standard_error(gap)
                if (gap.mean(axis=0) < -2 * error).any():
                    figures = f"{gap.mean(axis=0).round(2).tolist()} +- {error.round(2).tolist()}"
                    faults.append(f"{name} in {runtime}: {what} to {tool}: {figures}")
    return faults


def show(name: str, table: dict[str, Any]) -> None:
    """The table of one subject, of figures `over_seeds`: the mean, and its standard error."""
    for runtime, rows in table.items():
        print(f"{name} in {runtime}")
        for tool, row in rows.items():
            print(
                f"  {tool:18} {'   '.join(f'{w} {_words(v)}' for w, v in row.items())}", flush=True
            )


def _words(values: Any) -> str:
    if isinstance(values, str):
        return values
    pairs = zip(values.mean(axis=0), standard_error(values), strict=True)
    return ", ".join(f"{m:.2f}" + (f" +- {e:.2f}" if len(values) > 1 else "") for m, e in pairs)


def main() -> int:
    """Print the tables; exit 1 where infc's default is behind a peer."""
    parser = argparse.ArgumentParser(prog="scripts/bench int8", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="MODEL", help=", ".join(SUBJECTS))
    tools = [*(f"infc {m}" for m in METHODS), *PEERS]
    parser.add_argument("--tools", default=",".join(tools), help="comma-separated subset")
    parser.add_argument("--seeds", type=int, default=1, help="so many draws of the data")
    parser.add_argument("--latency", action="store_true", help="latency instead of accuracy")
    parser.add_argument("--rounds", type=int, default=5, help="of --latency")
    parser.add_argument("--keep", type=Path, help="folder in which the graphs are left")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    models = Path(os.environ.get("INFC_MODELS", ROOT.parent / "shared" / "models"))
    tables, faults = {}, []
    with tempfile.TemporaryDirectory() as scratch:
        kept = (options.keep or Path(scratch)).resolve()
        if options.latency:
            return bench_int8_latency.main(models, kept, options)
        for name in options.subjects or SUBJECTS:
            chosen = [tool for tool in tools if tool in options.tools.split(",")]
            tables[name] = []
            for seed in range(options.seeds):
                folder = kept / (f"{name} {seed}" if seed else name)
                folder.mkdir(parents=True, exist_ok=True)
                subject = SUBJECTS[name](models, folder, seed)
                tables[name].append(accuracy(subject, folder, chosen))
            table = over_seeds(tables[name])
            faults += behind(name, table)
            if not options.json:
                show(name, table)
    if options.json:
        print(json.dumps({"subjects": tables, "behind": faults}, indent=2))
    else:
        print("\n".join(faults) or "infc's default is ahead on every figure")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

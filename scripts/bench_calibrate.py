"""`scripts/bench calibrate`: time and memory of calibrating a ResNet-50-shaped model.

The model has the shape of ResNet-50 v1.5 with BatchNorm folded, random weights and inputs of
1x3x224x224. Each row is one process that makes its own samples, from start to exit:

    forward         ONNX Runtime runs the float model on every sample, as people write that loop
    infc METHOD     measure every tensor that infc quantises, choose every range by METHOD
    ort METHOD      onnxruntime.quantization's calibrator, without the quantisation after it
    nncf            nncf.quantize on ONNX, which cannot be stopped after calibration

Reported: median wall seconds of the whole process, CPU seconds, peak resident memory of the
process and its children together (sampled every 20 ms; pages they share count twice), and the
ratio and difference to `forward` with as many samples in the same round. A peer that keeps every
activation is left out where that would take more than half of the memory there is.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SAMPLES = (32, 128, 512)
KEPT_BYTES = 113e6
"""What onnxruntime.quantization's histogram calibrators keep of one sample."""
TIME_RATIO, MEMORY_MB = 1.3, 300
"""infc's entropy against the forward loop: the goals that the exit status is about."""

DATA = """
import numpy as np
def samples(count=None):
    number = 0
    while count is None or number < count:
        rng = np.random.default_rng(number)
        yield {"x": rng.standard_normal((1, 3, 224, 224), np.float32)}
        number += 1
"""
FORWARD = """
import onnxruntime
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
for feed in samples(count):
    session.run(None, feed)
"""
INFC = """
from pathlib import Path
from infc.calibration import calibrate
from infc.calibration.data import open_samples
from infc.passes.quantization import observed
from infc.request import CalibrationOptions, WorkerLimits
from infc.signature import TensorSpec
from infc.targets.schemes import ONNXRUNTIME
import onnx_ir as ir
graph = ir.load(model)
names = observed(graph, ONNXRUNTIME)
assert len(names) > 50
options = CalibrationOptions(f"{data}:samples", samples=count)
found = open_samples(options, (TensorSpec("x", "float32", (1, 3, 224, 224)),))
done = calibrate(graph, names, found, Path(scratch), WorkerLimits())
assert done.ranges.samples == count
done.ranges.choose(names, method, 99.99, "uint8", False)
"""
ORT = """
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator
class Reader(CalibrationDataReader):
    feeds = samples(count)
    def get_next(self):
        return next(self.feeds, None)
calibrator = create_calibrator(
    model,
    ["Conv", "Gemm", "Add", "Relu", "MaxPool", "GlobalAveragePool"],
    augmented_model_path=f"{scratch}/augmented.onnx",
    calibrate_method=getattr(CalibrationMethod, method),
)
calibrator.collect_data(Reader())
calibrator.compute_data()
"""
NNCF = """
import onnx, nncf
nncf.quantize(onnx.load(model), nncf.Dataset(list(range(count)), lambda i: next(feeds)),
              subset_size=count)
"""
NNCF = f"feeds = samples(count)\n{NNCF}"
HEAD = """
import sys
model, data, scratch, count, method = *sys.argv[1:4], int(sys.argv[4]), sys.argv[5]
"""
TOOLS: dict[str, tuple[str, str]] = {
    "forward": (FORWARD, ""),
    **{f"infc {m}": (INFC, m) for m in ("minmax", "percentile", "entropy", "mse")},
    **{f"ort {m.lower()}": (ORT, m) for m in ("MinMax", "Percentile", "Entropy")},
    "nncf": (NNCF, ""),
}
KEEPS = frozenset(("ort percentile", "ort entropy"))


def write_model(path: Path) -> None:
    """ResNet-50 v1.5, BatchNorm folded: 53 convolutions, weights that keep activations in range."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights = [], []

    def weight(name: str, shape: tuple[int, ...], deviation: float) -> str:
        array = rng.standard_normal(shape, np.float32) * np.float32(deviation)
        weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(x: str, name: str, inner: int, outer: int, side: int, stride: int, gain: float) -> str:
        deviation = (gain / (inner * side * side)) ** 0.5
        w = weight(f"{name}.w", (outer, inner, side, side), deviation)
        b = weight(f"{name}.b", (outer,), 0.01)
        pads, strides = [side // 2] * 4, [stride] * 2
        nodes.append(helper.make_node("Conv", [x, w, b], [name], pads=pads, strides=strides))
        return name

    def relu(x: str) -> str:
        nodes.append(helper.make_node("Relu", [x], [f"{x}.relu"]))
        return f"{x}.relu"

    x = relu(conv("x", "stem", 3, 64, 7, 2, 2))
    square = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    nodes.append(helper.make_node("MaxPool", [x], ["pool"], **square))
    x, channels = "pool", 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        for block in range(blocks):
            name, stride = f"s{stage}.{block}", 2 if block == 0 and stage else 1
            y = relu(conv(x, f"{name}.a", channels, width, 1, 1, 2))
            y = relu(conv(y, f"{name}.b", width, width, 3, stride, 2))
            y = conv(y, f"{name}.c", width, 4 * width, 1, 1, 0.5)
            if block == 0:
                x = conv(x, f"{name}.d", channels, 4 * width, 1, stride, 1)
            nodes.append(helper.make_node("Add", [x, y], [f"{name}.add"]))
            x, channels = relu(f"{name}.add"), 4 * width
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"]))
    w, b = weight("fc.w", (1000, 2048), 0.02), weight("fc.b", (1000,), 0.01)
    nodes.append(helper.make_node("Gemm", ["flat", w, b], ["y"], transB=1))
    graph = helper.make_graph(
        nodes,
        "resnet50",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1000])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)


def measure(tool: str, model: Path, count: int) -> dict[str, Any]:
    """Run a tool once: wall and CPU seconds, peak resident bytes of its processes together."""
    program, method = TOOLS[tool]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "bench_data.py"
        data.write_text(DATA)
        words = [str(model), str(data), folder, str(count), method or "-"]
        environment = {**os.environ, "INFC_HOME": folder}
        with (Path(folder) / "log").open("wb") as log:
            start = time.perf_counter()
            child = subprocess.Popen(
                [sys.executable, "-c", f"{HEAD}{DATA}{program}", *words],
                stdout=log,
                stderr=log,
                env=environment,
                cwd=folder,
            )
            peak = watch(child)
            _, status, usage = os.wait4(child.pid, 0)
            wall = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            text = (Path(folder) / "log").read_text(errors="replace").strip()
            return {"error": (text.splitlines() or [f"exit {child.returncode}"])[-1]}
    return {
        "seconds": wall,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_rss_bytes": max(peak, usage.ru_maxrss * 1024),
    }


def watch(child: subprocess.Popen[bytes]) -> int:
    """The greatest sum of the resident sets of `child` and its descendants, until it exits."""
    import psutil

    peak, process = 0, psutil.Process(child.pid)
    while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        try:
            family = [process, *process.children(recursive=True)]
            peak = max(peak, sum(p.memory_info().rss for p in family))
        except psutil.Error:  # one of them has just left
            pass
        time.sleep(0.02)
    return peak


def bench(model: Path, tools: list[str], count: int, runs: int) -> dict[str, Any]:
    """A row for each tool: medians over `runs` rounds, in which the tools take turns."""
    import psutil

    budget = psutil.virtual_memory().available / 2
    rounds: dict[str, list[dict[str, Any]]] = {tool: [] for tool in tools}
    for _ in range(runs):
        for tool in tools:
            if tool in KEEPS and count * KEPT_BYTES > budget:
                row: dict[str, Any] = {"error": f"would keep {count * KEPT_BYTES / 1e9:.0f} GB"}
            else:
                row = measure(tool, model, count)
            rounds[tool].append(row)
    out: dict[str, Any] = {}
    for tool, rows in rounds.items():
        failed = next((r for r in rows if "error" in r), None)
        out[tool] = failed or {k: statistics.median(r[k] for r in rows) for k in rows[0]}
        if not failed and "forward" in rounds:
            pairs = zip(rows, rounds["forward"], strict=True)
            ratios = [r["seconds"] / base["seconds"] for r, base in pairs]
            out[tool]["time_ratio"] = statistics.median(ratios)
    return out


def line(tool: str, row: dict[str, Any], base: dict[str, Any] | None) -> str:
    """A row of the table."""
    if "error" in row:
        return f"  {tool:16} {row['error'][:70]}"
    megabytes = row["peak_rss_bytes"] / 1e6
    above = f"{megabytes - base['peak_rss_bytes'] / 1e6:+7.0f}" if base else ""
    ratio = f"{row['time_ratio']:6.2f}x" if "time_ratio" in row else ""
    return (
        f"  {tool:16} {row['seconds']:8.2f} {ratio} {row['cpu_seconds']:8.2f} "
        f"{megabytes:8.0f} {above}"
    )


def behind(tables: dict[int, dict[str, Any]]) -> list[str]:
    """The goals that infc's entropy misses."""
    faults, peaks = [], []
    for count, table in tables.items():
        base, ours = table.get("forward"), table.get("infc entropy")
        if not base or not ours:
            faults.append(f"{count} samples: `forward` and `infc entropy` were not both measured")
            continue
        if "error" in ours:
            faults.append(f"{count} samples: {ours['error']}")
            continue
        above = (ours["peak_rss_bytes"] - base["peak_rss_bytes"]) / 1e6
        peaks.append(ours["peak_rss_bytes"] / 1e6)
        if ours["time_ratio"] > TIME_RATIO:
            faults.append(f"{count} samples: {ours['time_ratio']:.2f} x forward's time")
        if above > MEMORY_MB:
            faults.append(f"{count} samples: {above:.0f} MB above forward's peak")
    if peaks and max(peaks) - min(peaks) > 0.1 * min(peaks):
        faults.append(f"memory grows with the samples: {min(peaks):.0f} to {max(peaks):.0f} MB")
    return faults


def main() -> int:
    """Print the table; exit 1 where infc's entropy misses a goal."""
    parser = argparse.ArgumentParser(prog="scripts/bench calibrate", description=__doc__)
    parser.add_argument("--samples", default=",".join(map(str, SAMPLES)), help="comma-separated")
    parser.add_argument("--tools", default=",".join(TOOLS), help="comma-separated subset")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    tools = options.tools.split(",")
    for tool in tools:
        if tool not in TOOLS:
            parser.error(f"there is no tool `{tool}`; there are {', '.join(TOOLS)}")
    tables: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "resnet50.onnx"
        # In a process of its own: a child's peak memory starts at that of its parent.
        program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        program += f"from bench_calibrate import *\nwrite_model(Path({str(model)!r}))"
        subprocess.run([sys.executable, "-c", program], check=True)
        for count in map(int, options.samples.split(",")):
            tables[count] = bench(model, tools, count, options.runs)
            if not options.json:
                print(f"{count} samples{'s':>16} {'/fwd':>7} {'CPU s':>8} {'MB':>8} {'above':>7}")
                for tool, row in tables[count].items():
                    print(line(tool, row, tables[count].get("forward")), flush=True)
    faults = behind(tables)
    if options.json:
        print(json.dumps({"runs": options.runs, "samples": tables, "behind": faults}, indent=2))
    else:
        print("; ".join(faults) or "infc entropy meets its goals")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

"""`scripts/bench int8 --latency`: INT8's time through the C++ loader, infc's and its peers'.

Every graph becomes a bundle of infc's, for ONNX Runtime and for OpenVINO: infc's own at fp32 and
int8, the peers' Q/DQ graphs at fp32, which keeps them as they came. What each runtime makes of Q/DQ
differs with where they are, and that is what is compared. Each bundle's loader is compiled once;
then the bundles take turns.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench_int8
import int8_subjects
import numpy as np
from bench_optimize import CACHE
from int8_subjects import ROOT, Subject

MODELS = ("digits", "rfb", "resnet18-opt", "mobilenetv2-opt")
TARGETS = ("onnxruntime", "openvino")
PEERS = ("ort MinMax", "nncf performance", "nncf mixed")
"""How ranges are chosen does not change how fast a graph is."""
ROUND_MS = 300.0
"""How long a round of a bundle takes, about."""
COMPILE = """
import infc
source, target, precision, out = words
data = infc.CalibrationOptions(f"{folder}/calibrate.npz") if precision == "int8" else None
infc.compile(source, target, out, name="net", precision=precision, verify=False,
    loaders=["cpp"], calibration=data)
"""


def random_subject(name: str) -> Subject:
    """A model of `bench_models.py`, and noise to calibrate it on: its weights are noise too."""
    path = CACHE / f"{name}.onnx"
    if not path.is_file():
        script = ROOT / "scripts" / "bench_models.py"
        subprocess.run([sys.executable, script, CACHE], check=True, capture_output=True)
    rows = np.random.default_rng(0).standard_normal((8, 3, 224, 224), np.float32)
    return Subject(path, {"x": rows}, {"x": rows[:1]})


def bundles(name: str, subject: Subject, folder: Path) -> dict[str, dict[str, Path]]:
    """The bundle of each tool, by target. Prints why where there is none."""
    faults = bench_int8.make(subject, folder, list(PEERS))
    table: dict[str, dict[str, Path]] = {target: {} for target in TARGETS}
    for target in TARGETS:
        wanted = {"infc fp32": ("source", "fp32"), "infc int8": ("source", "int8")}
        for tool in PEERS:
            if tool in faults:
                print(f"{name}: {tool}: {faults[tool]}", file=sys.stderr)
            elif target == "onnxruntime" or tool.startswith("nncf"):
                wanted[tool] = (tool, "fp32")
        for tool, (source, precision) in wanted.items():
            out = folder / f"bundle {tool}"
            words = (str(folder / f"{source}.onnx"), target, precision, str(out))
            why = bench_int8.child(COMPILE, folder, *words)
            if why:
                print(f"{name}: {tool} for {target}: {why}", file=sys.stderr)
            else:
                table[target][tool] = out / f"net-{target}"
    return table


def programs(found: dict[str, Path], folder: Path) -> dict[str, list[str]]:
    """The command that times each bundle that runs, without the number of runs."""
    from infc.bundle import open_bundle
    from infc.feeds import typical_feeds, write_feeds
    from infc.loaders import cpp
    from infc.request import WorkerLimits

    out = {}
    for tool, path in found.items():
        bundle = open_bundle(path)
        scratch = Path(tempfile.mkdtemp(prefix="loader-", dir=folder))
        program = cpp.build(bundle, scratch / "build", WorkerLimits())
        (inputs,) = write_feeds([typical_feeds(bundle.inputs, {})], scratch)
        words = ["--json", "--threads", "1", "--inputs", str(inputs)]
        command = [str(program), str(bundle.path), *words]
        try:
            milliseconds(command, 1)
        except subprocess.CalledProcessError as error:
            # NNCF's scales per channel of an activation are more than ONNX Runtime takes.
            print(f"{tool} for {path.name}: {error.stderr.strip()[:300]}", file=sys.stderr)
            continue
        out[tool] = command
    return out


def milliseconds(command: list[str], runs: int) -> tuple[float, float]:
    """The least and the median of so many runs."""
    words = [*command, "--runs", str(runs), "--warmup", str(max(2, runs // 10))]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    return float(answer["min_ms"]), float(answer["median_ms"])


def race(commands: dict[str, list[str]], rounds: int) -> dict[str, Any]:
    """Least of all runs, median over rounds of each one's, and both as ratios to infc's int8.

    Where others use the machine the least is the better of the two: they only ever add.
    """
    runs = {
        tool: int(np.clip(ROUND_MS / milliseconds(command, 5)[0], 5, 2000))
        for tool, command in commands.items()
    }
    times = [
        {tool: milliseconds(command, runs[tool]) for tool, command in commands.items()}
        for _ in range(rounds)
    ]
    least = {tool: min(row[tool][0] for row in times) for tool in commands}
    return {
        tool: {
            "min_ms": least[tool],
            "median_ms": statistics.median(row[tool][1] for row in times),
            "min_ratio": least[tool] / least["infc int8"],
            "median_ratio": statistics.median(row[tool][1] / row["infc int8"][1] for row in times),
        }
        for tool in commands
    }


def main(models: Path, scratch: Path, options: Any) -> int:
    """Print a table for each model; exit 1 where a peer's INT8 takes less than 0.95 of infc's."""
    tables: dict[str, Any] = {}
    faults = []
    for name in options.subjects or MODELS:
        folder = scratch / f"{name} latency"
        folder.mkdir(parents=True, exist_ok=True)
        made = int8_subjects.SUBJECTS.get(name)
        subject = made(models, folder) if made else random_subject(name)
        for target, found in bundles(name, subject, folder).items():
            rows = race(programs(found, folder), options.rounds)
            tables.setdefault(name, {})[target] = rows
            faults += [
                f"{name} in {target}: {tool} takes {row['min_ratio']:.2f} of infc's time"
                for tool, row in rows.items()
                if tool != "infc fp32" and row["min_ratio"] < 0.95
            ]
            if options.json:
                continue
            print(f"{name + ' in ' + target:32} {'least ms':>11} {'median':>9}   to infc int8")
            for tool, row in rows.items():
                figures = f"{row['min_ms']:9.3f} {row['median_ms']:9.3f}"
                ratios = f"{row['min_ratio']:8.2f}x {row['median_ratio']:6.2f}x"
                print(f"  {tool:32} {figures} {ratios}", flush=True)
    if options.json:
        print(json.dumps({"latency": tables, "behind": faults}, indent=2))
    else:
        print("\n".join(faults) or "no peer's INT8 is faster than infc's")
    return 1 if faults else 0

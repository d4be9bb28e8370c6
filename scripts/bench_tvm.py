"""`scripts/bench tvm [MODEL...]`: TVM's kernels, scheduled by rule, against ONNX Runtime.

Both through the C++ loader, in turns, at one thread and at two: the least time of all runs is the
better figure where others use the machine, as they only ever add. MODEL is a file, or one of the
shapes of `bench_models.py`; the default is those, the digits and, where it is there, ultraface.
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

import numpy as np
from bench_int8_latency import ROUND_MS, milliseconds, programs
from bench_optimize import CACHE

ROOT = Path(__file__).resolve().parent.parent
MODELS_FOLDER = Path(os.environ.get("INFC_MODELS", ROOT.parent / "shared" / "models"))
SHAPES = ("resnet18-opt", "mobilenetv2-opt", "bert-opt")
INPUTS = {"digits": {"image": "1x1x8x8"}}
"""What has to be fixed for a static plan."""
TARGETS = ("onnxruntime", "tvm")
THREADS = (1, 2)


def path_of(name: str) -> Path:
    """The file of a model by name, made where it is one that can be."""
    if name == "digits":
        return ROOT / "examples" / "digits" / "digits.onnx"
    if name == "ultraface":
        return MODELS_FOLDER / "ultraface" / "version-RFB-320.onnx"
    if name in SHAPES:
        if not (CACHE / f"{name}.onnx").is_file():
            script = ROOT / "scripts" / "bench_models.py"
            subprocess.run([sys.executable, script, CACHE], check=True, capture_output=True)
        return CACHE / f"{name}.onnx"
    return Path(name)


def compiled(
    name: str, folder: Path, tune: str | None, precision: str | None
) -> tuple[dict[str, Path], dict[str, float], dict[str, Any]]:
    """The bundle for each target, how many seconds it took, and what a tuning found."""
    import infc
    from infc.tuning_options import parse_tuning

    found, seconds, tuned = {}, {}, {}
    for label, target in ((k, k.partition("-")[0]) for k in labels(tune, precision)):
        start = time.perf_counter()
        # What others found on this machine is nobody's measurement: `off` is by rule alone.
        wanted = parse_tuning(tune if label.endswith("-tuned") else "off")
        result = infc.compile(
            path_of(name),
            target,
            folder / label,
            name="net",
            inputs=INPUTS.get(name),
            loaders=["cpp"],
            tuning=wanted if target == "tvm" else None,
            precision=precision if precision and label.endswith(precision) else None,
            calibration=infc.CalibrationOptions("random") if label.endswith("int8") else None,
            # The models of `bench_models.py` have random weights: what they answer is noise.
            verify=not (precision and label.endswith(precision)),
        )
        seconds[label] = time.perf_counter() - start
        tuned.update(result.results[0].measured.get("tuning", {}))
        found[label] = folder / label / f"net-{target}"
    return found, seconds, tuned


def labels(tune: str | None, precision: str | None) -> tuple[str, ...]:
    """What is raced: the peer first, and at `precision` where it has that."""
    more = ["tvm-tuned"] if tune else []
    more += [f"tvm-{precision}"] if precision else []
    more += ["onnxruntime-int8"] if precision == "int8" else []
    return (*TARGETS, *more)


def race(commands: dict[str, list[str]], rounds: int) -> dict[str, Any]:
    """Least and median milliseconds of each command, and their ratios to the first's."""
    runs = {k: int(np.clip(ROUND_MS / milliseconds(c, 5)[0], 5, 2000)) for k, c in commands.items()}
    times = [{k: milliseconds(c, runs[k]) for k, c in commands.items()} for _ in range(rounds)]
    peer = next(iter(commands))
    least = {k: min(row[k][0] for row in times) for k in commands}
    return {
        k: {
            "min_ms": least[k],
            "median_ms": statistics.median(row[k][1] for row in times),
            "min_ratio": least[k] / least[peer],
            "median_ratio": statistics.median(row[k][1] / row[peer][1] for row in times),
        }
        for k in commands
    }


def with_threads(command: list[str], threads: int) -> list[str]:
    """The same command on so many threads."""
    at = command.index("--threads")
    return [*command[: at + 1], str(threads), *command[at + 2 :]]


def show(name: str, threads: int, row: dict[str, Any], seconds: dict[str, float]) -> None:
    """Print a line for each artifact but the peer's."""
    peer, *rest = row
    for label in rest:
        ours = row[label]
        print(
            f"{name:18} {threads} thread{'s' if threads > 1 else ' '}  "
            f"{label} {ours['min_ms']:8.3f} ms  {peer} {row[peer]['min_ms']:8.3f} ms  "
            f"least {ours['min_ratio']:.2f}x  median {ours['median_ratio']:.2f}x  "
            f"compiled in {seconds[label]:.0f} s",
            flush=True,
        )


def main() -> int:
    """Print a line for each model and number of threads."""
    parser = argparse.ArgumentParser(prog="scripts/bench tvm")
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tune", metavar="trials=N|minutes=M", help="race a tuned artifact too")
    parser.add_argument("--precision", choices=("int8", "fp16", "bf16"), help="race it too")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = options.models or [*SHAPES, "digits", "ultraface"]
    table: dict[str, Any] = {}
    for name in names:
        if not path_of(name).is_file():
            print(f"{name}: {path_of(name)} is not there", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory(prefix="infc-bench-") as folder:
            found, seconds, tuned = compiled(name, Path(folder), options.tune, options.precision)
            commands = programs(found, Path(folder))
            rows: dict[str, Any] = {"seconds": seconds, "tuning": tuned}
            for threads in THREADS:
                row = race(
                    {k: with_threads(c, threads) for k, c in commands.items()}, options.rounds
                )
                rows[str(threads)] = row
                if not options.json:
                    show(name, threads, row, seconds)
            if tuned and not options.json:
                print(
                    f"{name:18} {tuned['trials']} trials in {tuned['seconds']:.0f} s, "
                    f"{tuned['measured']} of {tuned['kernels']} kernels: "
                    f"{tuned['rule_ms']:.3f} -> {tuned['best_ms']:.3f} ms",
                    flush=True,
                )
            table[name] = rows
    if options.json:
        print(json.dumps(table, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

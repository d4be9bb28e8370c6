"""`scripts/bench optimize`: infc against its peers, each run in a process of its own.

For every model and tool: nodes left (subgraphs and Constant nodes included), wall seconds of the
whole process, CPU seconds and peak resident memory; each the median of N runs in which the tools
take turns, so that a busy machine slows all of them alike. Ratios are against onnxslim. Node
counts marked `*` include operators of a private domain, which a neutral graph may not have.
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

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "build" / "bench-models"
BASELINE = "onnxslim"

ORT = """
import onnxruntime as ort
o = ort.SessionOptions()
o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
o.optimized_model_filepath = sys.argv[2]
o.log_severity_level = 4
ort.InferenceSession(sys.argv[1], o, providers=["CPUExecutionProvider"])
"""
PEERS = {
    "onnxsim": "import onnx, onnxsim\nonnx.save(onnxsim.simplify(sys.argv[1])[0], sys.argv[2])",
    "onnxslim": "import onnxslim\nonnxslim.slim(sys.argv[1], sys.argv[2])",
    "onnxscript": "import onnx_ir as ir, onnxscript.optimizer as o\n"
    "m = ir.load(sys.argv[1])\no.optimize_ir(m)\nir.save(m, sys.argv[2])",
    "ort-basic": ORT,
}
TOOLS = ("infc", *PEERS)


def command(tool: str, source: Path, output: Path) -> list[str]:
    """The command line of one run. The peers do not verify, so infc does not either."""
    if tool == "infc":
        infc = str(Path(sys.executable).parent / "infc")
        return [infc, "optimize", str(source), "-o", str(output), "--no-verify"]
    return [sys.executable, "-c", f"import sys\n{PEERS[tool]}", str(source), str(output)]


def measure(tool: str, source: Path) -> dict[str, Any]:
    """Run a tool once: nodes, private nodes, wall and CPU seconds, peak RSS in bytes."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "out.onnx"
        start = time.perf_counter()
        with (Path(scratch) / "log").open("wb") as log:
            child = subprocess.Popen(command(tool, source, output), stdout=log, stderr=log)
            _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode or not output.is_file():
            reason = (Path(scratch) / "log").read_text(errors="replace").strip().splitlines()
            return {"error": reason[-1] if reason else f"exit {child.returncode}"}
        total, private = count_nodes(output)
    return {
        "nodes": total,
        "private_nodes": private,
        "seconds": wall,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_rss_bytes": usage.ru_maxrss * 1024,
    }


COUNT = """
import onnx, sys
model = onnx.load(sys.argv[1], load_external_data=False)
total = private = 0
open_lists = [model.graph.node, *(f.node for f in model.functions)]
while open_lists:
    for node in open_lists.pop():
        total += 1
        private += node.domain.startswith("com.microsoft")
        for attribute in node.attribute:
            open_lists.extend(g.node for g in (attribute.g, *attribute.graphs) if g.node)
print(total, private)
"""


def count_nodes(path: Path) -> tuple[int, int]:
    """(all nodes, those of a private domain), subgraphs and functions included.

    In a process of its own: a child's peak memory starts at that of its parent, so this one,
    which starts all others, must stay small.
    """
    done = subprocess.run(
        [sys.executable, "-c", COUNT, path], check=True, capture_output=True, text=True
    )
    total, private = map(int, done.stdout.split())
    return total, private


def default_models() -> list[Path]:
    """The real models (INFC_MODELS), onnx's light models and the torch exports."""
    from importlib.util import find_spec

    onnx = find_spec("onnx")
    assert onnx is not None and onnx.origin is not None
    folder = Path(os.environ.get("INFC_MODELS", ROOT.parent / "shared" / "models"))
    real = [p for p in sorted(folder.glob("*/*.onnx")) if "without" not in p.name]
    light = Path(onnx.origin).parent / "backend" / "test" / "data" / "light"
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench_models.py", CACHE],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return [*real, *sorted(light.glob("*.onnx")), *sorted(CACHE.glob("*.onnx"))]


def bench(model: Path, tools: tuple[str, ...], runs: int) -> dict[str, Any]:
    """A row of the table: tool -> medians over `runs` rounds."""
    rounds: dict[str, list[dict[str, Any]]] = {tool: [] for tool in tools}
    for _ in range(runs):
        for tool in tools:
            rounds[tool].append(measure(tool, model))
    row: dict[str, Any] = {}
    for tool, results in rounds.items():
        failed = next((r for r in results if "error" in r), None)
        row[tool] = failed or {k: statistics.median(r[k] for r in results) for k in results[0]}
    return {"model": model.stem, "tools": row}


def cell(result: dict[str, Any], base: dict[str, Any]) -> str:
    """`nodes seconds MB (time/base)`."""
    if "error" in result:
        return "failed"
    star = "*" if result["private_nodes"] else ""
    ratio = f" {result['seconds'] / base['seconds']:4.2f}x" if "seconds" in base else ""
    megabytes = result["peak_rss_bytes"] / 1e6
    return f"{result['nodes']:.0f}{star} {result['seconds']:.2f}s{ratio} {megabytes:.0f}MB"


def main() -> int:
    """Print the table; exit 1 where infc leaves more nodes or is slower than onnxslim."""
    parser = argparse.ArgumentParser(prog="scripts/bench optimize", description=__doc__)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tools", default=",".join(TOOLS), help="comma-separated subset")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    tools = tuple(t for t in TOOLS if t in options.tools.split(","))
    rows, behind = [], []
    if not options.json:
        print(f"{'model':28}" + "".join(f"{tool:26}" for tool in tools), "verdict")
    for model in options.models or default_models():
        row = bench(model, tools, options.runs)
        rows.append(row)
        base = row["tools"].get(BASELINE, {})
        verdict = judge(row["tools"])
        behind += [row["model"]] if verdict != "ok" else []
        row["verdict"] = verdict
        if not options.json:
            cells = "".join(f"{cell(row['tools'][t], base):26}" for t in tools)
            print(f"{row['model'][:27]:28}{cells} {verdict}", flush=True)
    if options.json:
        print(json.dumps({"runs": options.runs, "baseline": BASELINE, "models": rows}, indent=2))
    return 1 if behind else 0


def judge(row: dict[str, Any]) -> str:
    """`ok`, or what infc is behind in; a count that needs private operators does not count."""
    if "infc" not in row:
        return "ok"
    if "error" in row["infc"]:
        return row["infc"]["error"]
    peers = {t: r for t, r in row.items() if t != "infc" and "error" not in r}
    faults = [
        f"nodes > {tool}"
        for tool, r in peers.items()
        if r["nodes"] < row["infc"]["nodes"] and not r["private_nodes"]
    ]
    if BASELINE in peers and row["infc"]["seconds"] > peers[BASELINE]["seconds"]:
        faults.append("slower")
    return ", ".join(faults) or "ok"


if __name__ == "__main__":
    sys.exit(main())

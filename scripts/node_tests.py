"""ONNX's single-operator tests through a back end: right, refused, wrong or crashed.

    scripts/node-tests openvino                      all of them; goes on where it was interrupted
    scripts/node-tests mindspore-lite --filter conv  those whose name holds "conv"
    scripts/node-tests --write                       the tables of targets/OPERATORS.md

A test is one model of `onnx.backend.test.loader.load_model_tests(kind="node")` with inputs and the
answers that the standard's own reference gives. It takes the way of `infc compile` from the
neutral graph on: raise the opset, legalise, check, build, run, compare, at every number of threads
that the back end is held to.

    right     the answer is within infc's float32 threshold (float16 and bfloat16 within theirs)
    refused   a diagnostic, before anything could be published
    wrong     the artifact was built, ran, and answered something else: `infc compile` finds this
              too, by verifying
    crashed   the compiler or the runtime died, hung, or threw what nobody expected

Back ends that run in infc's own environment do so in this one, many tests in a process; a process
that dies is started again and the test in flight has crashed. The others get a process for each
conversion and each run, as `infc compile` gives them. Results go to a file of one JSON line for
each test, which a later call continues.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "node-tests"
VERDICTS = ("right", "refused", "wrong", "crashed")
TIMEOUT_S = 180


def main() -> int:
    parser = argparse.ArgumentParser(
        description="ONNX's single-operator tests through a back end, and what became of them."
    )
    parser.add_argument("back_end", nargs="?", help="its name, as `infc targets` has it")
    parser.add_argument("--filter", default="", help="only tests whose name holds this")
    parser.add_argument("--limit", type=int, help="no more tests than this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at once")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--restart", action="store_true", help="forget the results that are there")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("--write", action="store_true", help="write targets/OPERATORS.md")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        from node_tests_table import write

        write(options.results, ROOT / "targets" / "OPERATORS.md")
        return 0
    if not options.back_end:
        parser.error("which back end?")
    if options.child:
        return child(options.back_end)
    options.results.mkdir(parents=True, exist_ok=True)
    file = options.results / f"{options.back_end}.jsonl"
    if options.restart:
        file.unlink(missing_ok=True)
    found = read_results(file)
    names = [n for n in test_names() if options.filter in n][: options.limit]
    left = [n for n in names if n not in found]
    with file.open("a", encoding="utf-8") as stream:
        for row in run_all(options.back_end, left, options.jobs):
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            found[row["test"]] = row
            report_progress(len(found), len(names), row)
    rows = [found[n] for n in names]
    report(options.back_end, rows, as_json=options.json)
    return 0 if all(r["verdict"] in ("right", "refused") for r in rows) else 1


def read_results(file: Path) -> dict[str, dict[str, Any]]:
    """The rows of a results file by test; a last line that was cut short is left out."""
    if not file.exists():
        return {}
    rows = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows[row["test"]] = row
    return rows


def report_progress(done: int, of: int, row: Mapping[str, Any]) -> None:
    if row["verdict"] in ("wrong", "crashed"):
        print(f"{row['verdict']}: {row['test']}: {row['reason']}", file=sys.stderr)
    elif done % 100 == 0:
        print(f"{done} of {of}", file=sys.stderr)


def report(back_end: str, rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """The counts, what is wrong, and why what is refused is."""
    counts = Counter(r["verdict"] for r in rows)
    if as_json:
        print(json.dumps({"back_end": back_end, "tests": len(rows), **counts}))
        return
    print(f"{back_end}: {len(rows)} tests, " + ", ".join(f"{counts[v]} {v}" for v in VERDICTS))
    for row in rows:
        if row["verdict"] in ("wrong", "crashed"):
            print(f"  {row['verdict']}: {row['test']}: {row['reason']}")
    reasons = Counter(r["reason"] for r in rows if r["verdict"] == "refused")
    for reason, count in reasons.most_common(40):
        print(f"  refused {count}: {reason}")


def run_all(back_end: str, names: Sequence[str], jobs: int) -> Iterator[dict[str, Any]]:
    """The row of every test, as they are done."""
    pending: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    for name in names:
        pending.put(name)

    def work() -> None:
        process: subprocess.Popen[str] | None = None
        while True:
            try:
                name = pending.get_nowait()
            except queue.Empty:
                break
            if process is None or process.poll() is not None:
                process = start_child(back_end)
            done.put(ask(process, name))
        if process is not None and process.stdin is not None:
            process.stdin.close()
            process.wait()
        done.put(None)

    for _ in range(jobs):
        threading.Thread(target=work, daemon=True).start()
    for _ in range(jobs):
        while (row := done.get()) is not None:
            yield row


def start_child(back_end: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(Path(__file__)), back_end, "--child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )


def ask(process: subprocess.Popen[str], name: str) -> dict[str, Any]:
    """The child's row for one test; a child that dies or hangs has crashed over it."""
    assert process.stdin is not None
    assert process.stdout is not None
    started = time.monotonic()
    late = threading.Timer(TIMEOUT_S, process.kill)
    late.start()
    try:
        process.stdin.write(name + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    late.cancel()
    if line:
        row: dict[str, Any] = json.loads(line)
        return row
    status = process.wait()
    hung = time.monotonic() - started >= TIMEOUT_S
    reason = f"no answer within {TIMEOUT_S} s" if hung else f"the process left with {status}"
    return {"test": name, "operator": "", "verdict": "crashed", "reason": reason}


def tests() -> dict[str, Any]:
    """All node tests by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the expectations are computed, with overflows and NaN
        from onnx.backend.test.loader import load_model_tests

        return {t.name: t for t in load_model_tests(kind="node")}


def test_names() -> list[str]:
    return list(tests())


def child(name: str) -> int:
    """Answer the names on standard input; standard output is the protocol's alone."""
    import logging

    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    known = tests()
    from node_tests_outcome import outcome

    for line in sys.stdin:
        test = known[line.strip()]
        with tempfile.TemporaryDirectory(prefix="infc-node-") as folder:
            row = outcome(test, name, Path(folder))
        protocol.write(json.dumps(row) + "\n")
        protocol.flush()
    # Some runtimes crash in their static destructors.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())

"""targets/OPERATORS.md from the results of scripts/node-tests: counts, and operators one by one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infc.targets import BACK_ENDS, back_end

VERDICTS = ("right", "refused", "wrong", "crashed")
Rows = Sequence[Mapping[str, Any]]

HEAD = """# What each back end makes of ONNX's operators

Written by `scripts/node-tests --write` from `scripts/node-tests BACKEND`, which takes each of the
node tests that ship with onnx {version} through a back end alone, without infc's graph passes:
raised to its opset, legalised, checked, built, run and compared, with every number of threads that
the back end is held to. A refusal is a diagnostic; a wrong answer is one that `infc compile` would
refuse to publish (E602).

tensorrt-rtx was run where there is no GPU: right is a graph that it took and built an engine of,
and that, legalised, answers rightly in ONNX Runtime. The engines were not run.

tvm, whose artifacts have fixed shapes, gets as constants what decides shapes, axes and counts
(`DECIDING` in `scripts/node_tests_outcome.py`), as real models have it; the other back ends get
it as inputs.

| back end | tests | right | refused | wrong | crashed |
|---|---|---|---|---|---|
"""


def write(results: Path, file: Path) -> None:
    """Write the tables for the back ends that there are results of."""
    import onnx
    from node_tests import read_results

    found = {n: list(read_results(results / f"{n}.jsonl").values()) for n in BACK_ENDS}
    found = {name: rows for name, rows in found.items() if rows}
    text = HEAD.format(version=onnx.__version__)
    text += "".join(_summary(name, rows) for name, rows in found.items())
    text += _failures(found) + _operators(found)
    file.write_text(text, encoding="utf-8")


def _summary(name: str, rows: Rows) -> str:
    counts = Counter(r["verdict"] for r in rows)
    cells = " | ".join(str(counts[v]) for v in VERDICTS)
    return f"| {back_end(name).NAME} | {len(rows)} | {cells} |\n"


def _failures(found: Mapping[str, Rows]) -> str:
    """What is wrong or crashed, by name."""
    out = "\n## Wrong and crashed\n\n"
    lines = [
        f"- {name}: `{r['test']}` {r['verdict']}: {r['reason']}\n"
        for name, rows in found.items()
        for r in rows
        if r["verdict"] in ("wrong", "crashed")
    ]
    return out + ("".join(lines) or "None.\n")


def _operators(found: Mapping[str, Rows]) -> str:
    """Right of all tests of each operator; 0 is a refusal throughout."""
    out = "\n## Operator by operator: right / tests\n\n"
    out += "| operator | " + " | ".join(found) + " |\n|---|" + "---|" * len(found) + "\n"
    table: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for name, rows in found.items():
        for row in rows:
            if row["operator"] not in ("", "(several)"):
                table[row["operator"]][name][row["verdict"]] += 1
    for operator in sorted(table):
        cells = (table[operator][name] for name in found)
        shown = " | ".join(f"{c['right']} / {c.total()}" if c else "-" for c in cells)
        out += f"| {operator} | {shown} |\n"
    return out

"""`report.html`: what was built and how well it answers, in one self-contained file.

The page is made from the manifest alone, so that the one in a bundle is the same in every build;
the copy in the log folder also gets the times. It runs no script and loads nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from infc.formatting import (
    format_affine,
    format_bytes,
    format_error,
    format_seconds,
    format_shape,
    format_sqnr,
)

if TYPE_CHECKING:
    from jinja2 import Template

    from infc.calibration.pictures import Picture
    from infc.mixed_precision.curve import Curve

MAX_OPERATORS = 24
"""Rows of the histogram; the rarer operators share the last one."""

MAX_LABEL = 30
"""Characters; an operator's domain is the first to go."""

BAR_WIDTH = 520
"""Pixels of the longest bar of the histogram."""


@dataclass(frozen=True, slots=True)
class _Bar:
    """A row of the histogram: how often an operator occurs, and the widths that stand for it."""

    name: str
    label: str
    before: int
    after: int
    before_width: float
    after_width: float
    y: int


def render(
    manifest: Mapping[str, Any],
    timings: Mapping[str, Any] | None = None,
    pictures: Sequence[Picture] = (),
    drawn: str = "",
) -> str:
    """The page for a bundle.

    `timings` is `{"steps": {step: seconds}, "passes": [{"name", "seconds", ...}]}`; without it
    the page holds no times. `pictures` are the histograms that a quantised bundle's ranges were
    chosen from; `drawn` is what an earlier page of the bundle made of them.
    """
    seconds = {row["name"]: row["seconds"] for row in (timings or {}).get("passes", ())}
    steps = {k: format_seconds(v) for k, v in (timings or {}).get("steps", {}).items()}
    passes = [_pass(row, seconds) for row in manifest["passes"]]
    bars = histogram(manifest["operators"])
    artifact = manifest["artifact"]["files"]
    others = [name for name in manifest["files"] if name not in artifact]
    return _template().render(
        m=manifest,
        tiles=_tiles(manifest),
        comparisons=_comparisons(manifest["verification"]),
        noise={k: format_error(v) for k, v in manifest["verification"].get("noise", {}).items()},
        passes=[row for row in passes if row["changes"]],
        idle=[row for row in passes if not row["changes"]],
        timed=timings is not None,
        steps=steps,
        bars=bars,
        gutter=12 + 7.5 * max((len(bar.label) for bar in bars), default=0),
        width=BAR_WIDTH + 80,
        pictures=pictures,
        drawn=drawn,
        curves=_curves(manifest),
        pruned=[_pruned(row) for row in manifest.get("pruning", {}).get("layers", ())],
        artifact=_files(manifest, artifact),
        others=_files(manifest, others),
        others_size=format_bytes(sum(manifest["files"][name]["bytes"] for name in others)),
        tensors=[_tensor("input", row) for row in manifest["inputs"]]
        + [_tensor("output", row) for row in manifest["outputs"]],
    )


def drawn_pictures(page: str) -> str:
    """What `page` has drawn of the calibration, "" where that is nothing."""
    match = re.search(r"<section>\n<h2>Calibration</h2>.*?</section>", page, re.DOTALL)
    return match[0] if match else ""


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("infc.templates", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.j2")


def _pruned(row: Mapping[str, Any]) -> dict[str, Any]:
    """A layer that lost channels, and what part of them."""
    return {**row, "part": f"{1 - row['after'] / row['before']:.0%}"}


def _curves(manifest: Mapping[str, Any]) -> list[Curve]:
    """What a budget of accuracy was searched on."""
    budget = manifest.get("quantization", {}).get("budget")
    if budget is None:
        return []
    from infc.mixed_precision.curve import curves

    return curves(budget)


def _tiles(manifest: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The figures at the top: (label, figure, remark)."""
    sizes = [manifest["files"][f]["bytes"] for f in manifest["artifact"]["files"]]
    before, after = (sum(manifest["operators"][k].values()) for k in ("source", "optimized"))
    target = manifest["target"]
    tiles = [
        ("artifact", format_bytes(sum(sizes)), manifest["artifact"]["entry"]),
        ("nodes", f"{before:,} \u2192 {after:,}", _percent(before, after)),
        ("precision", target["precision"], f"{target['back_end']} on {target['device']}"),
    ]
    outputs = manifest["verification"].get("artifact", {}).get("outputs", ())
    if outputs:
        worst = max(outputs, key=lambda row: _infinite_if_none(row["relative_error"]))
        remark = f"relative, at {worst['name']}"
        tiles.append(("worst error", format_error(worst["relative_error"]), remark))
    return tiles


def _infinite_if_none(value: float | None) -> float:
    return float("inf") if value is None else value


def _percent(before: int, after: int) -> str:
    if not before or before == after:
        return "unchanged"
    return f"{abs(after - before) / before:.0%} {'fewer' if after < before else 'more'}"


def _comparisons(proof: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One table for each thing that was compared with the source model."""
    titles = {
        "optimized": "Optimised graph",
        "graph": "Graph that the artifact was built of, in ONNX Runtime",
        "artifact": "Artifact in its runtime",
    }
    return [
        {"title": title, "rows": [_output(row) for row in proof[key]["outputs"]]}
        for key, title in titles.items()
        if proof.get(key)
    ]


def _output(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": row["name"],
        "max_abs": format_error(row["max_abs_error"]),
        "relative": format_error(row["relative_error"]),
        "sqnr": format_sqnr(row["sqnr_db"]),
        "ok": row["ok"],
    }


def _pass(row: Mapping[str, Any], seconds: Mapping[str, float]) -> dict[str, Any]:
    name = row["name"]
    time = format_seconds(seconds[name]) if name in seconds else ""
    return {**row, "time": time}


def _files(manifest: Mapping[str, Any], names: Iterable[str]) -> list[dict[str, str]]:
    rows = manifest["files"]
    return [
        {"name": n, "size": format_bytes(rows[n]["bytes"]), "sha256": rows[n]["sha256"]}
        for n in names
    ]


def _tensor(role: str, row: Mapping[str, Any]) -> dict[str, str]:
    bounds = ", ".join(
        f"{name} {low} to {high}, typically {typical}"
        for name, (low, typical, high) in row.get("bounds", {}).items()
    )
    shape = format_shape(row["shape"]).replace("x", "\u00d7") if row["shape"] else "scalar"
    return {
        "role": role,
        "name": row["name"],
        "dtype": ", ".join(filter(None, (row["dtype"], format_affine(row)))),
        "shape": "unknown rank" if row["shape"] is None else shape,
        "bounds": bounds,
    }


def histogram(operators: Mapping[str, Mapping[str, int]]) -> list[_Bar]:
    """The rows of the chart, the most frequent operator first.

    `operators` holds the counts of the `source` and of the `optimized` graph.
    """
    before, after = operators["source"], operators["optimized"]
    names = sorted({*before, *after}, key=lambda n: (-max(_counts(n, before, after)), n))
    rows = [(n, *_counts(n, before, after)) for n in names[:MAX_OPERATORS]]
    rest = [_counts(n, before, after) for n in names[MAX_OPERATORS:]]
    if rest:
        rows.append((f"{len(rest)} more", sum(b for b, _ in rest), sum(a for _, a in rest)))
    longest = _longest(rows)
    return [
        _Bar(n, _label(n), b, a, _width(b, longest), _width(a, longest), 26 * i)
        for i, (n, b, a) in enumerate(rows)
    ]


def _label(name: str) -> str:
    """`name` as far as there is room for it on the left of the chart, the end if need be."""
    return name if len(name) <= MAX_LABEL else f"\u2026{name[1 - MAX_LABEL :]}"


def _counts(name: str, before: Mapping[str, int], after: Mapping[str, int]) -> tuple[int, int]:
    return before.get(name, 0), after.get(name, 0)


def _longest(rows: Iterable[tuple[str, int, int]]) -> int:
    return max((max(b, a) for _, b, a in rows), default=1)


def _width(number: int, longest: int) -> float:
    """Pixels for `number`; one that is not zero is never invisible."""
    return round(max(BAR_WIDTH * number / longest, 2.0 if number else 0.0), 1)

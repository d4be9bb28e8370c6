"""What `inspect` prints: of a model in any container, of a bundle, of ranges."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from infc.diagnostics import printable
from infc.formatting import columns, count, format_affine, format_bytes, format_shape
from infc.output import Output
from infc.results.figures import verdict
from infc.results.text import LABEL_WIDTH, labelled, paired, wrapped

MAX_TENSORS = 20
MAX_OPERATORS = 60


def inspected(description: Mapping[str, Any]) -> Output:
    """Of `inspect`."""
    texts = {"bundle": _bundle_text, "ranges": _ranges_text, "onnx": _model_text}
    text = texts.get(description["kind"], _container_text)
    return Output(description, text(description))


def _ranges_text(d: Mapping[str, Any]) -> str:
    """A table: a tensor a line, what it holds, and what each method would quantise it over."""
    size = format_bytes(d["bytes"])
    head = f"{click.style(d['path'], bold=True)}  ranges, {size}, {count(d['samples'], 'sample')}"
    grid = f"{d['integer']}, {'symmetric' if d['symmetric'] else 'asymmetric'}"
    rows = [("model", d["model"]), ("data", d["data"] or "of a function"), ("ranges", grid)]
    methods = [m for m in (d["tensors"] or [{"ranges": {}}])[0]["ranges"] if m != "minmax"]
    titles = [f"{m} {d['percentile']:g}" if m == "percentile" else m for m in methods]
    cells = [("TENSOR", "MIN", "MAX", *(title.upper() for title in titles), "")]
    for row in d["tensors"]:
        spans = (f"{low:.4g} .. {high:.4g}" for low, high in map(row["ranges"].get, methods))
        odd = f"{row['infinities']:,} infinite" if row["infinities"] else ""
        name = printable(row["name"])
        cells.append((name, f"{row['min']:.4g}", f"{row['max']:.4g}", *spans, odd))
    return f"{head}\n{labelled(rows)}\n\n{columns(cells, right=(1, 2))}"


def _model_text(d: Mapping[str, Any]) -> str:
    head = f"{click.style(d['path'], bold=True)}  {d['kind'].upper()}, {format_bytes(d['bytes'])}"
    weights = d["parameters"]
    rows = [
        ("version", f"IR {d['ir_version']}, " + paired(d["opsets"].items())),
        ("producer", d["producer"] or "unknown"),
        ("inputs", _tensors(d["inputs"])),
        ("outputs", _tensors(d["outputs"])),
        (
            "parameters",
            f"{weights['elements']:,} in {count(weights['tensors'], 'tensor')}, "
            f"{format_bytes(weights['bytes'])}",
        ),
        ("nodes", f"{d['nodes']:,}\n{wrapped(f'{k} {v}' for k, v in d['operators'].items())}"),
    ]
    if d["functions"]:
        rows.append(("functions", wrapped(d["functions"])))
    if d["external_data"]:
        files = [
            (row["file"], "" if row["bytes"] is None else format_bytes(row["bytes"]), row["state"])
            for row in d["external_data"]
        ]
        rows.append(("external", columns(files, right=(1,))))
    if d["metadata"]:
        rows.append(("metadata", columns([(k, v) for k, v in d["metadata"].items()])))
    return f"{head}\n{labelled(rows)}"


def _bundle_text(d: Mapping[str, Any]) -> str:
    m = d["manifest"]
    target, toolchain = m["target"], {"infc": m["infc"], **m["toolchain"]}
    head = f"{click.style(d['path'], bold=True)}  bundle, {format_bytes(d['bytes'])}, {m['state']}"
    before, after = (sum(m["operators"][k].values()) for k in ("source", "optimized"))
    files = [(format_bytes(row["bytes"]), name) for name, row in m["files"].items()]
    shape = f"{target['back_end']} on {target['device']}, {target['precision']}"
    rows = [
        ("target", f"{target['name']}: {target['summary']} ({shape})"),
        ("source", f"{m['source']['file']} ({m['source']['kind']})"),
        ("inputs", _tensors(m["inputs"])),
        ("outputs", _tensors(m["outputs"])),
        ("nodes", f"{before:,} -> {after:,}"),
        ("verified", verdict(m["verification"])),
        *_left_to_do(d),
        ("loaders", ", ".join(m["loaders"]) or "none"),
        ("toolchain", wrapped(f"{k} {v}" for k, v in toolchain.items())),
        ("files", columns(files, right=(0,))),
    ]
    return f"{head}\n{labelled(rows)}"


def _left_to_do(d: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a bundle lacks that is finished on the device."""
    state, path = d["manifest"]["state"], shlex.quote(d["path"])
    if state == "ready":
        return []
    what = "the engine is to be built" if state == "deferred" else "the engine is to be verified"
    return [("next", f"{what}, on the device: {path}/finish")]


def _container_text(d: Mapping[str, Any]) -> str:
    """A model of another framework; what its container does not record is said to be unknown."""
    head = f"{click.style(d['path'], bold=True)}  {d['title']}, {format_bytes(d['bytes'])}"
    rows = [("version", d["version"])] if d["version"] else []
    short = {key: value for key, value in d["details"].items() if len(key) < LABEL_WIDTH}
    rows += short.items()
    if d["inputs"] is not None:
        rows.append(("inputs", _tensors(d["inputs"])))
    if d["outputs"] is not None:
        rows.append(("outputs", _tensors(d["outputs"])))
    weights = d["parameters"]
    if weights is not None:
        number = f"{weights['elements']:,} in {count(weights['tensors'], 'tensor')}"
        rows.append(("parameters", f"{number}, {format_bytes(weights['bytes'])}"))
    if d["operators"]:
        rows.append((d["unit"], f"{d['nodes']:,}\n{wrapped(_ranked(d['operators']))}"))
    if d["inputs"] is None and d["tensors"]:
        rows.append(("tensors", _first(d["tensors"], weights["tensors"])))
    if len(short) < len(d["details"]):
        rest = [row for row in d["details"].items() if row[0] not in short]
        rows.append(("metadata", columns(rest)))
    if d["unsafe"]:
        names = wrapped(f"`{name}`" for name in d["unsafe"][:MAX_TENSORS])
        rows.append(("runs code", f"loading it needs `--allow-pickle` (E113):\n{names}"))
    return f"{head}\n{labelled(rows)}"


def _ranked(operators: Mapping[str, int]) -> Iterable[str]:
    rows = [f"{name} {number}" for name, number in operators.items()]
    rest = len(rows) - MAX_OPERATORS
    return rows if rest <= 0 else [*rows[:MAX_OPERATORS], f"{rest} more kinds"]


def _first(rows: Sequence[Mapping[str, Any]], total: int) -> str:
    """The first tensors, and how many more there are."""
    shown = _tensors(rows[:MAX_TENSORS])
    rest = total - min(len(rows), MAX_TENSORS)
    return f"{shown}\nand {rest:,} more" if rest > 0 else shown


def _tensors(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = []
    for row in rows:
        bounds = paired(
            (name, f"{low}..{high}@{typical}")
            for name, (low, typical, high) in row.get("bounds", {}).items()
        )
        parts = (bounds, format_affine(row), row.get("detail", ""))
        said = ", ".join(part for part in parts if part)
        cells.append((row["name"], row["dtype"], format_shape(row["shape"]), said))
    return columns(cells) or "none"

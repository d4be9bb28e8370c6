"""What `infc optimize` and `infc quantize` print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from infc.formatting import columns, count, format_bytes
from infc.output import Output

if TYPE_CHECKING:
    from infc.driver import OptimizeResult, QuantizeResult
from infc.results.figures import errors_table, kept_in_float, nodes, passes_document, pruned
from infc.results.text import labelled


def optimized(result: OptimizeResult, *, brief: bool = False) -> Output:
    """Of `optimize`."""
    proof = result.verification
    document = {
        "output": str(result.output),
        **passes_document(result),
        "verification": proof or None,
    }
    worked = [row for row in result.passes if row.changes]
    removed = columns(
        [(row.name, f"{-row.removed:+d}" if row.removed else "0") for row in worked], right=(1,)
    )
    verdict = errors_table(proof["outputs"]) if proof else "skipped"
    rows = [("nodes", nodes(result)), ("passes", removed or "nothing to do")]
    if result.pruning is not None:
        document["pruning"] = result.pruning
        rows.append(("pruned", pruned(result.pruning)))
    size = result.output.stat().st_size
    text = f"{click.style(str(result.output), bold=True)}  {format_bytes(size)}"
    text = f"{text}\n{labelled([*rows, ('verified', verdict)])}"
    return Output(document, str(result.output) if brief else text, diagnostics=result.notes)


def quantized(result: QuantizeResult, *, brief: bool = False) -> Output:
    """Of `quantize`."""
    proof, done = result.verification, result.quantization
    document = {
        "output": str(result.output),
        "quantization": done,
        "verification": proof or None,
    }
    state = "came quantised, and was left as it is" if done["already"] else ""
    kept = [(row["node"], row["reason"]) for row in done["kept"]]
    rows = [
        ("scheme", done["scheme"]),
        ("int8", state or count(done["quantized"], "node")),
        ("float32", columns(kept) if kept else "no node that could be quantised"),
        ("verified", errors_table(proof["outputs"]) if proof else "skipped"),
    ]
    if "budget" in done:
        rows.insert(1, ("float", kept_in_float(done["budget"])))
    if result.pruning is not None:
        document["pruning"] = result.pruning
        rows.insert(0, ("pruned", pruned(result.pruning)))
    size = result.output.stat().st_size
    text = f"{click.style(str(result.output), bold=True)}  {format_bytes(size)}"
    text = f"{text}\n{labelled(rows)}"
    return Output(document, str(result.output) if brief else text, diagnostics=result.notes)

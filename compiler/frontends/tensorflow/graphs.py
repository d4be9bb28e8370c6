"""What a TensorFlow graph asks for, read off its protobuf before TensorFlow runs any of it.

A graph is a program: `WriteFile` writes a file, `PyFunc` calls Python. Those that reach outside
the graph are refused (E113); operators that this TensorFlow does not have are named (E111).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import fail
from infc.frontends.findings import Findings, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

OUTSIDE = re.compile(
    r"ReadFile|WriteFile|MatchingFiles|ImmutableConst|Save|SaveSlices|Restore|RestoreSlice"
    r"|\w*PyFunc\w*|Debug\w+|\w*(Reader|ReaderV2)|\w*(Record|LMDB|Csv|CSV|TextLine|Sql|BigQuery"
    r"|FixedLength|Snapshot|SaveDataset|LoadDataset)\w*|\w*Summary\w*|Remote\w*|Rpc\w*|\w*Service\w*"
    r"|Collective\w*|_?(Send|Recv|HostSend|HostRecv)|FileSystem\w*|LoadLibrary\w*|XlaLaunch\w*"
)
"""Operators that read or write files, speak to other machines or call code outside the graph."""
CHECKPOINT = re.compile(r"SaveV2|RestoreV2|MergeV2Checkpoints|ShardedFilename")
"""Every SavedModel has those for its own variables; no model calls them to answer."""


def nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a GraphDef and of the functions in it."""
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def require_harmless(rows: Iterable[Any], path: Path, *, allow: bool) -> None:
    """Refuse operators that reach outside.

    Raises:
        InfcError: E113, with each of them.
    """
    if allow:
        return
    found = {f"{row.op}": row.name for row in rows if OUTSIDE.fullmatch(row.op)}
    if found:
        shown = ", ".join(f"{quoted(op)} ({name})" for op, name in sorted(found.items())[:10])
        raise fail(
            "E113",
            f"running `{path}` would reach outside the model: {shown}",
            help="export the part of it that computes the answer, or trust it with "
            "`--allow-pickle`",
        )


def require_known(rows: Iterable[Any], path: Path) -> None:
    """Refuse operators that TensorFlow does not have, all of them at once.

    Raises:
        InfcError: E111 for each.
    """
    from tensorflow.python.framework import op_def_registry

    findings = Findings(path.name)
    unknown: dict[str, str] = {}
    for row in rows:
        if row.op not in unknown and op_def_registry.get(row.op) is None:
            unknown[row.op] = row.name
    for op, name in unknown.items():
        findings.add(
            "E111",
            f"{quoted(op)} is not an operator of TensorFlow: it comes from a library of its own",
            where=f"{name} ({op})",
            help="export the model without it",
        )
    findings.stop_here()


def own_functions(graph: Any) -> Mapping[str, Any]:
    """The functions of a GraphDef by name, which nodes call as if they were operators."""
    return {function.signature.name: function for function in graph.library.function}

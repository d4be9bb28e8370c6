"""What `package` prints, and `compile --package` besides its bundles."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import click

from infc.formatting import count
from infc.output import Output
from infc.packaging import Packaged
from infc.results.text import labelled


def packaged(rows: Sequence[Packaged], *, brief: bool = False) -> Output:
    """Of `package`; a `brief` text is the path of each version."""
    if brief:
        return Output(document(rows), "\n".join(_path(row) for row in rows))
    blocks = [_block(row) for row in rows]
    if rows:
        server = f"tritonserver --model-repository={shlex.quote(str(rows[-1].repository))}"
        blocks[-1] += "\n" + labelled([("next", server)])
    return Output(document(rows), "\n\n".join(blocks))


def document(rows: Sequence[Packaged]) -> Mapping[str, Any]:
    """The packages, for machines."""
    return {
        "packages": [
            {
                "bundle": str(row.bundle),
                "repository": str(row.repository),
                "name": row.name,
                "version": row.version,
                "changed": row.changed,
                "backend": row.backend,
                "max_batch_size": row.max_batch,
                "versions": list(row.versions),
                "remarks": list(row.remarks),
            }
            for row in rows
        ]
    }


def _path(row: Packaged) -> str:
    return str(row.repository / row.name / str(row.version))


def _block(row: Packaged) -> str:
    name = click.style(row.name, bold=True, fg="green")
    batches = f"batches up to {row.max_batch}" if row.max_batch else "requests one by one"
    others = [str(number) for number in row.versions if number != row.version]
    lines = [
        ("version", f"{row.version}{'' if row.changed else ', up to date'}"),
        ("served by", f"{row.backend}, {batches}"),
        *((("beside", f"{count(len(others), 'version')}: {', '.join(others)}"),) if others else ()),
        *(("note", remark) for remark in row.remarks),
    ]
    return f"{name}  {_path(row)}\n{labelled(lines)}"

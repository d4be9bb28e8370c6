"""What goes into `manifest.json`; `manifest.schema.json` is its schema.

Nothing here depends on the clock, the host or a path: the same inputs and toolchain give the same
bytes. Timings go to the folder `<bundle>.log` beside the bundle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from infc import __version__
from infc.pipeline import PassRecord
from infc.targets import Artifact, BackEnd, Target
from infc.workers.versions import versions

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.frontends import Source
    from infc.signature import TensorSpec


def operators(model: ir.Model) -> dict[str, int]:
    """How often each operator occurs, subgraphs included; other domains are named in front."""
    names = (f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in model.graph.all_nodes())
    return dict(sorted(Counter(names).items()))


def _source(source: Source) -> dict[str, Any]:
    """The model file, and how it became ONNX."""
    found = {"file": source.path.name, "kind": source.kind, "sha256": source.sha256}
    origin = source.origin
    if origin is None:
        return found
    made = {
        "framework": origin.framework,
        "exporter": origin.exporter,
        "versions": dict(origin.versions),
        "options": dict(origin.options),
    }
    return {**found, "import": made}


def fields(
    name: str,
    source: Source,
    end: BackEnd,
    target: Target,
    artifact: Artifact,
    signature: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
    loaders: Sequence[str],
    passes: Sequence[PassRecord],
    histogram: dict[str, dict[str, int]],
    proof: dict[str, Any],
) -> dict[str, Any]:
    """Everything but the file hashes, in the order a reader wants it."""
    inputs, outputs = signature
    return {
        "infc": __version__,
        "name": name,
        "state": "ready",
        "target": target.to_json(),
        "inputs": [s.to_json() for s in inputs],
        "outputs": [s.to_json() for s in outputs],
        "artifact": {
            "entry": f"model/{artifact.entry}",
            "files": [f"model/{f}" for f in artifact.files],
            "notes": dict(artifact.notes),
        },
        "loaders": list(loaders),
        "source": _source(source),
        "passes": [r.to_json(timings=False) for r in passes],
        "operators": histogram,
        "toolchain": {
            **{name: version(name) for name in ("onnx", "onnx-ir")},
            **versions(end, target, artifact.notes),
        },
        "verification": proof,
    }

"""Which nodes TVM cannot take: those that its importer has no converter for, or refuses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infc.targets import Unsupported

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu


def unsupported(path: Path, cpu: Cpu) -> list[Unsupported]:
    """Every node without a converter; where all have one, the first whose converter refuses."""
    import onnx

    from infc.targets.tvm_compiler.importing import RefusedError, converters, import_model

    model = onnx.load(str(path))
    known = {*converters(cpu), "Constant"}
    missing = [
        Unsupported(node.name, node.op_type, node.domain, "TVM's importer has no converter for it")
        for node in model.graph.node
        if node.op_type not in known
    ]
    if missing:
        return missing
    try:
        import_model(model, cpu)
    except RefusedError as error:
        return [Unsupported(error.node, error.op_type, error.domain, str(error))]
    return []

"""Variables that a model assigns while it answers: state that ONNX has no place for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from infc.diagnostics import fail

ASSIGNING = re.compile(
    r"Assign\w*VariableOp|ResourceScatter\w*|ResourceApply\w*|ResourceStridedSliceAssign"
    r"|LookupTable(Insert|Remove|Import)\w*|Assign(Add|Sub)?|Scatter(Update|Add|Sub)"
)


def require_none(function: Any, path: Path) -> None:
    """Refuse a function that assigns.

    Raises:
        InfcError: E111 with the variables.
    """
    definition = function.graph.as_graph_def()
    from infc.frontends.tensorflow import graphs

    found = [node for node in graphs.nodes(definition) if ASSIGNING.fullmatch(node.op)]
    if found:
        names = [v.name.partition(":")[0] for v in function.graph.variables if not v.trainable]
        shown = ", ".join(f"`{name}`" for name in names[:5])
        raise fail(
            "E111",
            f"`{path}` keeps a state: it assigns variables when it is called"
            + (f" ({shown})" if shown else ""),
            where=f"{path.name}:{found[0].name} ({found[0].op})",
            help="make the state inputs and outputs of the model, as its TensorFlow Lite version "
            "has it,\nor save it with `stateful=False`",
        )

"""The float model with the observed tensors among its outputs.

The model is not changed to write it: a serialised protobuf message followed by another one is the
two of them merged, so that a GraphProto with nothing but outputs, appended to the file, adds
outputs. Source: protobuf encoding, "Last One Wins" (protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import fail
from infc.formatting import listed

if TYPE_CHECKING:
    import onnx_ir as ir

SPATIAL = frozenset(
    ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
)
"""Their channels are axis 1 whatever the rank."""
ELEMENTWISE = frozenset(
    ("Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSwish", "Add", "Mul")
)
"""What comes out has its channels where they were in what went in."""


@dataclass(frozen=True, slots=True)
class Observed:
    """`path`: the model to run. `outputs` and `inputs`: the observed tensors, by where they are.

    `axes`: the channel axis of those of which the operators around them say it.
    """

    path: Path
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    axes: Mapping[str, int]

    @property
    def weights(self) -> Path:
        """The file beside it that holds its weights, where it has any of some size."""
        return self.path.with_name(f"{self.path.name}.data")

    @property
    def pending(self) -> Path:
        """What lies there as long as the model is still being written."""
        return self.path.with_name(f"{self.path.name}.pending")

    def axis(self, name: str, rank: int) -> int | None:
        """The channel axis of a tensor of `rank`: 1 from rank 4 on, else the last, by default."""
        if rank == 0:
            return None
        return self.axes.get(name, 1 if rank >= 4 else -1)

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for a worker."""
        return {
            "path": str(self.path.resolve()),
            "outputs": list(self.outputs),
            "inputs": list(self.inputs),
            "axes": dict(self.axes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Observed:
        """The inverse of `to_json`."""
        return cls(Path(data["path"]), tuple(data["outputs"]), tuple(data["inputs"]), data["axes"])


def observe_in(model: ir.Model, tensors: Iterable[str], path: Path) -> Observed:
    """Which of the values `tensors` of the main graph are inputs, and where their channels are.

    `path` is where `write_observed` will write it.

    Raises:
        InfcError: E411 where the main graph has no such value.
    """
    names = tuple(dict.fromkeys(tensors))
    graph = model.graph
    inputs = {v.name for v in graph.inputs} - set(graph.initializers)
    computed = {v.name for node in graph for v in node.outputs}
    unknown = [f"`{n}`" for n in names if n not in inputs and n not in computed]
    if unknown:
        raise fail("E411", f"the model computes no tensor {listed(unknown)}: nothing to observe")
    axes = _axes(graph)
    return Observed(
        path,
        tuple(n for n in names if n in computed),
        tuple(n for n in names if n not in computed),
        {n: axes[n] for n in names if n in axes},
    )


def write_observed(model: ir.Model, observed: Observed) -> None:
    """Write `model` with the observed tensors among its outputs, its weights beside it.

    ONNX Runtime maps weights that lie beside the model, and copies those inside it: for ResNet-50
    0.5 s of writing and 86 MB of the worker's memory less. The file is there once it is whole, and
    `pending`, which has to be there before, is gone then, written or not.
    """
    try:
        _write(model, observed)
    finally:
        observed.pending.unlink()


def _write(model: ir.Model, observed: Observed) -> None:
    import onnx
    import onnx_ir as ir

    present = {v.name for v in model.graph.outputs}
    extra = onnx.ModelProto()
    for name in observed.outputs:
        if name not in present:
            extra.graph.output.add(name=name)
    partial = observed.path.with_name(f"partial-{observed.path.name}")
    ir.save(model, partial, external_data=observed.weights.name)
    with partial.open("ab") as stream:
        stream.write(extra.SerializeToString())
    partial.replace(observed.path)


def _axes(graph: ir.Graph) -> dict[str, int]:
    """Axis 1 of what spatial operators read and write, else the last of what a MatMul reads."""
    axes: dict[str, int] = {}
    for node in graph:
        read = [v.name or "" for v in node.inputs if v is not None]
        given = [v.name or "" for v in node.outputs]
        if node.op_type in SPATIAL:
            axes.update(dict.fromkeys((*read[:1], *given[:1]), 1))
        elif node.op_type == "MatMul":
            axes.setdefault(read[0], -1)
        elif node.op_type in ELEMENTWISE and any(axes.get(v) == 1 for v in read):
            axes[given[0]] = 1
    return axes

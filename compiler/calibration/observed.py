"""The float model with the observed tensors among its outputs.

Nothing of the model is parsed to write it: a serialised protobuf message followed by another one
is the two of them merged, so that a GraphProto with nothing but outputs, appended to the file,
adds outputs. Source: protobuf encoding, "Last One Wins" (protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import fail

if TYPE_CHECKING:
    import onnx

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


def write_observed(
    model: Path, proto: onnx.ModelProto, tensors: Iterable[str], scratch: Path
) -> Observed:
    """Write the ONNX file `model` with `tensors` as outputs into the folder `scratch`.

    `proto` is what the file says, weights or not. A model with external data is written beside
    itself, for its paths to hold.

    Raises:
        InfcError: E411 where the main graph has no such value.
    """
    import onnx

    names = tuple(dict.fromkeys(tensors))
    weights = {t.name for t in proto.graph.initializer}
    inputs = {v.name for v in proto.graph.input} - weights
    computed = {value for node in proto.graph.node for value in node.output if value}
    unknown = [n for n in names if n not in inputs and n not in computed]
    if unknown:
        listed = ", ".join(f"`{name}`" for name in unknown[:5])
        raise fail("E411", f"the model computes no tensor {listed}: nothing to observe")
    present = {v.name for v in proto.graph.output}
    extra = onnx.ModelProto()
    for name in names:
        if name in computed and name not in present:
            extra.graph.output.add(name=name)
    folder = model.parent if external_files(proto) else scratch
    path = folder / f"{model.stem}.observed.onnx"
    shutil.copyfile(model, path)
    with path.open("ab") as stream:
        stream.write(extra.SerializeToString())
    axes = _axes(proto.graph)
    return Observed(
        path,
        tuple(n for n in names if n in computed),
        tuple(n for n in names if n not in computed),
        {n: axes[n] for n in names if n in axes},
    )


def external_files(model: onnx.ModelProto) -> list[str]:
    """The names of the files that hold external data, sorted, as they are in the model."""
    from infc.frontends.onnx_tensors import all_tensors, is_external

    entries = [e for t, _ in all_tensors(model) if is_external(t) for e in t.external_data]
    return sorted({e.value for e in entries if e.key == "location"})


def _axes(graph: onnx.GraphProto) -> dict[str, int]:
    """Axis 1 of what spatial operators read and write, else the last of what a MatMul reads."""
    axes: dict[str, int] = {}
    for node in graph.node:
        if node.op_type in SPATIAL:
            axes.update(dict.fromkeys((*node.input[:1], *node.output[:1]), 1))
        elif node.op_type == "MatMul":
            axes.setdefault(node.input[0], -1)
        elif node.op_type in ELEMENTWISE and any(axes.get(v) == 1 for v in node.input):
            axes[node.output[0]] = 1
    return axes

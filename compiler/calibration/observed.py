"""The float model with the observed tensors, or what it reduces them to, among its outputs.

The model is not changed to write it: a serialised protobuf message followed by another one is the
two of them merged, so that a GraphProto with nothing but nodes and outputs, appended to the file,
adds them. Source: protobuf encoding, "Last One Wins" (protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.calibration.observers import axis_in
from infc.calibration.reductions import LEAST_OPSET, Reduction, Reductions
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

    `axes`: the channel axis of those of which the operators around them say it. `reductions`: what
    the model at `path` makes of those of `outputs` that it reduces. `dims`: the shapes of its
    inputs, None for a size without a name.
    """

    path: Path
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    axes: Mapping[str, int]
    reductions: Reductions
    dims: Mapping[str, tuple[int | str | None, ...]]

    @property
    def whole(self) -> Path:
        """The model that gives all of `outputs` as they are."""
        return self.path.with_name(f"whole-{self.path.name}")

    @property
    def weights(self) -> Path:
        """The file beside them that holds their weights, where there are any of some size."""
        return self.path.with_name(f"{self.path.name}.data")

    @property
    def unreduced(self) -> tuple[str, ...]:
        """Those of `outputs` that the model at `path` gives as they are, too."""
        reduced = {row.name for row in self.reductions.rows}
        return tuple(name for name in self.outputs if name not in reduced)

    def remove(self) -> None:
        """Delete the files."""
        for file in (self.path, self.whole, self.weights):
            file.unlink(missing_ok=True)

    @property
    def pending(self) -> Path:
        """What lies there as long as the model is still being written."""
        return self.path.with_name(f"{self.path.name}.pending")

    def axis(self, name: str, rank: int) -> int | None:
        """The channel axis of a tensor of `rank`: 1 from rank 4 on, else the last, by default."""
        return channel_axis(self.axes, name, rank)

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for a worker."""
        return {
            "path": str(self.path.resolve()),
            "outputs": list(self.outputs),
            "inputs": list(self.inputs),
            "axes": dict(self.axes),
            "prefix": self.reductions.prefix,
            "reductions": [row.to_json() for row in self.reductions.rows],
            "dims": {name: list(dims) for name, dims in self.dims.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Observed:
        """The inverse of `to_json`."""
        rows = tuple(Reduction.from_json(row) for row in data["reductions"])
        return cls(
            Path(data["path"]),
            tuple(data["outputs"]),
            tuple(data["inputs"]),
            data["axes"],
            Reductions(data["prefix"], rows),
            {name: tuple(dims) for name, dims in data["dims"].items()},
        )


def channel_axis(axes: Mapping[str, int], name: str, rank: int) -> int | None:
    """The channel axis of a tensor, that of `axes`, else 1 from rank 4 on, else the last."""
    if rank == 0:
        return None
    return axes.get(name, 1 if rank >= 4 else -1)


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
    axes = {n: axis for n, axis in _axes(graph).items() if n in set(names)}
    return Observed(
        path,
        tuple(n for n in names if n in computed),
        tuple(n for n in names if n not in computed),
        axes,
        _reductions(graph, names, axes),
        {v.name or "": _dims(v) or () for v in graph.inputs if v.name in inputs},
    )


def _reductions(graph: ir.Graph, names: Sequence[str], axes: Mapping[str, int]) -> Reductions:
    """Of those of `names` that nodes compute: float32, of a shape that the inputs' tell."""
    import onnx_ir as ir

    wanted = set(names)
    told = {dim for v in graph.inputs for dim in _dims(v) or ()}
    prefix, taken = "infc.calibration.", {v.name or "" for v in _values(graph)}
    while any(name.startswith(prefix) for name in taken):
        prefix = f"_{prefix}"
    rows = []
    if graph.opset_imports.get("", 0) >= LEAST_OPSET:
        for value in (v for node in graph for v in node.outputs):
            dims = _dims(value) or ()
            known = tuple(d for d in dims if isinstance(d, int) or (d is not None and d in told))
            if value.name in wanted and value.dtype == ir.DataType.FLOAT and known == dims != ():
                axis = axis_in(len(dims), channel_axis(axes, value.name, len(dims)))
                rows.append(Reduction(value.name, known, axis))
    return Reductions(prefix, tuple(rows))


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _dims(value: ir.Value) -> tuple[int | str | None, ...] | None:
    """The sizes of `value`, or their names; None for no shape."""
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


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

    def asked(names: Iterable[str]) -> onnx.ModelProto:
        extra = onnx.ModelProto()
        for name in names:
            if name not in present:
                extra.graph.output.add(name=name)
        return extra

    present = {v.name for v in model.graph.outputs}
    partial = observed.path.with_name(f"partial-{observed.path.name}")
    ir.save(model, partial, external_data=observed.weights.name)
    bare = partial.read_bytes()
    observed.whole.write_bytes(bare + asked(observed.outputs).SerializeToString())
    extra = asked(observed.unreduced)
    observed.reductions.add_to(extra.graph, model.graph.opset_imports.get("", 0))
    partial.write_bytes(bare + extra.SerializeToString())
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

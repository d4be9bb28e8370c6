"""Statistics that the float model computes itself, behind the tensors that are observed.

A tensor that is an output lies in memory of its own until the run is over, is taken out of the
layout that convolutions compute in, and is read again when it has long left the caches. So the
model gets a ReduceMax, a ReduceMin, a ReduceMean over all axes but that of the channels, and a
Slice with the step that the histogram's subset wants, and those are the outputs. ResNet-50 on two
cores: 34 ms a sample for 37, and 130 MB less.

That takes float32 tensors whose shapes follow from those of the inputs. Of any other, of tensors
without elements and of samples on which one is not finite, the tensors themselves are read.

Sources: ONNX operators ReduceMax-1, ReduceMin-1, ReduceMean-1 and -18, Slice-10.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from infc.calibration.observers import Statistics

    Array = np.ndarray[Any, Any]

LEAST_OPSET = 10
"""That of Slice with its places as inputs."""
AXES_ARE_INPUTS = 18
"""From this opset on ReduceMean takes its axes as an input."""
LAST = (1 << 63) - 1
"""Where a Slice ends that goes to the end."""

Shape = tuple[int, ...]
Named = tuple[int | str, ...]
"""A shape of sizes and of names of sizes."""
Sizes = Mapping[Named, Shape]


@dataclass(frozen=True, slots=True)
class Reduction:
    """What is computed of the tensor `name`.

    `shape`: sizes, or names of sizes that the inputs' shapes give. `axis`: that of the channels,
    not negative, None where there is no such thing.
    """

    name: str
    shape: Named
    axis: int | None

    def to_json(self) -> list[Any]:
        """A plain list, for a worker."""
        return [self.name, list(self.shape), self.axis]

    @classmethod
    def from_json(cls, row: Sequence[Any]) -> Reduction:
        """The inverse of `to_json`."""
        return cls(row[0], tuple(row[1]), row[2])


@dataclass(frozen=True, slots=True)
class Reductions:
    """`rows`, in the model's order; no value of the model has a name that begins with `prefix`."""

    prefix: str
    rows: tuple[Reduction, ...]

    @property
    def groups(self) -> tuple[Named, ...]:
        """The shapes there are: the subsets of tensors of one shape lie at the same places."""
        return tuple(dict.fromkeys(row.shape for row in self.rows))

    @property
    def outputs(self) -> list[str]:
        """What the model is to be asked for."""
        return [name for number in range(len(self.rows)) for name in self._names(number)]

    def _names(self, number: int) -> list[str]:
        return [f"{self.prefix}{kind}.{number}" for kind in ("max", "min", "mean", "subset")]

    def _places(self, group: int) -> tuple[str, str]:
        return f"{self.prefix}start.{group}", f"{self.prefix}step.{group}"

    def add_to(self, graph: onnx.GraphProto, opset: int) -> None:
        """Add the nodes, the inputs that say where the subsets lie, and the outputs to `graph`.

        The last tensor's come first. ONNX Runtime goes from the last node that nobody reads up to
        what it needs, then from the one before: in the other order it would compute the whole
        model, and keep every tensor, before the first is reduced (ResNet-50: 29 ms, 140 MB more).
        """
        from onnx import TensorProto, helper

        def constant(name: str, values: list[int]) -> str:
            name = self.prefix + name
            row = helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
            graph.initializer.append(row)
            return name

        flat, last, first = constant("flat", [-1]), constant("last", [LAST]), constant("first", [0])
        groups = {shape: self._places(group) for group, shape in enumerate(self.groups)}
        for name in (name for names in groups.values() for name in names):
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, [1]))
        for number, row in reversed([*enumerate(self.rows)]):
            most, least, mean, subset = self._names(number)
            line = f"{self.prefix}line.{number}"
            start, step = groups[row.shape]
            graph.node.extend(
                [
                    helper.make_node("ReduceMax", [row.name], [most], keepdims=0),
                    helper.make_node("ReduceMin", [row.name], [least], keepdims=0),
                    helper.make_node("Reshape", [row.name, flat], [line]),
                    helper.make_node("Slice", [line, start, last, first, step], [subset]),
                ]
            )
            axes = [axis for axis in range(len(row.shape)) if axis != row.axis]
            if not axes:
                graph.node.append(helper.make_node("Identity", [row.name], [mean]))
            elif opset < AXES_ARE_INPUTS:
                node = helper.make_node("ReduceMean", [row.name], [mean], axes=axes, keepdims=0)
                graph.node.append(node)
            else:
                inputs = [row.name, constant(f"axes.{number}", axes)]
                graph.node.append(helper.make_node("ReduceMean", inputs, [mean], keepdims=0))
        for name in self.outputs:
            graph.output.add(name=name)

    def places(self, shapes: Sizes, sample: int) -> dict[str, Array]:
        """The model's further inputs for sample number `sample`: (1,), int64 each."""
        import numpy as np

        from infc.calibration.observers import places_of

        found: dict[str, Array] = {}
        for group, shape in enumerate(self.groups):
            sizes = shapes[shape]
            at = places_of(sizes, math.prod(sizes), sample)
            for name, value in zip(self._places(group), at, strict=True):
                found[name] = np.array([value], np.int64)
        return found

    def statistics(
        self,
        values: Sequence[Array],
        shapes: Sizes,
        sample: int,
    ) -> dict[str, Statistics] | None:
        """The statistics of the tensors from `values`, those of `outputs` in their order.

        None where one of them is not finite, or has another shape than the model said.
        """
        found: dict[str, Statistics] = {}
        rest = iter(values)
        for row in self.rows:
            one = _statistics(row, rest, shapes[row.shape], sample)
            if one is None:
                return None
            found[row.name] = one
        return found


def _statistics(
    row: Reduction, values: Iterator[Array], shape: Shape, sample: int
) -> Statistics | None:
    import numpy as np

    from infc.calibration.observers import MAX_CHANNELS, Statistics, Subset, places_of

    high, low = float(next(values)), float(next(values))
    means, counted = next(values).astype(np.float64), next(values)
    size = math.prod(shape)
    start, stride = places_of(shape, size, sample)
    # A maximum need not be NaN where one of the values is; a mean is, or where the sum overflows.
    if not (math.isfinite(low) and math.isfinite(high) and np.isfinite(means).all()):
        return None
    channels = () if row.axis is None else (shape[row.axis],)
    if means.shape != channels or len(counted) != -((start - size) // stride):
        return None
    kept = means if channels and channels[0] <= MAX_CHANNELS else None
    return Statistics.of_sample(low, high, Subset(counted, stride, size), row.axis, kept)


def shapes_for(
    reductions: Reductions,
    inputs: Mapping[str, Sequence[int | str | None]],
    feeds: Mapping[str, Array],
) -> Sizes | None:
    """The sizes of the shapes of `reductions` where the model's `inputs` have those of `feeds`.

    None where a size is not known, or where a tensor has no element.
    """
    sizes: dict[str, int] = {}
    for name, dims in inputs.items():
        if len(dims) != feeds[name].ndim:
            return None
        for dim, size in zip(dims, feeds[name].shape, strict=True):
            if isinstance(dim, str) and sizes.setdefault(dim, size) != size:
                return None
    found: dict[Named, Shape] = {}
    for shape in reductions.groups:
        known = [sizes.get(dim, 0) if isinstance(dim, str) else dim for dim in shape]
        if 0 in known:
            return None
        found[shape] = tuple(known)
    return found

"""The channels of every value in a graph.

Channels are born in weights: along each axis of a constant, each index is one. The rules of the
operators carry them from inputs to outputs, and tie those that have to go together. What has no
rule fixes all that it reads; so do graph outputs, and bodies that capture a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from infc.passes.pruning.channels import Axis, Channels
from infc.passes.rewriting import WEIGHT_BYTES, Edit, const_tensor, dims, given

Kept = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]
"""Which channels of an axis stay: (size,) bool."""
Fix = Callable[[Edit, Kept], None]
"""What of a node is written down and changes with the channels: a number of groups, a shape."""


@dataclass(slots=True)
class Use:
    """A constant that `nodes` read, each (node, index of the input).

    `outputs` are the axes whose channels it computes. Where `masked`, a channel gives zero once
    this constant's slice is zero.
    """

    value: ir.Value
    axes: list[Axis]
    readers: list[tuple[ir.Node, int]] = field(default_factory=list)
    outputs: set[int] = field(default_factory=set)
    masked: bool = False


@dataclass(frozen=True, slots=True)
class Tracked:
    """The axes of a value. `zero`: it is 0 along a channel that the masked weights make 0."""

    axes: list[Axis]
    zero: bool = False


class Tracker:
    """What the rules work on."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.channels = Channels()
        self.values: dict[ir.Value, Tracked] = {}
        self.uses: list[Use] = []
        self.fixes: list[Fix] = []
        self._of_input: dict[tuple[ir.Node, int], Use] = {}
        self._shared: dict[ir.Value, Use] = {}

    def of(self, node: ir.Node, index: int) -> Tracked:
        """The axes of an input; no axes where it is absent or its rank is unknown."""
        value = given(node, index)
        if value is None:
            return Tracked([])
        if value in self.values:
            return self.values[value]
        use = self.use(node, index)
        if use is not None:
            return Tracked(use.axes)
        return Tracked([None] * len(dims(value) or ()))

    def use(self, node: ir.Node, index: int) -> Use | None:
        """The constant that the input is; None for what is computed, given or too large.

        A matrix that several nodes read is one constant, in which they are tied; a vector, which
        may be equal to another by chance, is one for each.
        """
        if (node, index) in self._of_input:
            return self._of_input[node, index]
        value = given(node, index)
        tensor = const_tensor(value)
        if value is None or tensor is None or value.graph is not self.graph:
            return None
        if tensor.dtype == ir.DataType.STRING or tensor.nbytes > WEIGHT_BYTES:
            return None
        sizes = tensor.shape.numpy()
        matrix = sum(size > 1 for size in sizes) > 1
        use = self._shared.get(value) if matrix else None
        if use is None:
            axes = [self.channels.fresh(size) if size > 1 else None for size in sizes]
            use = Use(value, axes)
            self.uses.append(use)
            if matrix:
                self._shared[value] = use
        use.readers.append((node, index))
        self._of_input[node, index] = use
        return use

    def mask(self, node: ir.Node, *indices: int) -> None:
        """These constant inputs make their channels zero by being zero."""
        for index in indices:
            use = self.use(node, index)
            if use is not None:
                use.masked = True

    def produces(self, node: ir.Node, index: int, axis: int) -> None:
        """The channels along `axis` of this constant are computed with it: they are a layer's."""
        use = self.use(node, index)
        if use is not None:
            use.outputs.add(axis % len(use.axes))
            use.masked = True

    def give(
        self, node: ir.Node, axes: Sequence[Axis], *, zero: bool = False, output: int = 0
    ) -> None:
        """The axes of an output; what is not as long as the shape says is fixed."""
        if output >= len(node.outputs):
            return
        value = node.outputs[output]
        known = dims(value)
        if known is None or len(known) != len(axes):
            self.channels.fix(*axes)
            return
        found: list[Axis] = []
        for axis, size in zip(axes, known, strict=True):
            fits = axis is not None and len(axis) == size
            if not fits:
                self.channels.fix(axis)
            found.append(axis if fits else None)
        self.values[value] = Tracked(found, zero)

    def refuse(self, node: ir.Node) -> None:
        """Fix whatever `node` reads."""
        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            if value in self.values:
                self.channels.fix(*self.values[value].axes)
            elif (node, index) in self._of_input:
                self.channels.fix(*self._of_input[node, index].axes)

    def settle(self) -> None:
        """Fix the matrices that something reads besides the nodes they are followed through."""
        for value, use in self._shared.items():
            if {(u.node, u.idx) for u in value.uses()} != set(use.readers):
                self.channels.fix(*use.axes)

    def later(self, fix: Fix) -> None:
        """Call `fix` once it is known which channels stay."""
        self.fixes.append(fix)


Rule = Callable[[ir.Node, Tracker], bool]
"""Carries the channels of a node's inputs to its outputs; False where it cannot."""


def track(model: ir.Model) -> Tracker:
    """Follow the channels of the main graph; its nodes are in topological order."""
    from infc.passes.pruning.rules import RULES

    graph = model.graph
    tracker = Tracker(graph)
    for node in graph:
        rule = RULES.get(node.op_type) if not node.domain else None
        if rule is None or not rule(node, tracker):
            tracker.refuse(node)
        for value in node.outputs:
            inside = any(use.node.graph is not graph for use in value.uses())
            if (value.is_graph_output() or inside) and value in tracker.values:
                tracker.channels.fix(*tracker.values[value].axes)
    tracker.settle()
    return tracker

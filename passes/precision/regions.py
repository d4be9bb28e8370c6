"""Casts are counted before they are written: what is not worth its casts stays in float32.

A *region* is a set of converted nodes that hand each other values of the lower type. One without
a convolution, product or recurrent network in it has to compute more than it costs casts; and a
cheap node at a region's edge is given up where that saves a cast: the three slices behind one
convolution are slices of its float32 copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from infc.passes.precision import policy
from infc.passes.precision.plan import Plan
from infc.passes.rewriting import const_tensor, is_op

STRAY = "its casts would cost more than it saves"


class Casts:
    """The boundaries of a plan; `keep_io` says that graph inputs and outputs are float32."""

    def __init__(self, model: ir.Model, plan: Plan, *, keep_io: bool) -> None:
        self.plan = plan
        self.keep_io = keep_io
        self.outputs = frozenset(model.graph.outputs)

    def is_low(self, value: ir.Value) -> bool:
        """Whether `value`, float32 in the source, is given in the lower type."""
        node = value.producer()
        if node is None:
            return value.is_graph_input() and not self.keep_io and self._is_free(value)
        slots = self.plan.low.get(node)
        return slots is not None and value.index() in slots.outputs

    def _is_free(self, value: ir.Value) -> bool:
        """Whether an input of the graph may be of the lower type: some node wants it so."""
        fits = value.dtype == ir.DataType.FLOAT and value.name not in self.plan.overflow
        return fits and any(node in self.plan.low for node, _ in value.uses())

    def wants_low(self, node: ir.Node, index: int) -> bool | None:
        """The type that `node` takes its input at `index` in; None where any will do."""
        slots = self.plan.low.get(node)
        if slots is not None and index in slots.inputs:
            return True
        return None if is_op(node, "Cast", *policy.ANY_TYPE) else False

    def of(self, value: ir.Value) -> int:
        """How many casts the users of `value` need: 0 or 1, constants none."""
        if value.dtype != ir.DataType.FLOAT or const_tensor(value) is not None:
            return 0
        low = self.is_low(value)
        if low and value in self.outputs and self.keep_io:
            return 1
        wanted = (self.wants_low(node, index) for node, index in value.uses())
        return int(any(want is not None and want is not low for want in wanted))

    def around(self, nodes: Iterable[ir.Node]) -> int:
        """The casts of all values that `nodes` read or give."""
        values = {v for n in nodes for v in (*n.inputs, *n.outputs) if v is not None}
        return sum(self.of(value) for value in values)


def give_up_strays(model: ir.Model, casts: Casts) -> None:
    """Take out of the plan what is not worth its casts."""
    _give_up_regions(casts)
    _give_up_edges(model, casts)
    _give_up_regions(casts)


def _give_up_regions(casts: Casts) -> None:
    for region in list(_regions(casts)):
        if any(n.op_type in policy.HEAVY for n in region):
            continue
        if len(_arithmetic(region)) <= _saved(casts, region):
            for node in region:
                casts.plan.keep(node, STRAY)


def _arithmetic(region: list[ir.Node]) -> list[ir.Node]:
    return [n for n in region if n.op_type not in policy.MOVEMENT]


def _saved(casts: Casts, nodes: list[ir.Node]) -> int:
    """How many casts fewer there are without `nodes` in the plan."""
    before = casts.around(nodes)
    slots = {node: casts.plan.low.pop(node) for node in nodes}
    after = casts.around(nodes)
    casts.plan.low.update(slots)
    return before - after


def _regions(casts: Casts) -> Iterator[list[ir.Node]]:
    """The nodes that are connected by values of the lower type."""
    seen: set[ir.Node] = set()
    for start in list(casts.plan.low):
        if start in seen:
            continue
        seen.add(start)
        region, pending = [], [start]
        while pending:
            node = pending.pop()
            region.append(node)
            for other in _neighbours(casts, node):
                if other not in seen:
                    seen.add(other)
                    pending.append(other)
        yield region


def _neighbours(casts: Casts, node: ir.Node) -> Iterator[ir.Node]:
    for value in node.inputs:
        source = value.producer() if value is not None else None
        if value is not None and source in casts.plan.low and casts.is_low(value):
            yield source
    for value in node.outputs:
        if casts.is_low(value):
            yield from (n for n, i in value.uses() if n in casts.plan.low)


def _give_up_edges(model: ir.Model, casts: Casts) -> None:
    """Give up cheap nodes one by one, while that saves casts."""
    pending = [n for n in model.graph if n in casts.plan.low and n.op_type not in policy.HEAVY]
    while pending:
        node = pending.pop()
        if node not in casts.plan.low or _saved(casts, [node]) <= 0:
            continue
        around = list(_neighbours(casts, node))
        casts.plan.keep(node, STRAY)
        pending += [n for n in around if n.op_type not in policy.HEAVY]

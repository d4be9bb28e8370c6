"""Which values become integers, and which of them share a scale.

    1.  Every Conv, ConvTranspose, Gemm and MatMul of the scheme that can be quantised is: its
        inputs become integers, its output where the scheme says that it must.
    2.  An operator without weights is quantised only where integers come in (from a quantised
        unit, or because another one reads them) and integers are wanted: elsewhere Q/DQ around it
        would cost time and accuracy and save nothing.
    3.  The inputs and outputs of the scheme's `shared` operators have one scale, which is that
        of the values that come in from outside.

What `shallow` says is faster in float stays there.
Only the main graph is quantised. Values of bodies (If, Loop, Scan) stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from infc.passes.quantization.shallow import faster_in_float
from infc.passes.quantization.units import (
    QUANTIZED,
    RECURRENT,
    WEIGHTED,
    Unit,
    name_of,
    unit_of,
)
from infc.passes.rewriting import const_tensor, graphs, is_op, sole_consumer
from infc.quantization import Scheme


@dataclass(slots=True)
class Placement:
    """`units` by node, in graph order; `values` become integers, in the order they are made.

    `roots` of a group are those whose ranges give its scale; the
    values of one `group` have one scale. `symmetric` groups have no zero point. `given` are the
    values whose own operators give integers; what the others are rounded from is there in float.
    `bounds` are those of the activation that gives a value. `kept` says why a node that computes
    and that the scheme could quantise stays in float.
    """

    units: dict[ir.Node, Unit] = field(default_factory=dict)
    values: list[ir.Value] = field(default_factory=list)
    group: dict[ir.Value, int] = field(default_factory=dict)
    roots: dict[int, list[ir.Value]] = field(default_factory=dict)
    bounds: dict[ir.Value, tuple[float, float]] = field(default_factory=dict)
    given: set[ir.Value] = field(default_factory=set)
    symmetric: set[int] = field(default_factory=set)
    kept: dict[str, str] = field(default_factory=dict)

    def members(self, group: int) -> list[ir.Value]:
        """The values of one scale."""
        return [v for v, number in self.group.items() if number == group]


def is_quantized(model: ir.Model) -> bool:
    """Whether `model` came with operators of integers: Q/DQ, QLinear..., ...Integer."""
    return any(
        node.op_type in QUANTIZED or node.op_type.startswith(("QLinear", "QGemm", "QAttention"))
        for graph in graphs(model)
        for node in graph
    )


def place(
    model: ir.Model, scheme: Scheme, keep_float: frozenset[str], unusable: Mapping[str, str]
) -> Placement:
    """Decide for every node and value; `unusable` are values without a range, with the reason."""
    placement = Placement()
    weighted, carriers = _candidates(model, scheme, keep_float, unusable, placement.kept)
    along = _computed_along(model, weighted, scheme)
    carriers = {n: u for n, u in carriers.items() if n not in along}
    given = {v for n in along for v in n.outputs}
    given.update(v for u in weighted.values() for v in (*u.inputs, *u.outputs))
    _drop_carriers(given, weighted, carriers, scheme, placement.kept)
    placement.units = {n: u for n in model.graph for u in _either(n, weighted, carriers)}
    for unit in placement.units.values():
        if unit.tail is not None:
            placement.bounds[unit.outputs[0]] = unit.bounds
        if _gives_integers(unit, scheme):
            placement.given.update(unit.outputs)
    wanted = _integers(placement.units.values(), scheme)
    placement.values = [v for v in _all_values(model) if v in wanted]
    _group(placement, scheme)
    within = {name_of(n) for u in placement.units.values() for n in u.nodes}
    moving = {name_of(n) for n in model.graph if n.op_type in scheme.shared} - keep_float
    for name in within | moving:
        placement.kept.pop(name, None)
    return placement


def _either(
    node: ir.Node, weighted: Mapping[ir.Node, Unit], carriers: Mapping[ir.Node, Unit]
) -> Iterable[Unit]:
    unit = weighted.get(node) or carriers.get(node)
    return () if unit is None else (unit,)


def _candidates(
    model: ir.Model,
    scheme: Scheme,
    keep_float: frozenset[str],
    unusable: Mapping[str, str],
    kept: dict[str, str],
) -> tuple[dict[ir.Node, Unit], dict[ir.Node, Unit]]:
    weighted: dict[ir.Node, Unit] = {}
    carriers: dict[ir.Node, Unit] = {}
    for graph in graphs(model):
        for node in graph:
            if node.domain or node.op_type not in scheme.operators:
                if not node.domain and node.op_type in WEIGHTED | RECURRENT:
                    kept[name_of(node)] = f"{scheme.name} computes {node.op_type} in float only"
                continue
            if graph is not model.graph:
                kept[name_of(node)] = "it is inside the body of an If, Loop or Scan"
                continue
            unit = unit_of(node, scheme)
            if isinstance(unit, Unit):
                unit = _permitted(unit, scheme, keep_float, unusable)
            if isinstance(unit, str):
                kept[name_of(node)] = unit
            else:
                (weighted if node.op_type in WEIGHTED else carriers)[node] = unit
    return weighted, carriers


def _permitted(
    unit: Unit, scheme: Scheme, keep_float: frozenset[str], unusable: Mapping[str, str]
) -> Unit | str:
    """`unit`, or why it must stay in float though it could be quantised."""
    names = {name_of(n) for n in unit.nodes} | {v.name for n in unit.nodes for v in n.outputs}
    if names & keep_float:
        return "it was asked to stay in float"
    needed = [unit.weight, *unit.inputs, *(unit.outputs if _gives_integers(unit, scheme) else ())]
    for value in needed:
        name = value.name if value is not None else None
        if name is not None and name in unusable:
            return f"`{name}` {unusable[name]}"
    if _gives_integers(unit, scheme) and any(_captured(v, scheme) for v in unit.outputs):
        return "the body of an If, Loop or Scan reads what it gives"
    if faster_in_float(unit, scheme):
        return f"{scheme.name} is faster in float over so few channels"
    return unit


def _captured(value: ir.Value, scheme: Scheme) -> bool:
    """Whether a body reads `value`, or what shared operators make of it.

    ONNX Runtime 1.31 aborts where a DequantizeLinear, moved on behind a Reshape, meets one.
    """
    node = value.producer()
    home = node.graph if node is not None else value.graph
    for use in value.uses():
        if use.node.graph is not home:
            return True
        if is_op(use.node, *scheme.shared) and any(_captured(v, scheme) for v in use.node.outputs):
            return True
    return False


def _gives_integers(unit: Unit, scheme: Scheme) -> bool:
    return unit.node.op_type in scheme.requantized or unit.node.op_type not in WEIGHTED


def _demanded(unit: Unit, scheme: Scheme, weighted: Mapping[ir.Node, Unit]) -> list[ir.Value]:
    """The inputs that `unit` reads as integers: all but one branch of some residual additions."""
    inputs = [v for v in unit.inputs if const_tensor(v) is None]
    if scheme.residual != "one" or unit.node.op_type != "Add" or len(inputs) != 2:
        return inputs
    branches = [v for v in inputs if _is_branch(v, unit, weighted)]
    # Of two convolutions the later one adds: it has the other's result when it runs.
    return [v for v in inputs if not branches or v is not branches[-1]]


def _is_branch(value: ir.Value, unit: Unit, weighted: Mapping[ir.Node, Unit]) -> bool:
    """Whether `value` is what a weighted unit computes for `unit` alone."""
    node = value.producer()
    return node in weighted and sole_consumer(value) is unit.node


def _computed_along(
    model: ir.Model, weighted: Mapping[ir.Node, Unit], scheme: Scheme
) -> set[ir.Node]:
    """The activations, also x f(x), that are computed together with the weighted unit before them.

    Between them and the unit there is no Q/DQ; what they give can become integers at no cost.
    """
    given = {v for u in weighted.values() for n in u.nodes for v in n.outputs}
    along: set[ir.Node] = set()
    for node in model.graph:
        read = {v for v in node.inputs if v is not None and const_tensor(v) is None}
        gate = is_op(node, "Mul") and any(
            is_op(v.producer(), *scheme.absorbed) and read - {v} == set(_first(v)) for v in read
        )
        if (gate or is_op(node, *scheme.absorbed)) and read and read <= given:
            given.update(node.outputs)
            along.add(node)
    return along - {n for u in weighted.values() for n in u.nodes}


def _first(value: ir.Value) -> tuple[ir.Value, ...]:
    """The first input of the node that gives `value`."""
    node = value.producer()
    first = node.inputs[0] if node is not None and node.inputs else None
    return () if first is None else (first,)


def _drop_carriers(
    given: set[ir.Value],
    weighted: dict[ir.Node, Unit],
    carriers: dict[ir.Node, Unit],
    scheme: Scheme,
    kept: dict[str, str],
) -> None:
    """Take away those that no integers reach or that none are wanted from, until all have both."""
    while True:
        known = given | {v for u in carriers.values() for v in u.outputs}
        wanted = {v for u in weighted.values() for v in u.inputs}
        for unit in carriers.values():
            wanted.update(_demanded(unit, scheme, weighted))
        dropped = {}
        for node, unit in carriers.items():
            if not known.issuperset(_demanded(unit, scheme, weighted)):
                dropped[node] = "what it reads is not in integers"
            elif not wanted.intersection(unit.outputs):
                dropped[node] = "nothing reads it as integers"
        if not dropped:
            return
        for node, reason in dropped.items():
            del carriers[node]
            kept[name_of(node)] = reason


def _integers(units: Iterable[Unit], scheme: Scheme) -> set[ir.Value]:
    """Every value that is to have Q/DQ."""
    units = list(units)
    weighted = {u.node: u for u in units if u.node.op_type in WEIGHTED}
    found: set[ir.Value] = set()
    for unit in units:
        found.update(_demanded(unit, scheme, weighted))
        if _gives_integers(unit, scheme):
            found.update(v for v in unit.outputs if v.uses() or v.is_graph_output())
    return found


def _all_values(model: ir.Model) -> Iterable[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _group(placement: Placement, scheme: Scheme) -> None:
    """Values that share a scale become one group, whose roots no shared operator gives."""
    parent = {v: v for v in placement.values}

    def find(value: ir.Value) -> ir.Value:
        while parent[value] is not value:
            value = parent[value]
        return value

    derived: set[ir.Value] = set()
    for node, unit in placement.units.items():
        if node.op_type not in scheme.shared:
            continue
        members = [v for v in (*unit.inputs, *unit.outputs) if v in parent]
        derived.update(v for v in unit.outputs if v in parent)
        for value in members[1:]:
            parent[find(value)] = find(members[0])
    numbers: dict[ir.Value, int] = {}
    for value in placement.values:
        number = numbers.setdefault(find(value), len(numbers))
        placement.group[value] = number
        placement.roots.setdefault(number, [])
        if value not in derived:
            placement.roots[number].append(value)
    if not scheme.repeated:
        placement.values = [v for v in placement.values if v not in derived]
    if scheme.products == "symmetric":
        products = (u for u in placement.units.values() if u.node.op_type == "MatMul")
        pairs = (v for u in products if u.weight is None for v in u.inputs)
        placement.symmetric = {placement.group[v] for v in pairs}

"""Which nodes compute in the lower type: those that may, can, and are worth their casts.

Every node that touches a float32 tensor is first asked for a reason to stay. The reasons are
data (`policy`), the operator's schema (`slots`), its constants (`formats.misfit`), the measured
ranges, or the user's word. Then what feeds coordinates and phases stays, and what divides by
something that the type rounds to 0; and last, whatever costs more casts than it saves (`regions`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from infc.passes.precision import policy
from infc.passes.precision.constants import Constants, Problem
from infc.passes.precision.formats import Format
from infc.passes.precision.slots import Slots, slots_of
from infc.passes.rewriting import (
    attribute,
    bodies,
    dims,
    given,
    int_list,
    is_op,
    normal_axes,
    opset,
)
from infc.quantization import Range

_INTEGERS = frozenset(
    getattr(ir.DataType, f"{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)
)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller of `convert` asked for, in its words."""

    form: Format
    blocked: frozenset[str]
    keep_float: frozenset[str]
    ranges: Mapping[str, Range] | None


@dataclass(slots=True)
class Plan:
    """What is to be done: `low` maps the nodes that are converted to their places.

    `kept` says why the others are not; `overflow` holds the values that were measured to be too
    large; `clipped` says how far the constants among them are clipped that lose nothing by it.
    """

    wishes: Wishes
    low: dict[ir.Node, Slots] = field(default_factory=dict)
    kept: dict[ir.Node, str] = field(default_factory=dict)
    overflow: dict[str, Range] = field(default_factory=dict)
    clipped: dict[tuple[ir.Node, int], float] = field(default_factory=dict)

    def keep(self, node: ir.Node, reason: str) -> None:
        """Leave `node` in float32."""
        self.low.pop(node, None)
        self.kept.setdefault(node, reason)


def make_plan(model: ir.Model, wishes: Wishes) -> Plan:
    """Decide for every node of the main graph; the bodies of its nodes stay as they are."""
    plan = Plan(wishes)
    version = opset(model)
    constants = Constants(model, wishes.form, wishes.ranges)
    large = _Large(plan, constants.holding)
    large.measure(model.graph.inputs)
    epsilons: set[ir.Node] = set()
    for node in model.graph:
        large.measure(node.outputs)
        if not _touches_float(node) or is_op(node, *policy.ANY_TYPE):
            continue
        slots = slots_of(node, version, wishes.form)
        problem = constants.problem(node, slots, plan.clipped) if slots is not None else None
        reason = (
            _reason(node, slots, wishes)
            or (problem.text if problem else "")
            or large.reason(node, slots)
        )
        large.hand_on(node, problem)
        if reason:
            plan.keep(node, reason)
        elif slots is not None:
            plan.low[node] = slots
        if problem is not None and problem.kind == "underflows":
            epsilons.add(node)
    _keep_coordinates(model, plan)
    _keep_singular(model, plan, epsilons)
    return plan


def _touches_float(node: ir.Node) -> bool:
    values = (*node.inputs, *node.outputs)
    return not is_op(node, "Constant") and any(
        v is not None and v.dtype == ir.DataType.FLOAT for v in values
    )


def _reason(node: ir.Node, slots: Slots | None, wishes: Wishes) -> str:
    """Why `node` stays whatever its inputs hold; "" for no such reason."""
    names = {node.name, *(v.name for v in node.outputs)}
    if names & wishes.keep_float:
        return "as asked for"
    if bodies(node):
        return "its bodies stay in float32 as a whole"
    if node.op_type in wishes.blocked and not node.domain:
        return "the back end computes it in float32"
    if node.op_type in policy.FLOAT32 and not node.domain:
        return policy.FLOAT32[node.op_type]
    if is_op(node, "GroupNormalization") and "stash_type" not in node.attributes:
        return "its variance is summed in the type of its input"
    if is_op(node, "Cast"):
        return _reason_of_cast(node, slots, wishes)
    if slots is None:
        return f"it has no {wishes.form.name} form"
    if _is_quantised(node):
        return "it is one integer operator with the Q/DQ around it"
    return _reason_of_sum(node, wishes)


def _reason_of_cast(node: ir.Node, slots: Slots | None, wishes: Wishes) -> str:
    """A Cast to float32 may give less, unless it counts further than the type can."""
    source = node.inputs[0]
    if slots is None or source is None or source.dtype == ir.DataType.BOOL:
        return ""
    if source.dtype not in _INTEGERS:
        return ""
    found = (wishes.ranges or {}).get(node.outputs[0].name or "")
    if found is None or max(-found.low, found.high) > wishes.form.exact_integer:
        return f"{wishes.form.name} holds integers up to {wishes.form.exact_integer} only"
    return ""


def _is_quantised(node: ir.Node) -> bool:
    """Whether `node` reads what a DequantizeLinear gives."""
    return any(is_op(v.producer(), "DequantizeLinear") for v in node.inputs if v is not None)


def _reason_of_sum(node: ir.Node, wishes: Wishes) -> str:
    """Why a reduction stays: it adds up too much for the type, or nobody knows how much."""
    power = policy.REDUCTIONS.get(node.op_type)
    if power is None:
        return ""
    terms = _terms(node)
    if terms is None or terms > policy.MAX_TERMS:
        return f"it adds up {'an unknown number of' if terms is None else terms} elements"
    found = (wishes.ranges or {}).get(_name(node.inputs[0]))
    peak = max(-found.low, found.high) if found else policy.ASSUMED_PEAK
    total = terms * peak**power
    return f"its sum may reach {total:.3g}" if total > wishes.form.headroom else ""


def _terms(node: ir.Node) -> int | None:
    """How many elements one result of the reduction adds up."""
    shape = dims(node.inputs[0])
    if shape is None:
        return None
    if node.op_type.startswith("Global"):
        axes: tuple[int, ...] | None = tuple(range(2, len(shape)))
    elif "axes" not in node.attributes and given(node, 1) is None:
        empty = attribute(node, "noop_with_empty_axes", 0)
        axes = () if empty else tuple(range(len(shape)))
    else:
        listed = int_list(node, "axes", 1)
        axes = None if listed is None else normal_axes(listed, len(shape))
    if axes is None:
        return None
    sizes = [d for i in axes if isinstance(d := shape[i], int)]
    return math.prod(sizes) if len(sizes) == len(axes) else None


def _name(value: ir.Value | None) -> str:
    return (value.name or "") if value is not None else ""


class _Large:
    """The values that are beyond the type's headroom, measured so or guessed, each with why.

    Beside them stand those that were measured to be so small that the type has no bits for them.
    """

    def __init__(self, plan: Plan, holding: frozenset[ir.Value]) -> None:
        self._plan = plan
        self._ranges = plan.wishes.ranges or {}
        self._holding = holding
        self._measured: dict[ir.Value, str] = {}
        self._guessed: dict[ir.Value, str] = {}

    def measure(self, values: Iterable[ir.Value]) -> None:
        """Note those of `values` that were measured to be too large, or too small."""
        limit, least = self._plan.wishes.form.headroom, self._plan.wishes.form.least
        for value in values:
            found = self._ranges.get(_name(value))
            if found is None or value.dtype != ir.DataType.FLOAT:
                continue
            # Not "beyond": of a NaN, nothing is known.
            if not found.high <= limit or not (found.low >= -limit or value in self._holding):
                self._plan.overflow[_name(value)] = found
                peak = max(-found.low, found.high)
                self._measured[value] = f"`{value.name}` reaches {peak:.3g}"
            elif 0 < max(-found.low, found.high) < least:
                self._measured[value] = f"`{value.name}` is less than {least:.2g}"

    def reason(self, node: ir.Node, slots: Slots | None) -> str:
        """Why `node` may not touch its values in the lower type; "" where it may."""
        if slots is None:
            return ""
        for places, values in ((slots.inputs, node.inputs), (slots.outputs, node.outputs)):
            for value in (values[i] for i in sorted(places)):
                if value in self._measured:
                    return self._measured[value]
                if value in self._guessed:
                    return self._guessed[value]
        return ""

    def hand_on(self, node: ir.Node, problem: Problem | None) -> None:
        """What comes of a constant beyond the type may be beyond it too, unless measured."""
        overflows = problem is not None and problem.kind == "overflows"
        texts = [self._guessed[v] for v in node.inputs if v in self._guessed]
        if problem is not None and overflows:
            texts = [f"`{node.outputs[0].name}` may overflow: {problem.text}"]
        if not texts or (node.op_type in policy.BOUNDED and not overflows):
            return
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT and _name(value) not in self._ranges:
                self._guessed[value] = texts[0]


# What has to be exact


def _keep_coordinates(model: ir.Model, plan: Plan) -> None:
    """Keep the arithmetic that whole numbers, coordinates and phases are computed with."""
    exact: set[ir.Value] = set()
    for node in reversed(model.graph):
        if _rounds_to_integer(node) or node.op_type in policy.PHASES:
            exact.update(v for v in node.inputs if v is not None)
        exact.update(
            v
            for i, v in enumerate(node.inputs)
            if v is not None and (node.op_type, i) in policy.FLOAT32_INPUTS
        )
        cheap = node.op_type in policy.ELEMENTWISE and not node.domain
        if cheap and any(v in exact for v in node.outputs):
            exact.update(v for v in node.inputs if v is not None)
            if node in plan.low:
                plan.keep(node, "whole numbers or coordinates are computed with it")


def _rounds_to_integer(node: ir.Node) -> bool:
    return is_op(node, "Cast") and attribute(node, "to") in _INTEGERS


def _keep_singular(model: ir.Model, plan: Plan, epsilons: set[ir.Node]) -> None:
    """Keep what divides by a value that is only not 0 because of a constant the type lacks.

    `epsilons` are the nodes that read such constants.
    """
    small: set[ir.Value] = set()
    for node in model.graph:
        if node in epsilons:
            small.update(node.outputs)
            continue
        index = policy.SINGULAR.get(node.op_type)
        value = given(node, index) if index is not None else None
        if value is not None and value in small and not node.domain:
            if node in plan.low:
                plan.keep(node, f"its operand `{value.name}` may underflow")
            if node.op_type == "Sqrt":
                small.update(node.outputs)

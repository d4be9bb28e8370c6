"""LSTM, GRU and RNN.

The runtime has an LSTM, forward or in both directions, which wants its biases, both initial states
and all three outputs to be there; with one time step it crashes, backwards alone it is wrong.
What it does not have is written out step by step, for a known number of steps:

    GRU   z, r = s(x W + h R + b);  c = t(x W + r (h R + b));  h' = (1 - z) c + z h
    RNN   h' = t(x W + h R + b)
    LSTM  i, o, f = s(x W + h R + b);  c' = f c + i t(x W + h R + b);  h' = o t(c')

Sequences that end at different times are masked, where the back end wants that: at a step t that is
not below a row's length, the states stay what they were and the output is 0. From the end to the
start it is the same: the states stay the initial ones until the row's last element comes. Those of
a row without elements are 0, which ONNX leaves open and ONNX Runtime has.

Source: ONNX LSTM-14, GRU-14, RNN-14: gate order iofc, zrh; peepholes; `linear_before_reset`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import (
    Edit,
    attribute,
    const_array,
    const_tensor,
    dims,
    given,
    static_dims,
)
from infc.targets.mindspore_lite_lowering.formula import Formula, required, set_attributes

MAX_STEPS = 256
"""A longer sequence is not written out."""
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = frozenset(("Sigmoid", "Tanh", "Relu", "Softsign", "Softplus"))
DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}

State = tuple[ir.Value, ...]
Step = Callable[[ir.Value, State], State]


@dataclass(frozen=True, slots=True)
class _Layer:
    """The node's sizes: steps, batch, hidden units; `directions` of "forward" and "reverse".

    A batch that is open is 1: zeros for one row are zeros for all. `lengths` says whether rows may
    end before the last step.
    """

    steps: int
    batch: int
    hidden: int
    directions: tuple[str, ...]
    lengths: bool = False


def _layer(node: ir.Node, *, masked: bool = False) -> _Layer | None:
    """None where something is not known, or is nothing that can be written out.

    `masked` allows for an open batch, and for rows that end early, known or not.
    """
    shape, recurrence = dims(given(node, 0)), static_dims(given(node, 2))
    if shape is None or recurrence is None or attribute(node, "layout", 0):
        return None
    steps, batch = (d if isinstance(d, int) else None for d in shape[:2])
    if masked and batch is None:
        batch = 1
    direction = attribute(node, "direction", "forward")
    both = ("forward", "reverse")
    lengths = const_array(given(node, 4))
    whole = given(node, 4) is None or (lengths is not None and bool((lengths == steps).all()))
    if not steps or not batch or not (whole or masked):
        return None
    if "clip" in node.attributes or attribute(node, "input_forget", 0):
        return None
    directions = both if direction == "bidirectional" else (direction,)
    return _Layer(steps, batch, recurrence[2], directions, not whole)


def _recurrent(node: ir.Node, edit: Edit) -> bool:
    if attribute(node, "layout", 0):
        return _time_first(node, edit)
    layer = _layer(node)
    if layer is None:
        return False
    if node.op_type == "LSTM" and _has_kernel(node, layer):
        return _completed(node, edit, layer)
    return write_out(node, edit, MAX_STEPS)


def write_out(node: ir.Node, edit: Edit, most_steps: int, *, masked: bool = False) -> bool:
    """Write `node` out step by step, where it has no more than `most_steps`; whether it was.

    With `masked` also with an open batch, and with rows that end early.
    """
    layer = _layer(node, masked=masked)
    names = None if layer is None else _activations(node, layer)
    if layer is None or names is None or layer.steps > most_steps:
        return False
    return _unrolled(Formula(node, edit), layer, names)


def _has_kernel(node: ir.Node, layer: _Layer) -> bool:
    constant = all(const_tensor(given(node, i)) is not None for i in (1, 2))
    constant &= given(node, 3) is None or const_tensor(given(node, 3)) is not None
    plain = "activations" not in node.attributes and given(node, 7) is None
    return constant and plain and layer.steps > 1


def _completed(node: ir.Node, edit: Edit, layer: _Layer) -> bool:
    """An LSTM with everything that it may leave out."""
    f = Formula(node, edit)
    if layer.directions == ("reverse",):
        return _turned(f, node)
    count = len(layer.directions)
    zeros = np.zeros((count, layer.batch, layer.hidden), np.float32)
    inputs = [given(node, i) for i in range(7)]
    missing = {3: np.zeros((count, 8 * layer.hidden), np.float32), 5: zeros, 6: zeros}
    changed = set_attributes(node, hidden_size=layer.hidden)
    absent = [i for i in missing if inputs[i] is None]
    if not absent:
        return changed
    for i in absent:
        inputs[i] = f.constant(missing[i])
    _renewed(f, inputs, list(node.outputs))
    return True


def _named(node: ir.Node, edit: Edit) -> bool:
    """Last of all, as passes take away outputs that nobody reads: three with names."""
    if len(node.outputs) == 3 and all(v.name for v in node.outputs):
        return False
    _renewed(Formula(node, edit), [given(node, i) for i in range(7)], [])
    return True


def _renewed(f: Formula, inputs: Sequence[ir.Value | None], like: Sequence[ir.Value]) -> None:
    """The node again with `inputs` and three named outputs."""
    node = f.node
    stem = next(v.name for v in node.outputs if v.name)
    outputs = [ir.Value(name=f.edit.fresh(f"{stem}_of_lstm_{i}")) for i in range(3)]
    for value, old in zip(outputs, like, strict=False):
        value.type, value.shape = old.type, old.shape
    attributes = list(node.attributes.values())
    new = ir.Node("", node.op_type, inputs, attributes, outputs=outputs, name=node.name)
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_before(node, new)
    _take_over(f, outputs)


def _take_over(f: Formula, values: Sequence[ir.Value]) -> None:
    """Let `values` take the places and the names of the node's outputs."""
    for old, new in zip(f.node.outputs, values, strict=False):
        if old.uses() or old.is_graph_output():
            name, old.name = old.name, None
            new.name, new.type, new.shape = name, old.type, old.shape
            old.replace_all_uses_with(new, replace_graph_outputs=True)
    f.edit.erase(f.node)


def _turned(f: Formula, node: ir.Node) -> bool:
    """Backwards is forward over the sequence from its end."""
    attributes = {k: v for k, v in node.attributes.items() if k != "direction"}
    outputs = [ir.Value(name=f.edit.fresh(f"{node.outputs[0].name}_forward{i}")) for i in range(3)]
    new = ir.Node(
        "",
        "LSTM",
        [f.reverse(required(node, 0), 0), *node.inputs[1:]],
        list(attributes.values()),
        outputs=outputs,
        name=f"{node.name}/forward",
    )
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_before(node, new)
    _take_over(f, [f.reverse(outputs[0], 0), *outputs[1:]])
    return True


def _time_first(node: ir.Node, edit: Edit) -> bool:
    """`layout` 1, the batch first, as 0 between transposes."""
    f = Formula(node, edit)
    inputs = list(node.inputs)
    for i in (0, 5, 6):
        value = given(node, i)
        if value is not None:
            inputs[i] = f.transpose(value, (1, 0, 2))
    attributes = [a for name, a in node.attributes.items() if name != "layout"]
    names = [ir.Value(name=edit.fresh(f"{node.outputs[0].name}_time{i}")) for i in range(3)]
    outputs = names[: len(node.outputs)]
    new = ir.Node(
        "", node.op_type, inputs, attributes, outputs=outputs, name=f"{node.name}/time_first"
    )
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_before(node, new)
    perms = ((2, 0, 1, 3), (1, 0, 2), (1, 0, 2))
    wanted = [
        f.transpose(v, p) if old.uses() or old.is_graph_output() else v
        for v, p, old in zip(outputs, perms, node.outputs, strict=False)
    ]
    _take_over(f, wanted)
    return True


def _activations(node: ir.Node, layer: _Layer) -> tuple[tuple[str, ...], ...] | None:
    """The activations of each direction."""
    default = DEFAULTS[node.op_type]
    given_names = attribute(node, "activations")
    names = tuple(given_names) if given_names else default * len(layer.directions)
    parametrized = "activation_alpha" in node.attributes or "activation_beta" in node.attributes
    if parametrized or not ACTIVATIONS.issuperset(names):
        return None
    each = len(default)
    return tuple(names[i : i + each] for i in range(0, len(names), each))


def _unrolled(f: Formula, layer: _Layer, names: tuple[tuple[str, ...], ...]) -> bool:
    sequences, lasts = [], []
    for index, direction in enumerate(layer.directions):
        outputs, last = _one_direction(f, layer, index, direction, names[index])
        sequences.append(f.unsqueeze(f.concat(outputs, 0), (1,)))
        lasts.append([f.unsqueeze(v, (0,)) for v in last])
    whole = f.concat(sequences, 1)
    _take_over(f, [whole, *(f.concat(list(parts), 0) for parts in zip(*lasts, strict=True))])
    return True


def _one_direction(
    f: Formula, layer: _Layer, index: int, direction: str, names: tuple[str, ...]
) -> tuple[list[ir.Value], State]:
    """The output of each step, (1, batch, hidden), in the order of time, and the last states."""
    node = f.node
    cell = _Cell(f, layer, index, names)
    zeros = f.constant(np.zeros((layer.batch, layer.hidden), f.dtype.numpy()))
    initial = [given(node, i) for i in ((5, 6) if node.op_type == "LSTM" else (5,))]
    state: State = tuple(
        zeros if v is None else f.op("Gather", v, f.constant(np.int64(index)), axis=0)
        for v in initial
    )
    order = range(layer.steps) if direction == "forward" else reversed(range(layer.steps))
    lengths = f.unsqueeze(required(node, 4), (1,)) if layer.lengths else None
    if lengths is not None:
        some = f.greater(lengths, f.constant(np.int32(0)))
        state = tuple(v if v is zeros else f.op("Where", some, v, 0.0) for v in state)
    found: dict[int, ir.Value] = {}
    for t in order:
        row = f.op("Gather", cell.projected, f.constant(np.int64(t)), axis=0)
        before, state = state, cell.step(row, state)
        output = state[0]
        if lengths is not None:
            goes_on = f.greater(lengths, f.constant(np.int32(t)))
            state = tuple(f.op("Where", goes_on, *pair) for pair in zip(state, before, strict=True))
            output = f.op("Where", goes_on, output, 0.0)
        found[t] = f.unsqueeze(output, (0,))
    return [found[t] for t in range(layer.steps)], state


class _Cell:
    """One direction's weights, and its step: (batch, gates * hidden) and states to states."""

    def __init__(self, f: Formula, layer: _Layer, index: int, names: tuple[str, ...]) -> None:
        self.f = f
        self.names = names
        self.hidden = layer.hidden
        node = f.node
        self.gates = GATES[node.op_type]

        def of_direction(i: int) -> ir.Value:
            return f.op("Gather", required(node, i), f.constant(np.int64(index)), axis=0)

        self.recurrence = f.transpose(of_direction(2), (1, 0))
        projected = f.matmul(required(node, 0), f.transpose(of_direction(1), (1, 0)))
        self.bias: ir.Value | None = None
        width = self.gates * self.hidden
        if given(node, 3) is not None:
            both = of_direction(3)
            projected = f.add(projected, f.slice(both, 0, 0, width))
            self.bias = f.slice(both, 0, width, 2 * width)
        self.projected = projected
        self.peepholes = of_direction(7) if given(node, 7) is not None else None

    def step(self, row: ir.Value, state: State) -> State:
        """One time step; the first of the states is the output."""
        return getattr(self, f"_{self.f.node.op_type.lower()}")(row, state)  # type: ignore[no-any-return]

    def _act(self, which: int, value: ir.Value) -> ir.Value:
        return self.f.op(self.names[which], value)

    def _gate(self, value: ir.Value, index: int) -> ir.Value:
        return self.f.slice(value, 1, index * self.hidden, (index + 1) * self.hidden)

    def _recurrent(self, h: ir.Value) -> ir.Value:
        product = self.f.matmul(h, self.recurrence)
        return product if self.bias is None else self.f.add(product, self.bias)

    def _rnn(self, row: ir.Value, state: State) -> State:
        return (self._act(0, self.f.add(row, self._recurrent(state[0]))),)

    def _lstm(self, row: ir.Value, state: State) -> State:
        f = self.f
        h, c = state
        total = f.add(row, self._recurrent(h))
        i, o, forget, new = (self._gate(total, k) for k in range(4))
        if self.peepholes is not None:
            i, forget = f.add(i, self._peep(0, c)), f.add(forget, self._peep(2, c))
        i, forget = self._act(0, i), self._act(0, forget)
        cell = f.add(f.mul(forget, c), f.mul(i, self._act(1, new)))
        if self.peepholes is not None:
            o = f.add(o, self._peep(1, cell))
        return f.mul(self._act(0, o), self._act(2, cell)), cell

    def _peep(self, index: int, c: ir.Value) -> ir.Value:
        assert self.peepholes is not None
        h = self.hidden
        return self.f.mul(self.f.slice(self.peepholes, 0, index * h, (index + 1) * h), c)

    def _gru(self, row: ir.Value, state: State) -> State:
        f, h = self.f, state[0]
        recurrent = self._recurrent(h)
        z, r = (self._act(0, f.add(self._gate(row, k), self._gate(recurrent, k))) for k in range(2))
        if attribute(f.node, "linear_before_reset", 0):
            inner = f.mul(r, self._gate(recurrent, 2))
        else:
            weights = f.slice(self.recurrence, 1, 2 * self.hidden, 3 * self.hidden)
            inner = f.matmul(f.mul(r, h), weights)
            if self.bias is not None:
                width = 2 * self.hidden
                inner = f.add(inner, f.slice(self.bias, 0, width, width + self.hidden))
        candidate = self._act(1, f.add(self._gate(row, 2), inner))
        return (f.add(f.mul(f.sub(1.0, z), candidate), f.mul(z, h)),)


FINAL = {"LSTM": _named}
RULES = {"GRU": _recurrent, "LSTM": _recurrent, "RNN": _recurrent}

"""Assigned variables taken out of a graph: each becomes an input and an output.

    read v        what was last assigned to v, and at first the input
    assign v, x   x, from there on; at the end it is the output

The order of reads and assignments is that of the control edges, which TensorFlow writes for it.
Where they leave it open, no answer is right, and the model is refused.

Source: TensorFlow 2.21, `python/framework/convert_to_constants.py`, `auto_control_deps.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from infc.frontends.tensorflow import replaying, states
from infc.frontends.tensorflow.states import State

READING = ("ReadVariableOp",)


@dataclass(frozen=True, slots=True)
class _Handle:
    """What stands for a variable's handle while the graph is replayed."""

    placeholder: str


@dataclass(frozen=True, slots=True)
class Lifted:
    """A frozen graph without the variables; inputs and outputs by TensorFlow's own names."""

    definition: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def lift(
    function: Any, held: Sequence[State], inputs: Sequence[str], outputs: Sequence[str], path: Path
) -> Lifted:
    """Freeze a traced function, all variables but those in `held`, and take those out.

    The states come after the function's own `inputs` and `outputs`.

    Raises:
        InfcError: E111 for another use of a variable than reading and assigning, and for an order
            that is open.
    """
    import tensorflow as tf

    definition = _frozen(function, [state.placeholder for state in held])
    by_placeholder = {state.placeholder: state for state in held}
    current: dict[str, Any] = {}
    given: dict[str, str] = {}
    variables: dict[str, str] = {}

    def rule(node: Any, inputs: Sequence[Any]) -> list[Any] | None:
        state = by_placeholder.get(node.name)
        if state is not None:
            first = tf.compat.v1.placeholder(state.port.dtype, state.port.shape)
            given[node.name], current[node.name] = first.name, first
            return [_Handle(node.name)]
        if not any(isinstance(value, _Handle) for value in inputs):
            return None
        handle, *values = inputs
        if not isinstance(handle, _Handle) or any(isinstance(v, _Handle) for v in values):
            raise states.refusal(path, node, function)
        if node.op == "Identity":
            return [handle]
        if node.op not in (*READING, *states.LIFTED):
            raise states.refusal(path, node, function)
        variables[node.name] = handle.placeholder
        return _access(node.op, handle.placeholder, values, current)

    graph, values = replaying.replay(definition, rule)
    if unordered := _unordered(definition, variables, outputs):
        raise states.refusal(path, unordered, function)
    with graph.as_default():
        made = [tf.identity(current[state.placeholder]) for state in held]
        for state, value in zip(held, made, strict=True):
            value.set_shape(state.port.shape)
    return Lifted(
        graph.as_graph_def(add_shapes=True),
        (*(values[n].name for n in inputs), *(given[state.placeholder] for state in held)),
        (*(values[n].name for n in outputs), *(value.name for value in made)),
    )


def _access(op: str, variable: str, values: Sequence[Any], current: dict[str, Any]) -> list[Any]:
    """What a reading operator returns; an assigning one changes `current`, and returns nothing."""
    import tensorflow as tf

    if op in READING:
        return [tf.identity(current[variable])]
    (value,) = values
    if op == "AssignAddVariableOp":
        value = current[variable] + value
    elif op == "AssignSubVariableOp":
        value = current[variable] - value
    current[variable] = value
    return []


def _frozen(function: Any, kept: list[str]) -> Any:
    """The graph of `function`, inlined, all variables constants but those that are `kept`."""
    from tensorflow.python.framework import convert_to_constants
    from tf2onnx import tf_loader

    data = convert_to_constants._FunctionConverterDataInEager(
        func=function,
        lower_control_flow=False,
        aggressive_inlining=True,
        variable_names_denylist=kept,
    )
    definition, _ = convert_to_constants._replace_variables_by_constants(converter_data=data)
    return tf_loader.fix_freezing_errors_part2(definition)


def _unordered(definition: Any, variables: dict[str, str], outputs: Sequence[str]) -> Any:
    """An access to one of `variables` that could come before or after another, or None.

    Reads that nothing needs have no place in the order: inlining leaves them behind.
    """
    live = _needed(definition, outputs)
    bit = {name: 1 << i for i, name in enumerate(variables) if name in live}
    after: dict[str, int] = {}
    reached: dict[str, int] = {}
    written: dict[str, int] = {}
    for node in replaying.ordered(definition):
        sources = [replaying.origin(name) for name in node.input]
        mask = after[node.name] = reduce(or_, (after[s] | bit.get(s, 0) for s in sources), 0)
        if node.name not in bit:
            continue
        variable, own = variables[node.name], bit[node.name]
        assigns = node.op in states.LIFTED
        if (reached if assigns else written).get(variable, 0) & ~mask:
            return node
        reached[variable] = reached.get(variable, 0) | own
        if assigns:
            written[variable] = written.get(variable, 0) | own
    return None


def _needed(definition: Any, outputs: Sequence[str]) -> set[str]:
    """The nodes that an output, or an assignment, is computed from."""
    nodes = {node.name: node for node in definition.node}
    pending = [replaying.origin(name) for name in outputs]
    pending += [node.name for node in definition.node if node.op in states.LIFTED]
    found = set(pending)
    while pending:
        for name in nodes[pending.pop()].input:
            source = replaying.origin(name)
            if name[0] != "^" and source not in found:
                found.add(source)
                pending.append(source)
    return found

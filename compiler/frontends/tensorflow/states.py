"""Variables that a model assigns while it answers: its state, which ONNX has outside the model.

    x -> [read v ... assign v] -> y      becomes      x, v_state -> [...] -> y, v_state_out

Each assigned variable is an input and an output; feeding the output back is the next call. The
reference does what the model does: it assigns the inputs to the variables, calls, and reads them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infc.diagnostics import Diagnostic, InfcError, Severity, fail
from infc.frontends.tensorflow import programs, replaying
from infc.frontends.tensorflow.programs import Port, Program

if TYPE_CHECKING:
    from infc.targets import Runner, Tensors

ASSIGNING = re.compile(
    r"Assign\w*VariableOp|ResourceScatter\w*|ResourceApply\w*|ResourceStridedSliceAssign"
    r"|LookupTable(Insert|Remove|Import)\w*|Assign(Add|Sub)?|Scatter(Update|Add|Sub)"
)
LIFTED = ("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp")
"""The assignments that `lifting` makes outputs of."""


@dataclass(frozen=True, slots=True)
class State:
    """A variable that is assigned."""

    port: Port
    """The input: its value before the call."""
    output: str
    """The name of the output: its value after the call."""
    placeholder: str
    """The node in the traced graph that stands for the variable."""
    handle: Any
    """The variable itself, as TensorFlow's operators on it take it."""

    def assign(self, value: Any) -> None:
        """Write the variable."""
        import tensorflow as tf

        tf.raw_ops.AssignVariableOp(resource=self.handle, value=tf.constant(value, self.port.dtype))

    def read(self) -> Any:
        """The value of the variable, a numpy array."""
        import tensorflow as tf

        value = tf.raw_ops.ReadVariableOp(resource=self.handle, dtype=self.port.dtype)
        return np.asarray(value.numpy())


def find(function: Any, program: Program, path: Path) -> tuple[State, ...]:
    """The variables that a traced `program` assigns, in the order in which it holds them.

    Raises:
        InfcError: E108 and E115 for what cannot be an input, E111 for assignments that cannot be
            taken out: those in branches and loops, and those of parts of a variable.
    """
    from infc.frontends.tensorflow import graphs

    definition = function.graph.as_graph_def()
    if not any(ASSIGNING.fullmatch(node.op) for node in graphs.nodes(definition)):
        return ()
    inlined = _inlined(function)
    names = {node.name for node in inlined.node}
    for node in graphs.nodes(inlined):
        lifted = node.op in LIFTED and node.name in names
        if ASSIGNING.fullmatch(node.op) and not lifted:
            raise refusal(path, node, function)
    by_name = {node.name: node for node in inlined.node}
    assigned = {_root(by_name, node.input[0]): node for node in inlined.node if node.op in LIFTED}
    held = {v.handle._id: v for v in function.graph.variables}
    rows = [
        (inner.op.name, outer, held.get(getattr(outer, "_id", None)))
        for outer, inner in function.graph.captures
        if inner.op.name in assigned
    ]
    if len(rows) != len(assigned) or any(variable is None for _, _, variable in rows):
        raise refusal(path, next(iter(assigned.values())), function)
    return _named(rows, program)


def _named(rows: Sequence[tuple[str, Any, Any]], program: Program) -> tuple[State, ...]:
    """The states, `layer/variable` called `layer_variable_state`, unlike all other names."""
    taken = [port.name for port in program.inputs]
    names = programs.unique([*taken, *(_readable(v.name) for _, _, v in rows)])[len(taken) :]
    outputs = [*program.outputs, *(f"{name}_out" for name in names)]
    after = programs.unique(outputs)[len(program.outputs) :]
    return tuple(
        State(programs.port(name, v.shape, v.dtype), output, placeholder, handle)
        for name, output, (placeholder, handle, v) in zip(names, after, rows, strict=True)
    )


def _readable(variable: str) -> str:
    stem = variable.partition(":")[0].replace("/", "_")
    return stem if stem.endswith("state") else f"{stem}_state"


def _inlined(function: Any) -> Any:
    """The graph of `function` with what it calls in it; branches and loops stay functions."""
    from tensorflow.python.framework import convert_to_constants

    return convert_to_constants._run_inline_graph_optimization(function, False, True)


def _root(nodes: dict[str, Any], name: str) -> str:
    """The node that a handle comes from."""
    node = nodes[replaying.origin(name)]
    while node.op == "Identity":
        node = nodes[replaying.origin(node.input[0])]
    return str(node.name)


def refusal(path: Path, node: Any, function: Any) -> InfcError:
    """E111 for the assignment `node`, with the variables."""
    names = [v.name.partition(":")[0] for v in function.graph.variables if not v.trainable]
    shown = ", ".join(f"`{name}`" for name in sorted(names)[:5])
    return fail(
        "E111",
        f"`{path}` keeps a state: it assigns variables when it is called"
        + (f" ({shown})" if shown else ""),
        where=f"{path.name}:{node.name} ({node.op})",
        help="make the state inputs and outputs of the model, as its TensorFlow Lite version "
        "has it,\nor save it with `stateful=False`",
    )


def note(states: Sequence[State], program: Program) -> tuple[Diagnostic, ...]:
    """What the user has to know of them: names, how they begin, and that they fix the batch."""
    if not states:
        return ()
    pairs = ", ".join(f"`{s.port.name}` -> `{s.output}`" for s in states[:8])
    more = f" and {len(states) - 8} more" if len(states) > 8 else ""
    zero = all(not s.read().any() for s in states)
    begin = "all zeros at first" if zero else "not all zeros at first: see the model's variables"
    text = f"the model keeps a state, here in inputs and outputs ({begin}): {pairs}{more}"
    return (Diagnostic("E111", text, help=_batch(states, program), severity=Severity.NOTE),)


def _batch(states: Sequence[State], program: Program) -> str:
    """What to say of a batch that varies, where all of the state is of one size."""
    sizes = {s.port.shape[0] if s.port.shape else None for s in states}
    varying = [p for p in program.inputs if p.shape and p.shape[0] is None]
    if len(sizes) != 1 or None in sizes or not varying:
        return ""
    (size,) = sizes
    port = varying[0]
    dims = "x".join(["N" if d is None else str(d) for d in (size, *port.shape[1:])])
    return f"where that is a batch of {size}, say so: `--input {port.name}={dims}`"


def runner(program: Program, path: Path) -> Runner:
    """Return a function from feeds to answers, the state among both.

    Raises:
        InfcError: as `find`.
    """
    function = programs.concrete(program)
    states = find(function, program, path)
    run = programs.runner(program, function)

    def whole(feeds: Tensors) -> dict[str, Any]:
        for state in states:
            state.assign(feeds[state.port.name])
        answers = run(feeds)
        return answers | {state.output: state.read() for state in states}

    return whole

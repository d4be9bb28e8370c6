"""Changes to a graph: names stay unique, outputs keep theirs, what is left unused goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting.constants import Array
from infc.passes.rewriting.nodes import WITH_BODY, graphs, is_op, opset
from infc.passes.rewriting.shapes import Dim

Rule = Callable[[ir.Node, "Edit"], bool]


def rewrite(model: ir.Model, rules: Mapping[str, Rule]) -> ir.passes.PassResult:
    """Visit every node once, in order; `rules` maps a standard operator type to its rule."""
    edit = Edit(model)
    modified = False
    for graph in graphs(model):
        for node in graph:
            rule = rules.get(node.op_type)
            if rule is not None and not node.domain:
                modified |= rule(node, edit)
    return ir.passes.PassResult(model, modified=modified)


class Edit:
    """Changes to one model during one pass; `opset` is that of the standard operators."""

    def __init__(self, model: ir.Model) -> None:
        self.opset = opset(model)
        self._model = model
        self._names: set[str] | None = None
        self._node_names: set[str] | None = None

    def fresh(self, hint: str) -> str:
        """A value name that the model does not have, `hint` where that is free."""
        if self._names is None:
            self._names = set(_value_names(self._model))
        name, count = hint, 1
        while name in self._names:
            name, count = f"{hint}_{count}", count + 1
        self._names.add(name)
        return name

    def constant(self, array: Array | ir.TensorProtocol, hint: str, at: ir.Node) -> ir.Value:
        """A new initializer in the graph of `at`."""
        tensor = ir.tensor(array) if isinstance(array, np.ndarray | np.generic) else array
        name = self.fresh(hint)
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        tensor.name = name
        _graph_of(at).initializers[name] = value
        return value

    def ints(self, numbers: Iterable[int], hint: str, at: ir.Node) -> ir.Value:
        """A new int64 initializer of rank one, as axes and shapes are written."""
        return self.constant(np.array(tuple(numbers), np.int64), hint, at)

    def emit(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        at: ir.Node,
        hint: str | None = None,
        dtype: ir.DataType | None = None,
        shape: Sequence[Dim] | None = None,
    ) -> ir.Value:
        """Insert a node with one output before `at` and return its output."""
        name = self.fresh(hint or f"{at.outputs[0].name}_{op_type}")
        value = ir.Value(name=name)
        if dtype is not None:
            value.type = ir.TensorType(dtype)
        if shape is not None:
            value.shape = ir.Shape(list(shape))
        title = self.fresh_node(f"{at.name}/{op_type}") if at.name else ""
        node = ir.Node("", op_type, inputs, _attrs(attributes), outputs=[value], name=title)
        _graph_of(at).insert_before(at, node)
        return value

    def fresh_node(self, hint: str) -> str:
        """A node name that the model does not have: runtimes refuse two of a name."""
        if self._node_names is None:
            self._node_names = {n.name for g in graphs(self._model) for n in g if n.name}
        name, count = hint, 1
        while name in self._node_names:
            name, count = f"{hint}_{count}", count + 1
        self._node_names.add(name)
        return name

    def replace(
        self,
        old: ir.Value | Sequence[ir.Value],
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        at: ir.Node | None = None,
    ) -> ir.Value:
        """Let a new node give `old` (all of it, where it is a list), and remove what gave it.

        The new values take the names, types and shapes of the old ones, also as graph outputs.
        The node goes before `at`, or else before the old producer.
        """
        olds = [old] if isinstance(old, ir.Value) else list(old)
        before = olds[0].producer()
        if before is None:
            raise ValueError("only a node's output can be replaced")
        news = [ir.Value(name=v.name, type=v.type, shape=v.shape) for v in olds]
        for value in olds:
            value.name = None
        node = ir.Node("", op_type, inputs, _attrs(attributes), outputs=news, name=before.name)
        _graph_of(before).insert_before(at or before, node)
        for value, new in zip(olds, news, strict=True):
            value.replace_all_uses_with(new, replace_graph_outputs=True)
        self.erase(before)
        return news[0]

    def forward(self, old: ir.Value, new: ir.Value) -> bool:
        """Let every user of `old` read `new`, which is equal to it, and remove what gave `old`.

        A graph output keeps its name; where `new` cannot take it (it is an input, a constant,
        an output already, or of an outer graph), an Identity stays, and the answer is False
        where the producer of `old` was that Identity already.
        """
        node = old.producer()
        if node is None:
            return False
        if old.is_graph_output():
            source = new.producer()
            if source is None or source.graph is not node.graph or new.is_graph_output():
                if is_op(node, "Identity"):
                    return False
                self.replace(old, "Identity", [new])
                return True
            name, old.name = old.name, None
            new.name = name
            new.shape, new.type = old.shape or new.shape, old.type or new.type
        else:
            _learn(new, old)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        self.erase(node)
        return True

    def erase(self, node: ir.Node) -> None:
        """Remove `node` if nothing reads it, and then what only it read."""
        pending = [node]
        while pending:
            dead = pending.pop()
            if dead.graph is None or dead.op_type in WITH_BODY or dead.domain:
                continue
            if any(value.uses() or value.is_graph_output() for value in dead.outputs):
                continue
            inputs = [value for value in dead.inputs if value is not None]
            _graph_of(dead).remove(dead, safe=True)
            for value in inputs:
                source = value.producer()
                if source is not None:
                    pending.append(source)
                elif value.is_initializer() and not value.uses():
                    _drop_initializer(value)


def _learn(new: ir.Value, old: ir.Value) -> None:
    """Keep what was known of the type and shape of `old`, an equal value."""
    if new.type is None:
        new.type = old.type
    if new.shape is None:
        new.shape = old.shape
    elif old.shape is not None and len(new.shape) == len(old.shape) and not new.is_graph_input():
        merged = [
            b if isinstance(b, int) or (isinstance(a, ir.SymbolicDim) and a.value is None) else a
            for a, b in zip(new.shape, old.shape, strict=True)
        ]
        new.shape = ir.Shape(merged)


def _drop_initializer(value: ir.Value) -> None:
    graph = value.graph
    if value.is_graph_input() or value.is_graph_output() or graph is None or value.name is None:
        return
    del graph.initializers[value.name]


def _graph_of(node: ir.Node) -> ir.Graph:
    if node.graph is None:
        raise ValueError(f"node `{node.name}` is in no graph")
    return node.graph


def _value_names(model: ir.Model) -> Iterator[str]:
    for graph in graphs(model):
        yield from (value.name for value in graph.inputs if value.name)
        yield from graph.initializers
        for node in graph:
            yield from (value.name for value in node.outputs if value.name)


def _attrs(attributes: Mapping[str, Any] | None) -> list[ir.Attr]:
    return [_attr(name, value) for name, value in (attributes or {}).items() if value is not None]


def _attr(name: str, value: Any) -> ir.Attr:
    if isinstance(value, ir.Attr):
        return value
    if isinstance(value, str):
        return ir.AttrString(name, value)
    if isinstance(value, float):
        return ir.AttrFloat32(name, value)
    if isinstance(value, int):
        return ir.AttrInt64(name, value)
    if all(isinstance(item, int) for item in value):
        return ir.AttrInt64s(name, list(value))
    return ir.AttrFloat32s(name, list(value))

"""What every rewriting pass asks of a graph, and how it changes one.

Queries (constants, shapes, attributes, consumers) are functions of values and nodes and answer
`None` for "cannot be proven". Changes go through an `Edit`, which keeps names unique and the same
from run to run, keeps the names of graph outputs, and removes what a rewrite left unused.

A pass is a table of rules by operator type, run over every node once::

    def call(self, model): return rewrite(model, {"Relu": _merge})

    def _merge(node: ir.Node, edit: Edit) -> bool: ...

A rule returns whether it changed the graph. Model-local functions are not visited: they are
inlined before the first rule runs. A value used inside the body of an `If` or `Loop` counts as
used by a node of another graph, which `sole_consumer` and `closed` refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]
Dim = int | str | None
Rule = Callable[[ir.Node, "Edit"], bool]

SMALL_BYTES = 1 << 20
"""Constants read to decide a rewrite (axes, scalars, biases) are not larger than this."""
WEIGHT_BYTES = 1 << 29
"""A weight larger than this is never rewritten."""
LAZY_BYTES = 1 << 22
"""A rewritten weight larger than this is computed when the model is saved, and not kept."""

_WITH_BODY = frozenset(("If", "Loop", "Scan", "SequenceMap"))

FLOATS = frozenset(
    (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
)


# Constants


def const_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor behind an initializer or a Constant node, unless a caller may override it."""
    if value is None or value.is_graph_input():
        return None
    if value.is_initializer():
        return value.const_value
    node = value.producer()
    if node is None or node.op_type != "Constant" or node.domain:
        return None
    attr = next(iter(node.attributes.values()), None)
    if attr is None or attr.is_ref() or len(node.attributes) != 1:
        return None
    if attr.name == "value":
        return attr.as_tensor()
    if attr.name in ("value_float", "value_floats"):
        return ir.tensor(np.array(attr.value, np.float32))
    if attr.name in ("value_int", "value_ints"):
        return ir.tensor(np.array(attr.value, np.int64))
    return None


def const_array(value: ir.Value | None, max_bytes: int = SMALL_BYTES) -> Array | None:
    """The elements of a constant that is not a string and not larger than `max_bytes`."""
    tensor = const_tensor(value)
    if tensor is None or tensor.dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED):
        return None
    return tensor.numpy() if tensor.nbytes <= max_bytes else None


def scalar_of(value: ir.Value | None) -> float | int | bool | None:
    """The one element of a constant of any rank, as a Python number."""
    tensor = const_tensor(value)
    if tensor is None or tensor.size != 1 or tensor.dtype == ir.DataType.STRING:
        return None
    number = tensor.numpy().reshape(())
    return number.item() if number.dtype.kind in "fiub" else float(number)


def is_scalar(value: ir.Value | None, number: float, rel: float = 1e-6) -> bool:
    """Whether `value` is a constant with the one element `number`, up to its dtype's rounding.

    `rel` is for constants such as sqrt(2) that exporters write with float32 or float16 digits.
    """
    found = scalar_of(value)
    if found is None or isinstance(found, bool):
        return False
    if value is not None and dtype_of(value) in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        rel = max(rel, 4e-3 if dtype_of(value) == ir.DataType.BFLOAT16 else 5e-4)
    return bool(found == number or abs(found - number) <= rel * abs(number))


# Types and shapes


def dtype_of(value: ir.Value | None) -> ir.DataType | None:
    """The element type, where it is known."""
    if value is None:
        return None
    if value.dtype is not None:
        return value.dtype
    tensor = const_tensor(value)
    return tensor.dtype if tensor is not None else None


def dims(value: ir.Value | None) -> tuple[Dim, ...] | None:
    """The shape: an int, a symbol, or None for each dimension; None where the rank is unknown.

    A declared dimension of zero or less is unknown: old exporters write it for "any".
    """
    if value is None:
        return None
    tensor = const_tensor(value) if value.shape is None else None
    shape = value.shape if tensor is None else tensor.shape
    if shape is None:
        return None
    known: list[Dim] = []
    for dim in shape:
        if isinstance(dim, int):
            known.append(dim if dim > 0 or value.is_initializer() else None)
        else:
            known.append(dim.value)
    return tuple(known)


def rank(value: ir.Value | None) -> int | None:
    """The number of dimensions, where it is known."""
    shape = dims(value)
    return None if shape is None else len(shape)


def static_dims(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape where every dimension is a known number."""
    shape = dims(value)
    if shape is None:
        return None
    numbers = tuple(dim for dim in shape if isinstance(dim, int))
    return numbers if len(numbers) == len(shape) else None


def same_dims(a: Sequence[Dim] | None, b: Sequence[Dim] | None) -> bool:
    """Whether two shapes are provably equal: the same numbers and the same symbols."""
    return a is not None and b is not None and None not in a and tuple(a) == tuple(b)


def broadcasts_into(small: Sequence[Dim] | None, big: Sequence[Dim] | None) -> bool:
    """Whether broadcasting `small` with `big` provably gives the shape `big`."""
    if small is None or big is None or len(small) > len(big):
        return False
    tail = big[len(big) - len(small) :]
    return all(s == 1 or (s is not None and s == b) for s, b in zip(small, tail, strict=True))


def normal_axes(axes: Iterable[int], rank: int) -> tuple[int, ...] | None:
    """Axes counted from the front; None where one is out of range or twice there."""
    found = [axis + rank if axis < 0 else axis for axis in axes]
    if any(not 0 <= axis < rank for axis in found) or len(set(found)) != len(found):
        return None
    return tuple(found)


# Nodes


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether `node` is one of these standard operators."""
    return node is not None and node.op_type in op_types and not node.domain


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The standard node of one of these types (any, where none is given) that gives `value`."""
    node = value.producer() if value is not None else None
    if node is None or node.domain or (op_types and node.op_type not in op_types):
        return None
    return node


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The only node that reads `value`, once, in its own graph; None for a graph output."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = next(iter(uses)).node
    home = value.producer()
    return node if home is None or home.graph is node.graph else None


def feeds_only(value: ir.Value, node: ir.Node) -> bool:
    """Whether `node` is the sole consumer of `value`."""
    return sole_consumer(value) is node


def closed(nodes: Iterable[ir.Node], root: ir.Node) -> bool:
    """Whether nothing but `nodes` sees what they compute, save for the outputs of `root`."""
    inside = set(nodes)
    return all(
        not value.is_graph_output() and all(use.node in inside for use in value.uses())
        for node in inside
        if node is not root
        for value in node.outputs
    )


def given(node: ir.Node, index: int) -> ir.Value | None:
    """The input at `index`, where there is one."""
    return node.inputs[index] if index < len(node.inputs) else None


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The value of an attribute; ONNX's default is the caller's to know."""
    attr = node.attributes.get(name)
    return default if attr is None else attr.value


def int_list(node: ir.Node, name: str, index: int) -> tuple[int, ...] | None:
    """A list that older opsets hold in the attribute `name`, newer ones in a constant input.

    None where it is absent or not constant; `is_given` tells which.
    """
    attr = node.attributes.get(name)
    if attr is not None:
        return tuple(attr.value) if isinstance(attr.value, Sequence) else (int(attr.value),)
    array = const_array(given(node, index))
    if array is None or array.dtype.kind not in "iu":
        return None
    return tuple(int(i) for i in array.reshape(-1))


def is_given(node: ir.Node, name: str, index: int) -> bool:
    """Whether `name` is there, as an attribute or as the input at `index`."""
    return name in node.attributes or given(node, index) is not None


def other_input(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """The other operand of a binary node."""
    a, b = node.inputs
    return b if a is value else a


def split_constant(node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """The (variable, constant) operands of a commutative binary node with one constant."""
    if len(node.inputs) != 2:
        return None
    a, b = node.inputs
    if a is None or b is None:
        return None
    if const_tensor(b) is not None:
        return (a, b) if const_tensor(a) is None else None
    return (b, a) if const_tensor(a) is not None else None


def graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph and every graph inside it, outer before inner."""
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph:
            if node.op_type in _WITH_BODY or node.domain:
                pending.extend(bodies(node))


def bodies(node: ir.Node) -> list[ir.Graph]:
    """The subgraphs among the attributes of a node."""
    found: list[ir.Graph] = []
    for attr in node.attributes.values():
        if attr.type == ir.AttributeType.GRAPH and not attr.is_ref():
            found.append(attr.as_graph())
        elif attr.type == ir.AttributeType.GRAPHS and not attr.is_ref():
            found.extend(attr.as_graphs())
    return found


def opset(model: ir.Model) -> int:
    """The version of the standard operator set."""
    imports = model.opset_imports
    return imports.get("", imports.get("ai.onnx", 1))


# Changes


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
            if dead.graph is None or dead.op_type in _WITH_BODY or dead.domain:
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


def kept(node: ir.Node, *without: str) -> dict[str, Any]:
    """The attributes of `node`, to be given to its replacement, save for those named."""
    return {name: attr for name, attr in node.attributes.items() if name not in without}


# Weights


def weights(value: ir.Value | None) -> ir.TensorProtocol | None:
    """A constant that a rewrite may recompute: floating point and not larger than WEIGHT_BYTES."""
    tensor = const_tensor(value)
    if tensor is None or tensor.dtype not in FLOATS or tensor.nbytes > WEIGHT_BYTES:
        return None
    return tensor


def elements(tensor: ir.TensorProtocol) -> Array:
    """The elements of a tensor; a big one is read from its file, not mapped.

    The pages of a map that were touched stay resident as long as the tensor lives: with weights
    of 2 GB that are all rewritten, 1.6 GB of them.
    """
    if (
        not isinstance(tensor, ir.ExternalTensor)
        or tensor.nbytes <= SMALL_BYTES
        or tensor.dtype.bitwidth < 8
    ):
        return tensor.numpy()
    dtype = tensor.dtype.numpy()
    array = np.fromfile(
        tensor.path, dtype.newbyteorder("<"), tensor.size, offset=tensor.offset or 0
    )
    return array.reshape(tensor.shape.numpy())


def recomputed(
    tensor: ir.TensorProtocol,
    shape: Sequence[int],
    compute: Callable[[Array], Array],
) -> ir.TensorProtocol | None:
    """`compute(tensor)` in float32 or wider, rounded back to the type of `tensor`.

    Big tensors are computed when they are read, so that a large model is never in memory whole.
    None where a finite number would overflow its type.
    """
    dtype = tensor.dtype

    def evaluate() -> Array:
        wide = elements(tensor)
        if dtype != ir.DataType.DOUBLE:
            wide = wide.astype(np.float32, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.ascontiguousarray(compute(wide).astype(dtype.numpy(), copy=False))

    if tensor.nbytes > LAZY_BYTES and dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return ir.LazyTensor(
            lambda: ir.tensor(evaluate(), dtype=dtype), dtype=dtype, shape=ir.Shape(list(shape))
        )
    array = evaluate()
    if not np.isfinite(array.astype(np.float32)).all():
        return None
    return ir.tensor(array, dtype=dtype)

"""A graph built again, node by node, some of its operators by something else.

    GraphDef -> for each node in order: what `rule` makes of it, or the node as it was -> Graph

Control edges order the nodes, and are then left out: what they are for, side effects, is what a
rule takes away. What a rule returns need not be tensors, as long as it knows those values again:
a pair for a complex number, a handle for a variable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

Rule = Callable[[Any, Sequence[Any]], "Sequence[Any] | None"]
"""Takes a NodeDef and its inputs; returns its outputs, or None to have the node as it was."""


def replay(definition: Any, rule: Rule) -> tuple[Any, dict[str, Any]]:
    """Return the new graph, and what became of each tensor, by its name before, `node:0`.

    Names can change: TensorFlow wants one that is also the start of another's path to come first.
    """
    import tensorflow as tf

    values: dict[str, Any] = {}
    with tf.Graph().as_default() as graph:
        _import_functions(definition)
        for node in ordered(definition):
            inputs = [values[tensor(name)] for name in node.input if name[0] != "^"]
            outputs = rule(node, inputs)
            if outputs is None:
                outputs = _copy(definition, node, inputs)
            values.update({f"{node.name}:{i}": value for i, value in enumerate(outputs)})
    return graph, values


def tensor(name: str) -> str:
    """An input of a NodeDef as the name of a tensor: `node` is `node:0`."""
    return name if ":" in name else f"{name}:0"


def origin(name: str) -> str:
    """The node that an input of a NodeDef comes from, or waits for."""
    return name.lstrip("^").partition(":")[0]


def ordered(definition: Any) -> Iterator[Any]:
    """The nodes, each after what it reads and what it waits for.

    Raises:
        ValueError: a cycle, as the loops of TensorFlow 1 are.
    """
    from graphlib import CycleError, TopologicalSorter

    nodes = {node.name: node for node in definition.node}
    edges = {name: [origin(i) for i in node.input] for name, node in nodes.items()}
    try:
        yield from (nodes[name] for name in TopologicalSorter(edges).static_order())
    except CycleError as error:
        raise ValueError("the graph has a cycle") from error


def _copy(definition: Any, node: Any, inputs: Sequence[Any]) -> list[Any]:
    import tensorflow as tf

    single = tf.compat.v1.GraphDef(versions=definition.versions)
    copied = single.node.add()
    copied.CopyFrom(node)
    copied.device = ""
    copied.attr.pop("_class", None)  # names nodes that are not in this graph of one
    del copied.input[:]
    names = [f"infc_in_{i}:0" for i in range(len(inputs))]
    copied.input.extend(names)
    given = dict(zip(names, inputs, strict=True))
    (made,) = tf.import_graph_def(single, given, return_elements=[node.name], name="")
    return list(made.outputs)


def _import_functions(definition: Any) -> None:
    """The functions of a graph, which its nodes call by name."""
    import tensorflow as tf

    library = tf.compat.v1.GraphDef(versions=definition.versions, library=definition.library)
    tf.import_graph_def(library, name="")

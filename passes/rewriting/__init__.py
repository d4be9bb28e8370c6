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

from infc.passes.rewriting.constants import (
    FLOATS,
    LAZY_BYTES,
    SMALL_BYTES,
    WEIGHT_BYTES,
    Array,
    const_array,
    const_tensor,
    dtype_of,
    elements,
    recomputed,
    scalar_of,
    weights,
)
from infc.passes.rewriting.edit import (
    Edit,
    Rule,
    rewrite,
)
from infc.passes.rewriting.nodes import (
    attribute,
    bodies,
    closed,
    feeds_only,
    given,
    graphs,
    int_list,
    is_given,
    is_op,
    kept,
    opset,
    other_input,
    producer,
    sole_consumer,
    split_constant,
)
from infc.passes.rewriting.shapes import (
    Dim,
    broadcasts_into,
    dims,
    normal_axes,
    rank,
    same_dims,
    static_dims,
)

__all__ = [
    "Array",
    "Dim",
    "Edit",
    "FLOATS",
    "LAZY_BYTES",
    "Rule",
    "SMALL_BYTES",
    "WEIGHT_BYTES",
    "attribute",
    "bodies",
    "broadcasts_into",
    "closed",
    "const_array",
    "const_tensor",
    "dims",
    "dtype_of",
    "elements",
    "feeds_only",
    "given",
    "graphs",
    "int_list",
    "is_given",
    "is_op",
    "kept",
    "normal_axes",
    "opset",
    "other_input",
    "producer",
    "rank",
    "recomputed",
    "rewrite",
    "same_dims",
    "scalar_of",
    "sole_consumer",
    "split_constant",
    "static_dims",
    "weights",
]

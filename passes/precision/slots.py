"""Which inputs and outputs of a node may become another float type, by its operator's schema.

A schema binds formal inputs and outputs to type variables (`T: {float16, float, ...}`), or to one
concrete type. A node can be converted where every variable that is float32 in it may be the lower
type; concrete float32 inputs stay. An output whose variable no input binds (Cast, the statistics
of LayerNormalization) is what the node's attributes say, and stays too, but for Cast.

Source: onnx.defs, at the model's opset.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import onnx
import onnx_ir as ir

from infc.passes.precision.formats import Format
from infc.passes.precision.policy import FLOAT32_INPUTS
from infc.passes.rewriting import attribute, is_op

_FLOAT = "tensor(float)"


@dataclass(frozen=True, slots=True)
class Slots:
    """The positions of a node's inputs and outputs that take the lower type."""

    inputs: frozenset[int]
    outputs: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Schema:
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    variadic: tuple[bool, bool]
    variables: dict[str, frozenset[str]]


@cache
def _schema(op_type: str, version: int) -> _Schema | None:
    if not onnx.defs.has(op_type, version, ""):
        return None
    schema = onnx.defs.get_schema(op_type, version, "")
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic

    def last_repeats(formal: Any) -> bool:
        return bool(formal) and formal[-1].option == variadic

    if any(not f.is_homogeneous for f in (*schema.inputs, *schema.outputs)):
        return None
    return _Schema(
        tuple(f.type_str for f in schema.inputs),
        tuple(f.type_str for f in schema.outputs),
        (last_repeats(schema.inputs), last_repeats(schema.outputs)),
        {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints},
    )


def slots_of(node: ir.Node, version: int, form: Format) -> Slots | None:
    """What `node` could have in `form`; None where it must stay as it is."""
    schema = None if node.domain else _schema(node.op_type, version)
    if schema is None:
        return None
    if is_op(node, "Cast"):
        return _cast_slots(node, schema, form)
    bound: dict[str, set[int]] = {}
    for i, kind in _bound(node.inputs, schema.inputs, schema.variadic[0]):
        value = node.inputs[i]
        if not _is_tensor(value):
            return None
        if value is not None and value.dtype == ir.DataType.FLOAT and kind in schema.variables:
            bound.setdefault(kind, set()).add(i)
    for kind, places in bound.items():
        if all((node.op_type, i) in FLOAT32_INPUTS for i in places):
            bound[kind] = set()
        elif form.type_string not in schema.variables[kind]:
            return None
    low = {kind for kind, places in bound.items() if places}
    outputs = set()
    for i, kind in _bound(node.outputs, schema.outputs, schema.variadic[1]):
        value = node.outputs[i]
        if not value.name:
            continue
        if not _is_tensor(value) or (kind in low and value.dtype != ir.DataType.FLOAT):
            return None
        if kind in low:
            outputs.add(i)
    inputs = {i for places in bound.values() for i in places}
    return Slots(frozenset(inputs), frozenset(outputs)) if inputs else None


def _cast_slots(node: ir.Node, schema: _Schema, form: Format) -> Slots | None:
    """A Cast reads any type; one that gives float32 may give less."""
    allowed = form.type_string in schema.variables.get(schema.outputs[0], frozenset())
    to_float = attribute(node, "to") == ir.DataType.FLOAT
    return Slots(frozenset(), frozenset({0})) if allowed and to_float else None


def _bound(actual: Any, formal: tuple[str, ...], repeats: bool) -> Iterator[tuple[int, str]]:
    """The position of each input (or output) that is there, and its formal type."""
    for i, value in enumerate(actual):
        if value is not None and (i < len(formal) or repeats):
            yield i, formal[min(i, len(formal) - 1)]


def _is_tensor(value: ir.Value | None) -> bool:
    """Whether `value` is a tensor of known type, or absent."""
    return value is None or isinstance(value.type, ir.TensorType)

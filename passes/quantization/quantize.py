"""Ranges and a scheme made Q/DQ: every unit of the placement computes in integers then."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from infc.passes.quantization.affine import EVERYTHING, affine, weights
from infc.passes.quantization.bias_correction import correction
from infc.passes.quantization.insertion import Insertion
from infc.passes.quantization.opset import raise_opset
from infc.passes.quantization.placement import Placement, is_quantized, place
from infc.passes.quantization.saturation import useful
from infc.passes.quantization.units import Unit, name_of
from infc.passes.rewriting import Array, const_array, const_tensor, elements
from infc.quantization import QuantizationRecord, QuantizedTensor, Range, Scheme

WEIGHT_LIMIT = 1 << 31
"""No protobuf holds more than this in one tensor."""


def observed(model: ir.Model, scheme: Scheme) -> tuple[str, ...]:
    """The names of the values that `quantize` may need the ranges and means of, in graph order.

    They are enough for every `keep_float`, and for all convolutions, whichever the scheme leaves
    in float. None for a model that came quantised.
    """
    if is_quantized(model):
        return ()
    placement = place(model, replace(scheme, least_channels=1), frozenset(), {})
    return tuple(v.name for v in placement.group if v.name)


def quantize(
    model: ir.Model,
    ranges: Mapping[str, Range],
    scheme: Scheme,
    *,
    keep_float: frozenset[str] = frozenset(),
    means: Mapping[str, Array] | None = None,
) -> QuantizationRecord:
    """Write Q/DQ into `model`, in place, and say what was and what was not quantised.

    `ranges` and `means` ((C,) float32, over the axis 1) go by value name; without `means` no bias
    is corrected. `keep_float` names nodes, or values that they give. Graph inputs and outputs
    stay float32. The opset is raised to 13 where something is quantised.

    Raises:
        InfcError: E204 where the opset cannot be raised.
    """
    if is_quantized(model):
        return QuantizationRecord(scheme.name, already=True)
    placement = _usable(model, ranges, scheme, keep_float)
    if not placement.units:
        return QuantizationRecord(scheme.name, kept=placement.kept)
    if raise_opset(model):
        placement = _usable(model, ranges, scheme, keep_float)
    maps = _maps(placement, ranges, scheme)
    insertion = Insertion(model)
    for unit in placement.units.values():
        if unit.weight is not None:
            _round_weights(unit, maps[unit.inputs[0]], insertion, scheme, means or {})
    _insert_pairs(placement, maps, insertion)
    _remove_unread(model)
    return QuantizationRecord(
        scheme.name,
        tuple(name_of(n) for u in placement.units.values() for n in u.nodes),
        placement.kept,
        {v.name or "": maps[v] for v in placement.values},
    )


def _usable(
    model: ir.Model, ranges: Mapping[str, Range], scheme: Scheme, keep_float: frozenset[str]
) -> Placement:
    """The placement in which every scale has its range."""
    unusable: dict[str, str] = {}
    finite: dict[ir.Value, bool] = {}
    while True:
        placement = place(model, scheme, keep_float, unusable)
        known = len(unusable)
        for value in (v for roots in placement.roots.values() for v in roots):
            name = value.name or ""
            span = ranges.get(name)
            if span is None:
                unusable[name] = "has no measured range"
            elif not (math.isfinite(span.low) and math.isfinite(span.high)):
                unusable[name] = "is not finite"
        for value in (u.weight for u in placement.units.values() if u.weight is not None):
            if value not in finite:
                finite[value] = bool(np.isfinite(elements(_constant(value))).all())
                if not finite[value]:
                    unusable[value.name or ""] = "is not finite"
        if len(unusable) == known:
            return placement


def _maps(
    placement: Placement, ranges: Mapping[str, Range], scheme: Scheme
) -> dict[ir.Value, QuantizedTensor]:
    """The affine map of every value; a group has that of the widest of its roots."""
    by_group: dict[int, QuantizedTensor] = {}
    for group, roots in placement.roots.items():
        spans = [_within(ranges[v.name or ""], placement.bounds.get(v)) for v in roots]
        if len(placement.members(group)) == 1:
            spans = [_within(spans[0], useful(roots[0]))]
        whole = Range(min(s.low for s in spans), max(s.high for s in spans))
        bounds = placement.bounds.get(roots[0], EVERYTHING)
        by_group[group] = affine(
            whole,
            scheme,
            # Only there do the integers have to stand for the activation itself.
            bounds=bounds if scheme.requantized and len(roots) == 1 else EVERYTHING,
            symmetric=group in placement.symmetric,
        )
    return {v: by_group[group] for v, group in placement.group.items()}


def _within(span: Range, bounds: tuple[float, float] | None) -> Range:
    """`span` without what an activation cuts off."""
    low, high = bounds or EVERYTHING
    return Range(max(span.low, low), min(span.high, high))


def _round_weights(
    unit: Unit,
    source: QuantizedTensor,
    insertion: Insertion,
    scheme: Scheme,
    means: Mapping[str, Array],
) -> None:
    """Weights as integers and the bias as the scheme wants it."""
    if unit.weight is None:
        return
    array = elements(_constant(unit.weight)).astype(np.float32, copy=False)
    bias = const_array(unit.bias, WEIGHT_LIMIT)
    vector = None if bias is None else bias.reshape(-1).astype(np.float32)
    integer_bias = scheme.bias == "int32"
    rounded = weights(
        array,
        unit.axis,
        scheme,
        input_scale=source.scale,
        bias=vector if integer_bias else None,
    )
    shift = correction(unit, array, rounded, means.get(unit.inputs[0].name or ""))
    node = unit.node
    read = insertion.weight(unit.weight, rounded, unit.axis if rounded.scale.ndim else None, node)
    node.replace_input_with(1, read)
    if vector is None and shift is None:
        return
    corrected = _sum(vector, shift)
    hint = (unit.bias.name if unit.bias is not None else None) or f"{node.outputs[0].name}_bias"
    reader = unit.bias_add or node
    if integer_bias:
        scale = (rounded.scale * np.float32(source.scale)).astype(np.float32)
        new = insertion.bias(corrected, scale, hint, reader)
    elif shift is not None:
        new = insertion.edit.constant(corrected, f"{hint}_corrected", reader)
    else:
        return
    if unit.bias is not None:
        reader.replace_input_with(list(reader.inputs).index(unit.bias), new)
        return
    node.resize_inputs(3)
    node.replace_input_with(2, new)


def _sum(vector: Array | None, shift: Array | None) -> Array:
    if vector is None or shift is None:
        only = shift if vector is None else vector
        return np.asarray(only, np.float32)
    return np.asarray(vector + shift, np.float32)


def _insert_pairs(
    placement: Placement,
    maps: Mapping[ir.Value, QuantizedTensor],
    insertion: Insertion,
) -> None:
    integer = {n for u in placement.units.values() for n in u.nodes}
    first = {u.node for u in placement.units.values()}
    for value in placement.values:
        source = value.producer()
        readers = {use.node for use in value.uses() if use.node.graph is insertion.graph}
        # A float result is there for those who compute in float; an integer one is all there is.
        if source not in integer:
            readers &= first
        group = placement.group[value]
        root = placement.roots[group][0]
        parameters = insertion.parameters(group, maps[value], root.name or "value")
        insertion.pair(value, parameters, readers, output=value in placement.given)


def _constant(value: ir.Value) -> ir.TensorProtocol:
    tensor = const_tensor(value)
    if tensor is None:
        raise ValueError(f"`{value.name}` is not a constant")
    return tensor


def _remove_unread(model: ir.Model) -> None:
    """The float weights that integers have replaced."""
    initializers = model.graph.initializers
    for name, value in list(initializers.items()):
        if not value.uses() and not value.is_graph_input() and not value.is_graph_output():
            del initializers[name]

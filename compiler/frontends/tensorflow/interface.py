"""The interface of an exported model: names, dimensions and layout as the user has them.

Inputs and outputs are named after the source; a leading dimension that varies is `batch`, another
one `<input>_dim<axis>`. With the layout "nchw", image inputs and outputs move their channels first:

    x (N, H, W, C) -> ...   becomes   x (N, C, H, W) -> Transpose(0, 2, 3, 1) -> ...

An input is an image where all that reads it, through operators that keep the axes apart, is a
Transpose to N, C, H, W, which is how tf2onnx feeds a convolution, pooling or resizing; an output
likewise where it comes from a Transpose back. One channel is moved by reshaping, there as here.
The passes `push-transpose`, `simplify-reshape` and `absorb-transpose` then take both away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from infc.frontends.onnx_context import subgraphs
from infc.frontends.tensorflow.programs import Port
from infc.signature import numpy_dtype

if TYPE_CHECKING:
    from infc.diagnostics import Diagnostic
    from infc.targets import Runner, Tensors

BATCH = "batch"
TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
KEEPING = frozenset(
    (
        *("Abs", "Add", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Div", "Elu"),
        *("DequantizeLinear", "Exp", "Floor", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu"),
        *("Log", "Max", "Min", "Mul", "Neg", "PRelu", "Pad", "Pow", "QuantizeLinear", "Relu"),
        *("Sigmoid", "Slice", "Softplus", "Split", "Sqrt", "Sub", "Tanh"),
    )
)
"""Operators that an image goes through, axes in place, until a convolution takes it."""
RENAMING = ("Reshape", "Squeeze", "Unsqueeze")
CHANNELS_FIRST = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "Resize", "DepthToSpace")
"""What an image of one channel, which is reshaped and not transposed, is reshaped for."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an exporter made: the model, with its own names for `inputs` and `outputs`, in order."""

    model: Any
    inputs: tuple[tuple[str, Port], ...]
    outputs: tuple[tuple[str, str], ...]
    notes: tuple[Diagnostic, ...] = ()


def settle(exported: Exported, layout: str) -> dict[str, list[str]]:
    """Write names, dimensions and layout into the model.

    Returns the inputs and outputs that were moved.
    """
    graph = exported.model.graph
    del graph.value_info[:]
    _set_outputs(graph, exported)
    _set_inputs(graph, exported)
    _rename(graph, exported)
    moved: dict[str, list[str]] = {"inputs": [], "outputs": []}
    if layout:
        moved = _move(graph)
    return moved


def _set_outputs(graph: Any, exported: Exported) -> None:
    """The outputs in order, each the result of a node of its own, without invented symbols."""
    known = {value.name: value for value in graph.output}
    produced = {name for node in graph.node for name in node.output}
    rows, taken = [], set[str]()
    for theirs, name in exported.outputs:
        row = onnx.ValueInfoProto()
        row.CopyFrom(known[theirs])
        row.name = name
        for dim in row.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.Clear()
        if theirs not in produced or theirs in taken:
            graph.node.append(onnx.helper.make_node("Identity", [theirs], [f"{theirs}/{name}"]))
        taken.add(theirs)
        rows.append(row)
    del graph.output[:]
    graph.output.extend(rows)


def _set_inputs(graph: Any, exported: Exported) -> None:
    """The inputs in order, those that nothing reads as well."""
    del graph.input[:]
    for _, port in exported.inputs:
        code = onnx.helper.np_dtype_to_tensor_dtype(numpy_dtype(port.dtype))
        dims = [_dim(port, axis) for axis in range(len(port.shape))]
        graph.input.append(onnx.helper.make_tensor_value_info(port.name, code, dims))


def _dim(port: Port, axis: int) -> int | str:
    """The size of a dimension, or its readable name."""
    size = port.shape[axis]
    if size is not None:
        return size
    stem = re.sub(r":0$", "", port.name)
    return BATCH if axis == 0 else f"{stem}_dim{axis}"


def _rename(graph: Any, exported: Exported) -> None:
    """Give what the user knows its name, and what had that name before another."""
    mapping = {theirs: port.name for theirs, port in exported.inputs}
    produced = {name for node in graph.node for name in node.output}
    for theirs, name in exported.outputs:
        apart = f"{theirs}/{name}"
        mapping[apart if apart in produced else theirs] = name
    wanted = set(mapping.values())
    names = set(_names(graph))
    for name in sorted((names & wanted) - set(mapping)):
        number = next(i for i in count(1) if f"{name}__{i}" not in names | wanted)
        mapping[name] = f"{name}__{number}"
    _apply(graph, mapping)


def _names(graph: Any) -> Iterator[str]:
    """Of every value in `graph` and the graphs in it."""
    yield from (t.name for t in graph.initializer)
    for node in graph.node:
        yield from node.output
        for inner in subgraphs(node):
            yield from (v.name for v in inner.input)
            yield from _names(inner)


def _apply(graph: Any, mapping: Mapping[str, str]) -> None:
    for tensor in graph.initializer:
        tensor.name = mapping.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [mapping.get(name, name) for name in node.input]
        node.output[:] = [mapping.get(name, name) for name in node.output]
        for inner in subgraphs(node):
            for value in (*inner.input, *inner.output, *inner.value_info):
                value.name = mapping.get(value.name, value.name)
            _apply(inner, mapping)


def save(model: Any, path: Path) -> None:
    """Write the model, with its weights beside it where one protobuf cannot hold them."""
    large = model.ByteSize() > 2**31 - 2**20
    onnx.save(model, path, save_as_external_data=large, location="weights")


def moving(run: Runner, moved: dict[str, list[str]], outputs: Sequence[str]) -> Runner:
    """`run`, which takes and gives channels last, with channels first where `moved` says so."""

    def whole(feeds: Tensors) -> dict[str, Any]:
        given = {
            k: np.transpose(v, TO_NHWC) if k in moved["inputs"] else v for k, v in feeds.items()
        }
        answers = run(given)
        return {
            k: np.transpose(answers[k], TO_NCHW) if k in moved["outputs"] else answers[k]
            for k in outputs
        }

    return whole


def _move(graph: Any) -> dict[str, list[str]]:
    """Channels first wherever an image comes in or goes out."""
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in (*node.input, *_captured(node)):
            readers.setdefault(name, []).append(node)
    makers = {name: node for node in graph.node for name in node.output}
    images = [v for v in graph.input if _rank(v) == 4 and _is_fed_to_nchw(v, readers)]
    pictures = [v for v in graph.output if _rank(v) == 4 and _is_made_of_nchw(v, makers)]
    for value in images:
        inner = f"{value.name}__nhwc"
        for node in readers[value.name]:
            node.input[:] = [inner if name == value.name else name for name in node.input]
        for node in reversed(_turned(graph, value.name, inner, TO_NHWC, _is_grey(value))):
            graph.node.insert(0, node)
        _permute(value, TO_NCHW)
    for value in pictures:
        inner = f"{value.name}__nhwc"
        for node in graph.node:
            node.input[:] = [inner if name == value.name else name for name in node.input]
            node.output[:] = [inner if name == value.name else name for name in node.output]
        graph.node.extend(_turned(graph, inner, value.name, TO_NCHW, _is_grey(value)))
        _permute(value, TO_NCHW)
    return {"inputs": [v.name for v in images], "outputs": [v.name for v in pictures]}


def _is_grey(value: Any) -> bool:
    """Whether a picture, channels last, has one channel, which tf2onnx moves by reshaping."""
    return bool(value.type.tensor_type.shape.dim[3].dim_value == 1)


def _turned(graph: Any, name: str, result: str, perm: Sequence[int], grey: bool) -> list[Any]:
    """Nodes that permute the axes of `name`; of one channel in the way that merges with others."""
    if not grey:
        return [onnx.helper.make_node("Transpose", [name], [result], perm=perm)]
    before, after = (1, 3) if perm == TO_NHWC else (3, 1)
    flat, axes = f"{result}__flat", (f"{result}__before", f"{result}__after")
    for axis, text in zip((before, after), axes, strict=True):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([axis]), text))
    return [
        onnx.helper.make_node("Squeeze", [name, axes[0]], [flat]),
        onnx.helper.make_node("Unsqueeze", [flat, axes[1]], [result]),
    ]


def _captured(node: Any) -> Iterator[str]:
    for inner in subgraphs(node):
        for row in inner.node:
            yield from (*row.input, *_captured(row))


def _rank(value: Any) -> int:
    return len(value.type.tensor_type.shape.dim)


def _permute(value: Any, perm: Sequence[int]) -> None:
    dims = value.type.tensor_type.shape.dim
    copies = [type(dims[i]).FromString(dims[i].SerializeToString()) for i in perm]
    del dims[:]
    dims.extend(copies)


def _is_fed_to_nchw(value: Any, readers: Mapping[str, list[Any]]) -> bool:
    """Whether some reader of an input, through `KEEPING`, takes it channels first."""
    grey = _is_grey(value)
    pending, seen = [value.name], {value.name}
    while pending:
        for node in readers.get(pending.pop(), []):
            if _turns(node, TO_NCHW) or (grey and node.op_type in CHANNELS_FIRST):
                return True
            if node.op_type in KEEPING or (grey and node.op_type in RENAMING):
                pending += [n for n in node.output if n not in seen]
                seen.update(node.output)
    return False


def _is_made_of_nchw(value: Any, makers: Mapping[str, Any]) -> bool:
    """Whether an output comes, through `KEEPING`, from what was channels first."""
    grey = _is_grey(value)
    pending, seen = [value.name], {value.name}
    while pending:
        node = makers.get(pending.pop())
        if node is None:
            continue
        if _turns(node, TO_NHWC) or (grey and node.op_type in CHANNELS_FIRST):
            return True
        if node.op_type in KEEPING or (grey and node.op_type in RENAMING):
            pending += [n for n in node.input[:1] if n not in seen]
            seen.update(node.input)
    return False


def _turns(node: Any, perm: Sequence[int]) -> bool:
    if node.op_type != "Transpose":
        return False
    return any(a.name == "perm" and tuple(a.ints) == tuple(perm) for a in node.attribute)

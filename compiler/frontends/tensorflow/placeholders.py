"""Shapes of placeholders that a frozen graph does not say, as far as the graph implies them.

The rank is the only one that TensorFlow's own shape inference accepts. Channels are as many as the
filter of the first convolution has, features as many as the matrix has rows: of

    x (?, ?, ?, ?) -> Conv2D(filter 5x5x1x56)       the input is N x H x W x 1
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

RANKS = range(1, 6)
"""Old graphs write a scalar for what they do not know, so that TensorFlow takes it for that."""
SAME_CHANNELS = frozenset(
    (
        *("Abs", "Add", "AddV2", "AvgPool", "BiasAdd", "Cast", "Div", "Elu", "FusedBatchNorm"),
        *("FusedBatchNormV3", "Identity", "LeakyRelu", "MaxPool", "Maximum", "Minimum"),
        *("MirrorPad", "Mul", "Neg", "Pad", "PadV2", "RealDiv", "Relu", "Relu6"),
        *("ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor", "Selu", "Sigmoid"),
        *("Square", "StopGradient", "Sub", "Tanh"),
    )
)
"""Operators through which channels are counted as they came."""


def settle(
    definition: Any, tensors: Iterable[str], given: Mapping[str, Sequence[int | None]]
) -> None:
    """Write into the placeholders of `definition`, called `tensors`, what is known of their shapes.

    `given` maps some of them to the user's dimensions, None for one that varies.
    """
    nodes = {node.name: node for node in definition.node}
    for tensor in tensors:
        node = nodes[tensor.partition(":")[0]]
        if node.op not in ("Placeholder", "PlaceholderV2"):
            continue
        shape = _imported(definition).get_tensor_by_name(tensor).shape
        if shape.rank is not None and None not in shape.as_list()[1:]:
            continue
        known = shape.as_list() if shape.rank is not None else given.get(tensor)
        if known is None:
            known = _only_rank(definition, node)
        if known is None:
            continue
        _write(node, known)
        counted = _with_channels(_imported(definition).get_tensor_by_name(tensor), known)
        _write(node, counted)


def _imported(definition: Any) -> Any:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
    return graph


def _write(node: Any, dims: Sequence[int | None]) -> None:
    shape = node.attr["shape"].shape
    shape.Clear()
    for size in dims:
        shape.dim.add().size = -1 if size is None else size


def _only_rank(definition: Any, node: Any) -> list[None] | None:
    """As many unknown dimensions as the rank has, where all others contradict the graph."""
    accepted = []
    for rank in RANKS:
        _write(node, [None] * rank)
        try:
            _imported(definition)
        except ValueError:
            continue
        accepted.append(rank)
    del node.attr["shape"]
    return [None] * accepted[0] if len(accepted) == 1 else None


def _with_channels(tensor: Any, dims: Sequence[int | None]) -> list[int | None]:
    """The dimensions with that filled in which the first operator with weights takes."""
    pending, seen = [tensor], {tensor.name}
    while pending:
        value = pending.pop()
        for reader in value.consumers():
            found = _channels(reader, value)
            if found is not None:
                axis, size = found
                return [size if i == axis % len(dims) else d for i, d in enumerate(dims)]
            if reader.type in SAME_CHANNELS:
                results = [v for v in reader.outputs[:1] if v.name not in seen]
                seen.update(v.name for v in results)
                pending += results
    return list(dims)


def _channels(reader: Any, value: Any) -> tuple[int, int] | None:
    """(axis, size) that an operator with weights asks of its first input."""
    if len(reader.inputs) < 2 or reader.inputs[0] is not value:
        return None
    weights = reader.inputs[1].shape
    if reader.type in ("Conv2D", "DepthwiseConv2dNative") and weights.rank == 4:
        first = reader.get_attr("data_format") == b"NCHW"
        size = weights[2]
        return None if size is None else (1 if first else -1, size)
    if reader.type == "MatMul" and weights.rank == 2:
        size = weights[1 if reader.get_attr("transpose_b") else 0]
        return None if size is None or reader.get_attr("transpose_a") else (-1, size)
    return None

"""Equal initializers become one: w1 = w2 (type, shape, bytes) -> w1.

Weights that are shared in the source framework come out of exporters as copies; equal constants
must also be one value before equal nodes can be recognised. Tensors are compared in four steps,
each cheaper than the next and each on what the one before could not tell apart: type and shape;
a few sampled pages; a digest of the whole; the bytes themselves. Big weights that differ are
hence never read whole, and files are read in blocks, not mapped, so that nothing stays resident.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator

import numpy as np
import onnx_ir as ir

from infc.passes.rewriting import SMALL_BYTES, Array, graphs

SAMPLE_BYTES = 512
BLOCK_BYTES = 1 << 22


class DeduplicateInitializers(ir.passes.InPlacePass):
    """Merge equal initializers within each graph."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Keep the first of each set of equal initializers."""
        modified = False
        for graph in graphs(model):
            values = [v for v in graph.initializers.values() if _mergeable(v)]
            for equal in _equal_sets(values):
                modified = True
                for value in equal[1:]:
                    value.replace_all_uses_with(equal[0])
                    if value.name is not None:
                        del graph.initializers[value.name]
        return ir.passes.PassResult(model, modified=modified)


def _mergeable(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or value.is_graph_input() or value.is_graph_output():
        return False
    # A lazy tensor is computed from others; to compare it would compute it, whole.
    return not isinstance(tensor, ir.LazyTensor) and not _is_placeholder(tensor)


def _is_placeholder(tensor: ir.TensorProtocol) -> bool:
    """A large weight of one repeated element, folded from ConstantOfShape, stands for a real one.

    Sharing it would keep BatchNormalization from being folded into each of its readers.
    """
    if tensor.nbytes <= SMALL_BYTES or not isinstance(tensor.raw, np.ndarray):
        return False
    return not any(tensor.raw.strides)


def _equal_sets(values: list[ir.Value]) -> Iterator[list[ir.Value]]:
    """Sets of two or more equal values, each in graph order."""
    groups = [values]
    for key in (_type_key, _sample_key, _digest_key):
        groups = [part for group in groups for part in _partition(group, key)]
        if not groups:
            return
    yield from groups


def _partition(
    values: list[ir.Value], key: Callable[[ir.TensorProtocol], Hashable]
) -> list[list[ir.Value]]:
    parts: dict[Hashable, list[ir.Value]] = defaultdict(list)
    for value in values:
        if value.const_value is not None:
            parts[key(value.const_value)].append(value)
    return [part for part in parts.values() if len(part) > 1]


def _type_key(tensor: ir.TensorProtocol) -> Hashable:
    return tensor.dtype, tuple(tensor.shape)


def _sample_key(tensor: ir.TensorProtocol) -> Hashable:
    """The first, middle and last bytes; a small tensor whole."""
    if tensor.dtype == ir.DataType.STRING:
        return tuple(tensor.numpy().reshape(-1).tolist())
    if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes > 3 * SAMPLE_BYTES:
        size = tensor.nbytes
        starts = (0, (size - SAMPLE_BYTES) // 2, size - SAMPLE_BYTES)
        return tuple(_read(tensor, start, SAMPLE_BYTES) for start in starts)
    array = tensor.numpy()
    if not array.flags.c_contiguous or array.nbytes <= 3 * SAMPLE_BYTES:
        return array.tobytes() if array.nbytes <= 3 * SAMPLE_BYTES else _blocks_digest(tensor)
    flat = array.reshape(-1)
    count = max(1, SAMPLE_BYTES // array.itemsize)
    middle = (flat.size - count) // 2
    return flat[:count].tobytes(), flat[middle : middle + count].tobytes(), flat[-count:].tobytes()


def _digest_key(tensor: ir.TensorProtocol) -> Hashable:
    if tensor.dtype == ir.DataType.STRING or tensor.nbytes <= 3 * SAMPLE_BYTES:
        return _sample_key(tensor)
    return _blocks_digest(tensor)


def _blocks_digest(tensor: ir.TensorProtocol) -> Hashable:
    """SHA-256 of the elements, read in blocks."""
    digest = hashlib.sha256()
    if isinstance(tensor, ir.ExternalTensor):
        for start in range(0, tensor.nbytes, BLOCK_BYTES):
            digest.update(_read(tensor, start, min(BLOCK_BYTES, tensor.nbytes - start)))
        return digest.digest()
    array: Array = tensor.numpy()
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.digest()


def _read(tensor: ir.ExternalTensor, start: int, count: int) -> bytes:
    """`count` bytes of the tensor's file from its byte `start`; not through the memory map."""
    with open(tensor.path, "rb") as file:  # noqa: PTH123 (the path may be bytes-like)
        file.seek((tensor.offset or 0) + start)
        return file.read(count)

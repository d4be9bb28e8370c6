"""Tensors in an ONNX file: as many bytes as their shape says, checked before any is touched.

Source: onnx.proto, `TensorProto` and `SparseTensorProto`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import onnx

from infc.frontends.findings import Findings, quoted

_T = onnx.TensorProto

BITS = {
    _T.FLOAT: 32,
    _T.UINT8: 8,
    _T.INT8: 8,
    _T.UINT16: 16,
    _T.INT16: 16,
    _T.INT32: 32,
    _T.INT64: 64,
    _T.BOOL: 8,
    _T.FLOAT16: 16,
    _T.DOUBLE: 64,
    _T.UINT32: 32,
    _T.UINT64: 64,
    _T.COMPLEX64: 64,
    _T.COMPLEX128: 128,
    _T.BFLOAT16: 16,
    _T.FLOAT8E4M3FN: 8,
    _T.FLOAT8E4M3FNUZ: 8,
    _T.FLOAT8E5M2: 8,
    _T.FLOAT8E5M2FNUZ: 8,
    _T.UINT4: 4,
    _T.INT4: 4,
    _T.FLOAT4E2M1: 4,
    **{
        getattr(_T, name): bits
        for name, bits in (
            ("FLOAT8E8M0", 8),
            ("UINT2", 2),
            ("INT2", 2),
            ("FLOAT6E2M3", 6),
            ("FLOAT6E3M2", 6),
        )
        if hasattr(_T, name)  # onnx 1.18 does not know the later ones
    },
}
"""Bits of one element. STRING is not here: it has no size."""

MAX_RANK = 64
"""NumPy's own limit."""
MAX_BYTES = 1 << 40
MAX_DENSE_BYTES = 1 << 30
"""What a sparse tensor, a few bytes in the file, may unfold into."""

_FIELDS = {
    _T.FLOAT: "float_data",
    _T.COMPLEX64: "float_data",
    _T.DOUBLE: "double_data",
    _T.COMPLEX128: "double_data",
    _T.INT64: "int64_data",
    _T.UINT32: "uint64_data",
    _T.UINT64: "uint64_data",
    _T.STRING: "string_data",
}


def type_name(data_type: int) -> str:
    """The name of an element type as ONNX's schemas spell it: `float`, `int64`."""
    try:
        return str(_T.DataType.Name(data_type)).lower()
    except ValueError:
        return f"type {data_type}"


def byte_size(tensor: onnx.TensorProto) -> int:
    """The bytes that the elements of `tensor` take, packed; 0 for strings."""
    bits = BITS.get(tensor.data_type, 0)
    count: int = math.prod(tensor.dims)
    return -(-count * bits // 8)


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the data lies in another file."""
    return bool(tensor.data_location == _T.EXTERNAL)


def check_tensor(tensor: onnx.TensorProto, findings: Findings, place: str) -> bool:
    """Add an E104 where `tensor` cannot be what it says; return whether it can."""
    name = f"tensor {quoted(tensor.name)}" if tensor.name else "a tensor without a name"
    if not isinstance(tensor.name, str):
        findings.add("E102", f"the name of {name} is not UTF-8", place)
        return False
    if tensor.data_type not in BITS and tensor.data_type != _T.STRING:
        what = tensor.data_type
        findings.add("E104", f"{name} has the element type {what}, which ONNX lacks", place)
        return False
    if _impossible(tensor.dims) or byte_size(tensor) > MAX_BYTES:
        shape = "x".join(map(str, tensor.dims[:8]))
        findings.add("E104", f"{name} has the impossible shape {shape}", place)
        return False
    if tensor.HasField("segment"):
        findings.add("E104", f"{name} is one segment of a larger one, which ONNX dropped", place)
        return False
    return is_external(tensor) or _check_payload(tensor, name, findings, place)


def _impossible(dims: Sequence[int]) -> bool:
    # The rank first: the product of a million dimensions takes minutes.
    return len(dims) > MAX_RANK or any(d < 0 for d in dims)


def _check_payload(tensor: onnx.TensorProto, name: str, findings: Findings, place: str) -> bool:
    count = math.prod(tensor.dims)
    if tensor.HasField("raw_data") and tensor.data_type != _T.STRING:
        has, wants, unit = len(tensor.raw_data), byte_size(tensor), "bytes"
    else:
        field = _FIELDS.get(tensor.data_type, "int32_data")
        bits = BITS.get(tensor.data_type, 32)
        has, wants, unit = len(getattr(tensor, field)), count, "elements"
        if tensor.data_type in (_T.COMPLEX64, _T.COMPLEX128):
            wants *= 2
        elif bits in (2, 4):
            wants, unit = -(-count * bits // 8), "packed elements"
    if has == wants:
        return True
    shape = "x".join(map(str, tensor.dims[:8])) or "scalar"
    what = f"{type_name(tensor.data_type)}[{shape}]"
    findings.add("E104", f"{name} is {what}: {wants} {unit}, but the file holds {has}", place)
    return False


def check_sparse(sparse: onnx.SparseTensorProto, findings: Findings, place: str) -> bool:
    """Add an E104 where the sparse tensor is not one."""
    values, indices = sparse.values, sparse.indices
    name = f"sparse tensor {quoted(values.name)}"
    if not check_tensor(values, findings, place) or not check_tensor(indices, findings, place):
        return False
    size = -1 if _impossible(sparse.dims) else math.prod(sparse.dims)
    if size < 0 or size * BITS.get(values.data_type, 0) // 8 > MAX_DENSE_BYTES:
        shape = "x".join(map(str, sparse.dims[:8]))
        findings.add("E104", f"{name} has the impossible shape {shape}", place)
        return False
    count = values.dims[0] if len(values.dims) == 1 else -1
    fits = list(indices.dims) in ([count], [count, len(sparse.dims)])
    plain = not is_external(values) and not is_external(indices)
    if indices.data_type != _T.INT64 or values.data_type not in BITS or not fits or not plain:
        findings.add("E104", f"{name}: its indices do not fit its values", place)
        return False
    return True


def all_tensors(model: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, bool]]:
    """Every tensor of the model but the sparse ones, and whether it is an initializer.

    Those of the functions, whose graphs become parts of others, count as none.
    """
    yield from _tensors_in(model.graph)
    for function in model.functions:
        for node in function.node:
            for tensor, _ in _tensors_of(node):
                yield tensor, False


def _tensors_in(graph: onnx.GraphProto) -> Iterator[tuple[onnx.TensorProto, bool]]:
    for tensor in graph.initializer:
        yield tensor, True
    for node in graph.node:
        yield from _tensors_of(node)


def _tensors_of(node: onnx.NodeProto) -> Iterator[tuple[onnx.TensorProto, bool]]:
    for attribute in node.attribute:
        for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
            yield tensor, False
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _tensors_in(graph)


def dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """The dense form of a checked sparse tensor.

    Raises:
        ValueError: an index lies outside the shape.
    """
    import numpy as np

    values, indices = (onnx.numpy_helper.to_array(t) for t in (sparse.values, sparse.indices))
    shape = tuple(sparse.dims)
    if indices.ndim == 2:
        indices = np.ravel_multi_index(tuple(indices.T), shape) if indices.size else indices[:, 0]
    out = np.zeros(math.prod(shape), values.dtype)
    if indices.size and not 0 <= indices.min() <= indices.max() < out.size:
        raise ValueError(f"an index of {quoted(sparse.values.name)} lies outside its shape")
    out[indices] = values
    return onnx.numpy_helper.from_array(out.reshape(shape), sparse.values.name)

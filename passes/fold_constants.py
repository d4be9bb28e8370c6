"""Nodes whose inputs are all constant are computed now: f(constants) -> an initializer.

Semantics: `onnx.reference` at the model's opset (see `constant_kernels`). A result may make the
file larger only by `GROWTH_BYTES`, unless it ends as a weight (the second input of Conv, of
MatMul, ...), where a compiler needs a constant: light models keep their weights behind
ConstantOfShape. Results that are only laid out anew (Transpose of a big weight) are computed when
the model is written, and not kept: see `rewriting.LAZY_BYTES`.

Left alone: random operators, nodes with bodies, custom operators, Q/DQ nodes (their constants
carry the precision), sequences and optionals, and whatever cannot be evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from infc.passes import constant_kernels
from infc.passes.eliminate_common_subexpressions import is_deterministic
from infc.passes.rewriting import (
    LAZY_BYTES,
    Array,
    bodies,
    const_tensor,
    dtype_of,
    elements,
    graphs,
    opset,
    static_dims,
)

GROWTH_BYTES = 1 << 20
"""How much larger the file may become through one node."""
REFERENCE_BYTES = 1 << 22
"""The reference evaluator is slow: it is given no more than this, in or out."""
TOTAL_BYTES = 1 << 31
"""No result is larger than this."""

KEPT = frozenset(
    (
        "Constant",
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "Optional",
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceInsert",
        "SplitToSequence",
        "OptionalGetElement",
        "OptionalHasElement",
        "StringNormalizer",
        "StringConcat",
        "StringSplit",
        "TfIdfVectorizer",
        "ImageDecoder",
        "RegexFullMatch",
    )
)
WRONG_REFERENCE = frozenset(("AveragePool", "GridSample", "LpPool", "RoiAlign"))
"""Where the reference evaluator misses outputs of ONNX's own operator tests (onnx 1.23)."""
SLOW = frozenset(
    (
        "Conv",
        "ConvTranspose",
        "ConvInteger",
        "DeformConv",
        "GRU",
        "LSTM",
        "RNN",
        "Loop",
        "Scan",
    )
)
RELAID = frozenset(("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast"))
WEIGHT_INPUTS = {
    "BatchNormalization": (1, 2, 3, 4),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "GRU": (1, 2, 3),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "LSTM": (1, 2, 3, 7),
    "MatMul": (1,),
    "PRelu": (1,),
    "RNN": (1, 2, 3),
}
MAX_DEPTH = 8


class FoldConstants(ir.passes.InPlacePass):
    """Replace constant computations by their results."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Visit nodes in order, so that one visit folds whole chains."""
        version = opset(model)
        modified = False
        for graph in graphs(model):
            for node in graph:
                modified |= _fold(graph, node, version)
        return ir.passes.PassResult(model, modified=modified)


def _fold(graph: ir.Graph, node: ir.Node, version: int) -> bool:
    tensors = _constant_inputs(node)
    if tensors is None or any(v.is_graph_output() for v in node.outputs):
        return False
    expected = _expected_bytes(node)
    if expected is not None and not _may_become(node, expected, tensors):
        return False
    results = _relaid(node, tensors, version) or _computed(node, tensors, version)
    if results is None:
        return False
    for value, tensor in zip(node.outputs, results, strict=True):
        if value.name and tensor is not None:
            _register(graph, value, tensor)
    graph.remove(node, safe=True)
    return True


def _constant_inputs(node: ir.Node) -> list[ir.TensorProtocol | None] | None:
    """The inputs of a node that can be folded; None for any other node."""
    if node.domain or not node.inputs or node.op_type in KEPT | WRONG_REFERENCE:
        return None
    if bodies(node):
        return None
    tensors = [const_tensor(v) for v in node.inputs]
    if any(t is None and v is not None for t, v in zip(tensors, node.inputs, strict=True)):
        return None
    if any(t is not None and t.dtype == ir.DataType.STRING for t in tensors):
        return None
    return tensors if is_deterministic(node) else None


def _expected_bytes(node: ir.Node) -> int | None:
    """The size of the outputs, where inference knows it."""
    total = 0
    for value in node.outputs:
        shape, dtype = static_dims(value), dtype_of(value)
        if shape is None or dtype is None or dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED):
            return None
        total += int(np.prod(shape, dtype=np.float64) * dtype.itemsize)
    return total


def _may_become(node: ir.Node, size: int, tensors: Sequence[ir.TensorProtocol | None]) -> bool:
    """Whether outputs of `size` bytes may be written into the file."""
    freed = sum(
        tensor.nbytes
        for value, tensor in zip(node.inputs, tensors, strict=True)
        if tensor is not None and value is not None and len(value.uses()) == 1
    )
    if size <= freed + GROWTH_BYTES:
        return True
    return size <= TOTAL_BYTES and _ends_as_weight(node, MAX_DEPTH)


def _ends_as_weight(node: ir.Node, depth: int) -> bool:
    """Whether all uses of the outputs are weights, or are folded and then end as weights."""
    for value in node.outputs:
        for use in value.uses():
            user = use.node
            if not user.domain and use.idx in WEIGHT_INPUTS.get(user.op_type, ()):
                continue
            others = (v for v in user.inputs if v is not None and v is not value)
            folds = not user.domain and all(const_tensor(v) is not None for v in others)
            if not folds or not depth or not _ends_as_weight(user, depth - 1):
                return False
    return True


def _relaid(
    node: ir.Node, tensors: Sequence[ir.TensorProtocol | None], version: int
) -> list[ir.TensorProtocol | None] | None:
    """A big weight in a new layout or type, computed on demand."""
    data = tensors[0]
    output = node.outputs[0]
    shape, dtype = static_dims(output), dtype_of(output)
    if node.op_type not in RELAID or data is None or shape is None or dtype is None:
        return None
    if data.nbytes <= LAZY_BYTES or data.dtype.bitwidth < 8 or dtype.bitwidth < 8:
        return None
    if node.op_type == "Cast" and (data.dtype, dtype) not in _SAFE_CASTS:
        return None
    small = [None if t is None else t.numpy() for t in tensors[1:]]
    attributes = list(node.attributes.values())
    op = ir.Node("", node.op_type, [None] * len(tensors), attributes, num_outputs=1)

    def evaluate() -> ir.TensorProtocol:
        found = constant_kernels.run(op, [elements(data), *small], version)
        if found is None or found[0].shape != shape:
            raise ValueError(f"the shape inferred for {op.op_type} of a constant is wrong")
        return ir.tensor(np.ascontiguousarray(found[0]), dtype=dtype)

    return [ir.LazyTensor(evaluate, dtype=dtype, shape=ir.Shape(list(shape)))]


_SAFE_CASTS = frozenset(
    (
        (ir.DataType.FLOAT16, ir.DataType.FLOAT),
        (ir.DataType.FLOAT, ir.DataType.FLOAT16),
        (ir.DataType.FLOAT, ir.DataType.DOUBLE),
        (ir.DataType.DOUBLE, ir.DataType.FLOAT),
    )
)


def _computed(
    node: ir.Node, tensors: Sequence[ir.TensorProtocol | None], version: int
) -> list[ir.TensorProtocol | None] | None:
    """The results, where they can be computed and are not too large."""
    given = sum(t.nbytes for t in tensors if t is not None)
    if node.op_type not in constant_kernels.KERNELS:
        if node.op_type in SLOW and given > REFERENCE_BYTES // 64:
            return None
        expected = _expected_bytes(node)
        if max(given, expected or 0) > REFERENCE_BYTES:
            return None
        if expected is None and node.op_type in _GROWING:
            return None
    if _broadcast_bytes(node, tensors) > TOTAL_BYTES:
        return None
    try:
        arrays = [None if t is None else elements(t) for t in tensors]
        found = constant_kernels.run(node, arrays, version)
    except Exception:
        # Whatever the operator refuses is refused again, and explained, where the model is run.
        return None
    if found is None or len(found) != len(node.outputs):
        return None
    if not _may_become(node, sum(a.nbytes for a in found), tensors):
        return None
    results = [_tensor(v, a) for v, a in zip(node.outputs, found, strict=True)]
    named = [r for v, r in zip(node.outputs, results, strict=True) if v.name]
    return results if all(r is not None for r in named) else None


_GROWING = frozenset(
    (
        "Tile",
        "Pad",
        "Resize",
        "Upsample",
        "OneHot",
        "EyeLike",
        "Compress",
        "DepthToSpace",
        "MatMul",
        "Gemm",
        "Einsum",
        "Col2Im",
        "MelWeightMatrix",
        "HannWindow",
        "HammingWindow",
        "BlackmanWindow",
        "CenterCropPad",
    )
)


def _broadcast_bytes(node: ir.Node, tensors: Sequence[ir.TensorProtocol | None]) -> float:
    """What an elementwise operator would give if its inputs broadcast; 0 where it does not."""
    if node.op_type in ("Concat", "Gather", "Slice", "Reshape", "Expand", "ConstantOfShape"):
        return 0
    shapes = [tuple(t.shape.numpy()) for t in tensors if t is not None]
    try:
        return float(np.prod(np.broadcast_shapes(*shapes), dtype=np.float64) * 8)
    except ValueError:
        return 0


def _tensor(value: ir.Value, array: Array) -> ir.TensorProtocol | None:
    """`array` as a tensor of the type that was inferred for `value`."""
    expected = dtype_of(value)
    if array.dtype.kind in "OUS":
        return None
    try:
        tensor = ir.tensor(array)
    except (TypeError, ValueError):
        return None
    shape = static_dims(value)
    if shape is not None and shape != array.shape:
        return None
    return tensor if expected is None or tensor.dtype == expected else None


def _register(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """Let an initializer take the name and the users of `value`."""
    name, value.name = value.name, None
    tensor.name = name
    constant = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(tensor.shape.numpy()),
        const_value=tensor,
    )
    graph.initializers[str(name)] = constant
    value.replace_all_uses_with(constant)

"""Types and shapes of every value: ONNX's own inference, kept at arm's length.

ONNX infers in C++, on a whole serialised model. It is given a *skeleton*: the graph without its
large weights (they become inputs of the same type and shape), nodes in order, and without the
shapes that the file claims for the results of operators ONNX knows, so that a stale claim neither
stops the inference nor survives it. It runs in a forked child with limits, because a file can be
made that crashes it.

What ONNX Runtime would refuse is refused here, with the node's name: an operand of a type that
the operator does not take, two operands that must agree and do not, and what inference itself
finds (ranks, incompatible dimensions, attributes out of range).
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterable, Iterator, Sequence

import onnx

from infc.frontends import guarded
from infc.frontends.findings import printable
from infc.frontends.onnx_context import Context, function_id, subgraphs
from infc.frontends.onnx_external import SMALL_BYTES
from infc.frontends.onnx_operators import operator_of
from infc.frontends.onnx_structure import topological_order
from infc.frontends.onnx_tensors import byte_size
from infc.frontends.onnx_types import check_types

TIMEOUT_S, TIMEOUT_S_PER_NODE = 5.0, 0.02
EXTRA_BYTES, EXTRA_BYTES_PER_BYTE = 1 << 30, 16
"""What inference may take; real models take a fifth of a millisecond a node, and a few MB. A
`Range` of 2**38 that it tries to unroll takes hours and terabytes."""

_FAILURE = re.compile(
    r"\(op_type:(?P<op>.*?), node name: (?P<node>.*?)\): (?:\[\w+\] )?(?P<what>.*?)"
    r"(?=\n\(op_type:|\n*\Z)",
    re.DOTALL,
)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put the nodes of `graph` and the graphs in it into an order in which they can run."""
    reads = []
    for node in graph.node:
        for inner in subgraphs(node):
            sort_nodes(inner)
        reads.append([*node.input, *captures(node)])
    order = topological_order(graph.node, reads)
    if order != list(range(len(order))):
        nodes = [graph.node[i] for i in order]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)


def captures(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the graphs in `node` take from around them."""
    for graph in subgraphs(node):
        own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
        own.update(name for inner in graph.node for name in inner.output)
        for inner in graph.node:
            yield from (name for name in (*inner.input, *captures(inner)) if name not in own)


def infer(model: onnx.ModelProto, context: Context) -> None:
    """Write types and shapes into `model` and add an E104 for every node that cannot run."""
    sort_nodes(model.graph)
    bare = _skeleton(model, context)
    findings = context.findings
    timeout_s = TIMEOUT_S + TIMEOUT_S_PER_NODE * len(bare.graph.node)
    extra_bytes = EXTRA_BYTES + EXTRA_BYTES_PER_BYTE * bare.ByteSize()
    try:
        answer = guarded.call(lambda: _infer(bare), timeout_s, extra_bytes)
    except guarded.ChildDiedError as error:
        findings.add("E104", f"ONNX shape inference {printable(str(error))} on this graph")
        return
    (size,) = struct.unpack("<I", answer[:4])
    text = answer[4 : 4 + size].decode("utf-8", "replace")
    inferred = onnx.ModelProto.FromString(answer[4 + size :])
    _merge(model.graph, inferred.graph)
    before = len(findings.found)
    check_types(model.graph, context)
    if len(findings.found) == before:
        _report(text, model.graph, context)


def _infer(bare: onnx.ModelProto) -> bytes:
    """In the child: (length, errors, inferred model); lenient where strict finds an error."""
    infer_shapes, text = onnx.shape_inference.infer_shapes, ""
    try:
        result = infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:
        text = str(error) or type(error).__name__
        with contextlib.suppress(Exception):
            bare = infer_shapes(bare, check_type=False, strict_mode=False, data_prop=True)
        result = bare
    message = text.encode("utf-8", "replace")
    return struct.pack("<I", len(message)) + message + bytes(result.SerializeToString())


def _report(text: str, graph: onnx.GraphProto, context: Context) -> None:
    """ONNX's own findings, each at its node."""
    if not text:
        return
    if "bad_alloc" in text:
        context.findings.add("E104", "ONNX shape inference runs out of memory on this graph")
        return
    places = {
        (str(node.op_type), str(node.name)): context.place(node, i)
        for i, node in reversed(list(enumerate(graph.node)))
    }
    matches = list(_FAILURE.finditer(text))
    for match in matches:
        op, name = match["op"], match["node"]
        fallback = f"{context.label}/{printable(name) or '?'} ({printable(op)})"
        place = places.get((op, name), fallback)
        context.findings.add("E104", printable_lines(match["what"]), place)
    # Without a node's name it is about ONNX's own expansion of an operator into others, in which
    # some releases of ONNX make mistakes (1.23: MeanVarianceNormalization-13).
    if not matches and not re.search(r"\(op_type:[^,()]*\):", text):
        context.findings.add("E104", f"shape inference: {printable_lines(text)}", context.label)


def printable_lines(text: str) -> str:
    """ONNX's message on one line, without the prefixes of its nested exceptions."""
    words = re.sub(r"\[(Shape|Type)InferenceError\] ?|Inference error\(s\): ?", "", text).split()
    line = " ".join(words)
    return "".join(c if c.isprintable() else "?" for c in line)[:300]


def _skeleton(model: onnx.ModelProto, context: Context) -> onnx.ModelProto:
    bare = onnx.ModelProto()
    bare.ir_version = model.ir_version
    bare.opset_import.extend(model.opset_import)
    bare.functions.extend(model.functions)
    graph, out = model.graph, bare.graph
    out.name = "main"
    out.input.extend(graph.input)
    out.output.extend(_without_shapes(graph.output))
    known = _known_outputs(graph.node, context)
    for value in graph.value_info:
        out.value_info.extend(_without_shapes([value]) if value.name in known else [value])
    inputs = {v.name for v in graph.input}
    for tensor in graph.initializer:
        _add_tensor(out, tensor, inputs)
    for node in graph.node:
        constant = _large_constant(node)
        if constant is not None:
            _add_tensor(out, constant, inputs)
            continue
        copy = out.node.add()
        copy.CopyFrom(node)
        for inner in subgraphs(copy):
            _strip(inner, context)
    return bare


def _large_constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """What a Constant node makes, without its data, where that is large."""
    if node.op_type != "Constant" or not node.output:
        return None
    tensor = next((a.t for a in node.attribute if a.HasField("t")), None)
    if tensor is None or not _is_large(tensor):
        return None
    return onnx.TensorProto(name=node.output[0], dims=tensor.dims, data_type=tensor.data_type)


def _add_tensor(out: onnx.GraphProto, tensor: onnx.TensorProto, inputs: set[str]) -> None:
    """Add a constant to the skeleton: itself where it is small, else an input that looks alike."""
    if not _is_large(tensor):
        out.initializer.add().CopyFrom(tensor)
    elif tensor.name not in inputs:
        kind = out.input.add(name=tensor.name).type.tensor_type
        kind.elem_type = tensor.data_type
        kind.shape.SetInParent()
        for size in tensor.dims:
            kind.shape.dim.add().dim_value = size


def _is_large(tensor: onnx.TensorProto) -> bool:
    """Shapes, axes and pads, which decide other shapes, are small, and never external by now."""
    return byte_size(tensor) > SMALL_BYTES


def _strip(graph: onnx.GraphProto, context: Context) -> None:
    """The same for a graph in an attribute, in place: large weights leave their type behind."""
    known = _known_outputs(graph.node, context)
    values = [*graph.value_info]
    claims = [*_without_shapes(v for v in values if v.name in known)]
    claims += [v for v in values if v.name not in known]
    claims = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in claims]
    keep = []
    for tensor in graph.initializer:
        if not _is_large(tensor):
            keep.append(onnx.TensorProto.FromString(tensor.SerializeToString()))
            continue
        claim = onnx.ValueInfoProto(name=tensor.name)
        claim.type.tensor_type.elem_type = tensor.data_type
        claim.type.tensor_type.shape.SetInParent()
        for size in tensor.dims:
            claim.type.tensor_type.shape.dim.add().dim_value = size
        claims.append(claim)
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(keep)
    graph.value_info.extend(claims)
    for node in graph.node:
        for inner in subgraphs(node):
            _strip(inner, context)


def _known_outputs(nodes: Sequence[onnx.NodeProto], context: Context) -> set[str]:
    """What ONNX can infer by itself."""
    return {name for node in nodes if _has_schema(node, context) for name in node.output}


def _has_schema(node: onnx.NodeProto, context: Context) -> bool:
    version = context.opsets.get(node.domain)
    known = version is not None and operator_of(node.op_type, node.domain, version) is not None
    return known or function_id(node) in context.functions


def _without_shapes(values: Iterable[onnx.ValueInfoProto]) -> Iterator[onnx.ValueInfoProto]:
    for value in values:
        copy = onnx.ValueInfoProto()
        copy.CopyFrom(value)
        if copy.type.HasField("tensor_type"):
            copy.type.tensor_type.ClearField("shape")
        yield copy


def _merge(graph: onnx.GraphProto, inferred: onnx.GraphProto) -> None:
    """Write what was inferred over what the file claims."""
    claims = {v.name: v for v in (*graph.value_info, *graph.output)}
    symbols = {d.dim_param for v in graph.input for d in v.type.tensor_type.shape.dim}
    for value in (*inferred.value_info, *inferred.output):
        claim = claims.get(value.name)
        if claim is None:
            graph.value_info.add().CopyFrom(value)
            continue
        _merge_type(claim.type, value.type, symbols)
    for value in graph.output:
        _forget_generated(value, symbols)
    pairs = zip(
        (n for n in graph.node if any(True for _ in subgraphs(n))),
        (n for n in inferred.node if any(True for _ in subgraphs(n))),
        strict=False,
    )
    for ours, theirs in pairs:
        for a, b in zip(subgraphs(ours), subgraphs(theirs), strict=False):
            _merge(a, b)


def _merge_type(claim: onnx.TypeProto, fact: onnx.TypeProto, symbols: set[str]) -> None:
    if not claim.HasField("tensor_type") or not fact.HasField("tensor_type"):
        if claim.WhichOneof("value") is None:
            claim.CopyFrom(fact)
        return
    old, new = claim.tensor_type, fact.tensor_type
    old.elem_type = new.elem_type or old.elem_type
    if not new.HasField("shape"):
        return
    if not old.HasField("shape") or len(old.shape.dim) != len(new.shape.dim):
        old.shape.CopyFrom(new.shape)
        return
    for mine, found in zip(old.shape.dim, new.shape.dim, strict=True):
        # A symbol of an input is certain; one that inference made up says less than any claim.
        certain = found.HasField("dim_value") or found.dim_param in symbols - {""}
        if certain or not (mine.HasField("dim_value") or mine.dim_param):
            mine.CopyFrom(found)


def _forget_generated(value: onnx.ValueInfoProto, symbols: set[str]) -> None:
    """Of a size that inference only numbered, nothing is known."""
    for dim in value.type.tensor_type.shape.dim:
        if dim.dim_param.startswith("unk__") and dim.dim_param not in symbols:
            dim.ClearField("dim_param")

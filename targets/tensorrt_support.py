"""Every node that a release of TensorRT does not take, by the table of `tensorrt_operators`."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir

from infc.passes.rewriting import dtype_of
from infc.targets.tensorrt_operators import CONDITIONS, OPERATORS, RELEASES, TYPES, UNTYPED

Row = tuple[str, str, str, str]
"""Node name, operator type, domain, reason."""

IO_TYPES = frozenset(
    ("float32", "float16", "bfloat16", "int32", "int64", "uint8", "int8", "bool"),
)
"""What an engine's inputs and outputs can be."""


def unsupported(model: ir.Model, release: str) -> list[Row]:
    """Every node that the parser of `release` does not take, in graph order, bodies included.

    Where the model's signature has types that no engine has, the nodes at its borders alone.
    """
    from infc.passes.infer_shapes import InferShapes

    InferShapes()(model)
    found = interface(model)
    if found:
        return found
    for node in _nodes(model):
        reason = _reason(node, release, model.opset_imports.get("", 1))
        if reason:
            found.append((name_of(node), node.op_type, node.domain, reason))
    return found


def interface(model: ir.Model) -> list[Row]:
    """Inputs and outputs of a type that no engine has; the operator is that of the node beside."""
    rows = []
    for what, values in (("input", model.graph.inputs), ("output", model.graph.outputs)):
        for value in values:
            dtype = value.dtype
            if dtype is None or dtype.numpy().name in IO_TYPES:
                continue
            node = value.producer() or next((user for user, _ in value.uses()), None)
            reason = f"the {what} `{value.name}` is {dtype.numpy().name}, which no engine takes"
            if node is None:
                rows.append((str(value.name), "Identity", "", reason))
            else:
                rows.append((name_of(node), node.op_type, node.domain, reason))
    return rows


WITHOUT_KERNELS = frozenset(("NonMaxSuppression",))
"""What TensorRT for RTX parses, and then stops over: "has no runners that implement it"."""


def without_kernels(model: ir.Model) -> list[Row]:
    """What TensorRT for RTX takes at first sight: operators without kernels, and bodies.

    Its parser looks for operators that it does not know in the main graph alone.
    """
    found = []
    for node in _nodes(model):
        row = (name_of(node), node.op_type, node.domain)
        if not node.domain and node.op_type in WITHOUT_KERNELS:
            found.append((*row, "the parser takes it, and there is no kernel for it"))
        elif node.graph is not model.graph and (node.domain or node.op_type not in OPERATORS):
            found.append((*row, "the parser has no such operator"))
    return found


def keys(model: ir.Model) -> list[tuple[str, str]]:
    """Name and operator of every node, in graph order, bodies included."""
    return list(dict.fromkeys((name_of(node), node.op_type) for node in _nodes(model)))


def name_of(node: ir.Node) -> str:
    """Its name, or that of its first output."""
    return node.name or next((v.name for v in node.outputs if v.name), "") or ""


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from ir.traversal.RecursiveGraphIterator(model.graph)


def _reason(node: ir.Node, release: str, opset: int) -> str:
    known = RELEASES[release]
    if node.domain not in ("", "ai.onnx"):
        return f"TensorRT knows no operators of the domain `{node.domain}`"
    letters = OPERATORS.get(node.op_type)
    if letters is None or node.op_type in known.lacks:
        return f"the parser of TensorRT {release} has no such operator"
    since = onnx.defs.get_schema(node.op_type, opset, "").since_version
    if since > known.opset:
        return f"it is of opset {since}; TensorRT {release} knows opsets up to {known.opset}"
    return _type(node, letters, release) or _condition(node, release)


def _type(node: ir.Node, letters: str, release: str) -> str:
    if node.op_type in UNTYPED or not node.inputs:
        return ""
    dtype = dtype_of(node.inputs[0])
    taken = [TYPES[letter] for letter in letters]
    if dtype is None or dtype in taken:
        return ""
    names = ", ".join(t.numpy().name for t in taken)
    return f"of {dtype.numpy().name}; TensorRT {release} takes {names}"


def _condition(node: ir.Node, release: str) -> str:
    for conditions in (CONDITIONS, RELEASES[release].conditions):
        condition = conditions.get(node.op_type)
        reason = condition(node) if condition else ""
        if reason:
            return f"TensorRT takes it {reason}" if " only" in reason else f"TensorRT: {reason}"
    return ""

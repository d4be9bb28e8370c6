"""Which nodes TVM cannot take: those that no static plan holds, or that a converter refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.targets import Unsupported
from infc.targets.tvm_compiler.importing.open_shapes import has_open
from infc.targets.tvm_lowering.channels_last import DOMAIN
from infc.targets.tvm_operators import TAKES, reason_against

if TYPE_CHECKING:
    import onnx

    from infc.targets.tvm_compiler.cpus import Cpu


_KNOWN = TAKES | {"Constant"}
EMPTY = "a tensor without elements"


def unsupported(path: Path, cpu: Cpu) -> list[Unsupported]:
    """Every node that is not taken, in the order of the graph."""
    import onnx

    from infc.targets.one_node import unsupported as row
    from infc.targets.tvm_compiler.importing.graph import RefusedError, import_model

    model = onnx.load(str(path))
    empty = _without_elements(model)
    reasons: dict[int, str] = {}
    nodes = list(_nodes(model.graph))
    for node in nodes:
        if node.domain not in (DOMAIN, "") or (not node.domain and node.op_type not in _KNOWN):
            reasons[id(node)] = reason_against(node.domain, node.op_type)
        elif refusal := _refusal(node):
            reasons[id(node)] = refusal
        elif not empty.isdisjoint((*node.input, *node.output)) and node.op_type != "Identity":
            reasons[id(node)] = EMPTY
    known = frozenset(reasons)
    module = None
    if not any(_has_body(node) for node in nodes):
        try:
            module = import_model(model, cpu, refused=known)
        except RefusedError as error:
            reasons |= {id(node): reason for node, reason in error.rows}
    # What is left of an operator on open shapes may be the virtual machine's own.
    fixed = not has_open(model.graph)
    if module is not None and not reasons and fixed and not _is_legal(module):
        return blamed(path, cpu)
    return [row(node, reasons[id(node)]) for node in nodes if id(node) in reasons]


def _is_legal(module: Any) -> bool:
    """Whether every operator of a Relax module becomes a kernel."""
    from tvm import ir, relax
    from tvm.relax import transform

    try:
        legal = transform.LegalizeOps()(transform.DecomposeOpsForInference()(module))
    except Exception:
        return False
    calls = [
        binding.value
        for block in legal["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call)
    ]
    return all(
        not isinstance(call.op, ir.Op) or call.op.name in ("relax.call_tir",) for call in calls
    )


def blamed(path: Path, cpu: Cpu) -> list[Unsupported]:
    """The nodes of which no plan can be made, each asked about alone."""
    from infc.targets.one_node import refused

    return refused(path, lambda model: _reason_alone(model, cpu))


def _reason_alone(model: bytes, cpu: Cpu) -> str:
    """Why there is no plan of a model, or no kernels of one with open shapes; "" for neither."""
    import onnx

    from infc.targets.tvm_compiler import plan_of
    from infc.targets.tvm_compiler.importing.graph import RefusedError, import_model, reason_of
    from infc.targets.tvm_compiler.scheduling.kernels import kernels

    graph = onnx.ModelProto.FromString(model)
    try:
        if has_open(graph.graph):
            kernels(import_model(graph, cpu), cpu)
        else:
            plan_of(graph, cpu)
    except RefusedError as error:
        return error.rows[0][1]
    except Exception as error:
        return reason_of(error)
    return ""


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Those of `graph` and of the bodies in it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes(body)


def _refusal(node: onnx.NodeProto) -> str:
    """Why a node of an operator that is taken is refused itself, "" where it is not."""
    from onnx.helper import get_attribute_value

    given = {a.name: get_attribute_value(a) for a in node.attribute}
    if node.op_type == "RoiAlign" and given.get("mode") == b"max":
        return "`mode` is `max`, which TVM takes the greatest weighted sample for"
    if node.op_type in ("DepthToSpace", "SpaceToDepth") and given.get("mode") == b"CRD":
        return "`mode` is `CRD`, and its shape is not fixed"
    if node.op_type == "Resize":
        return _refusal_of_resize(given, node)
    return ""


def _refusal_of_resize(given: Mapping[str, Any], node: onnx.NodeProto) -> str:
    """Of those that are left to TVM, which knows sizes and the ratio between them."""
    coordinates = given.get("coordinate_transformation_mode", b"half_pixel")
    unknown = [n for n in ("antialias", "exclude_outside") if given.get(n)]
    if given.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        unknown.append("keep_aspect_ratio_policy")
    if coordinates in (b"tf_crop_and_resize", b"half_pixel_symmetric"):
        unknown.append("coordinate_transformation_mode")
    if unknown:
        return f"`{'`, `'.join(unknown)}` needs fixed shapes, and constants"
    if coordinates == b"align_corners" and len(node.input) > 2 and node.input[2]:
        return "`align_corners` with `scales` of no whole sizes is one thing to ONNX Runtime only"
    return ""


def _has_body(node: onnx.NodeProto) -> bool:
    return any(a.HasField("g") or a.graphs for a in node.attribute)


def _without_elements(model: onnx.ModelProto) -> frozenset[str]:
    """The tensors that have a dimension of 0."""
    graph = model.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    named = {
        v.name
        for v in values
        if any(d.HasField("dim_value") and not d.dim_value for d in v.type.tensor_type.shape.dim)
    }
    # An operand that is left out may be written as an empty constant: Resize's `roi`.
    return frozenset(named - {t.name for t in graph.initializer})

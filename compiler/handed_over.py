"""Proof where the artifact cannot be run: the graph that its back end was handed, in ONNX Runtime.

What a back end's compiler makes of that graph is not proved then, and the manifest's verdict is
`graph`, not `passed`. float16 is computed by ONNX Runtime itself, between casts; of bfloat16 it has
no more than the casts, so that they are written around every node:

    y = Conv(x, w)   ->   y = Cast(Conv(Cast(x, float), Cast(w, float)), bfloat16)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infc.comparison import THRESHOLDS, OutputError, require
from infc.diagnostics import InfcError, fail
from infc.request import Precision, WorkerLimits
from infc.signature import load_tensors
from infc.targets import Target, module_of
from infc.verification.running import UNOPTIMIZED, run_entry
from infc.verification.sets import Sets, compare_sets

if TYPE_CHECKING:
    import onnx_ir as ir

AS_THEY_ARE = frozenset(("Cast", "Constant", "ConstantOfShape", "Identity"))
"""What has bfloat16 in ONNX Runtime, or an attribute that says the type of its result."""


def run_graph(
    sets: Sets, target: Target, graph: Path, scratch: Path, limits: WorkerLimits
) -> tuple[Path, ...]:
    """Run `graph`, legalised for `target`, on every input set; the folders of its answers.

    Raises:
        InfcError: E204 where ONNX Runtime does not run it, E50x.
    """
    names = list(load_tensors(sets.feeds[0])), list(load_tensors(sets.reference[0]))
    scratch.mkdir(parents=True, exist_ok=True)
    entry = graph
    if target.precision is Precision.BF16:
        entry = _widened(graph, scratch)
    what = f"the graph that `{target.back_end}` was handed"
    module = module_of(UNOPTIMIZED.back_end)
    return run_entry(module, entry, UNOPTIMIZED, sets.feeds, names, scratch, limits, what)


def check_graph(
    sets: Sets, target: Target, graph: Path, scratch: Path, limits: WorkerLimits
) -> tuple[OutputError, ...]:
    """Compare the answers of `graph` with the reference, at the target's precision.

    Raises:
        InfcError: E602 where it does not answer as the source model does, or does not run.
    """
    what = f"the graph that `{target.back_end}` was handed"
    remedy = "nothing was published; another back end may do better (`infc targets`)"
    try:
        answers = run_graph(sets, target, graph, scratch, limits)
    except InfcError as error:
        first = error.diagnostics[0]
        if first.code != "E204":
            raise
        raise fail("E602", first.message, notes=first.notes, help=remedy) from error
    errors = compare_sets(sets, answers, THRESHOLDS[target.precision])
    require(errors, "E602", what, remedy)
    return errors


def _widened(graph: Path, scratch: Path) -> Path:
    """`graph` with what is in bfloat16 computed in float32, in a file in `scratch`."""
    import onnx_ir as ir

    from infc.building import save_model

    model = ir.load(graph)
    widen(model)
    save_model(model, scratch / "widened.onnx")
    return scratch / "widened.onnx"


def widen(model: ir.Model) -> None:
    """Write casts around every node of `model` that computes in bfloat16, in place."""
    import onnx_ir as ir

    from infc.passes.infer_shapes import InferShapes

    InferShapes()(model)
    for number, node in enumerate(list(ir.traversal.RecursiveGraphIterator(model.graph))):
        graphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        has_body = any(a.type in graphs for a in node.attributes.values())
        if has_body or (not node.domain and node.op_type in AS_THEY_ARE):
            continue
        for i, value in enumerate(node.inputs):
            if value is not None and value.dtype == ir.DataType.BFLOAT16:
                wide = _cast(value, ir.DataType.FLOAT, f"{value.name}_wide_{number}_{i}")
                node.graph.insert_before(node, wide)  # type: ignore[union-attr]
                node.replace_input_with(i, wide.outputs[0])
        for value in list(node.outputs):
            if value.dtype == ir.DataType.BFLOAT16:
                _narrow_again(node, value, number)


def _cast(value: ir.Value, to: ir.DataType, name: str) -> ir.Node:
    import onnx_ir as ir

    result = ir.Value(name=name, type=ir.TensorType(to), shape=value.shape)
    return ir.Node("", "Cast", [value], [ir.AttrInt64("to", to.value)], outputs=[result])


def _narrow_again(node: ir.Node, value: ir.Value, number: int) -> None:
    """The result `value` of `node` is float32 from now on, and rounded for all who read it."""
    import onnx_ir as ir

    name, graph = value.name, node.graph
    assert graph is not None
    uses = list(value.uses())
    value.name, value.type = f"{name}_wide_{number}", ir.TensorType(ir.DataType.FLOAT)
    rounded = _cast(value, ir.DataType.BFLOAT16, str(name))
    graph.insert_after(node, rounded)
    for user, index in uses:
        user.replace_input_with(index, rounded.outputs[0])
    for i, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[i] = rounded.outputs[0]

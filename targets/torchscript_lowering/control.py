"""Control flow: subgraphs become nested blocks of `forward`.

Source: ONNX operators If-21, Loop-21, Scan-21. A branch that is not taken costs nothing, and a
loop runs as often as the data say: nothing is unrolled or traced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from infc.targets.torchscript_lowering import Op, lowers

if TYPE_CHECKING:
    import onnx_ir as ir


def _block(op: Op, graph: ir.Graph, operands: Sequence[str], results: Sequence[str]) -> None:
    """Write `graph`, then bind its outputs to `results`, all at once."""
    outputs = op.writer.block(graph, operands)
    # Through temporaries: a loop may hand its variables on in another order.
    for name, output in zip(results, outputs, strict=True):
        op.writer.line(f"    {name}_next = {output}")
    for name in results:
        op.writer.line(f"    {name} = {name}_next")


@lowers("If")
def if_(op: Op) -> list[str]:
    """The condition has one element."""
    then, other = op.attribute("then_branch"), op.attribute("else_branch")
    results = [op.writer.fresh() for _ in op.node.outputs]
    for head, graph in ((f"if bool({op.x(0)}):", then), ("else:", other)):
        op.writer.line(head)
        _block(op, graph, (), results)
    return results


@lowers("Loop")
def loop(op: Op) -> list[str]:
    """While i < M and the condition holds; scan outputs are stacked."""
    body: ir.Graph = op.attribute("body")
    carried = [op.let(op.x(i)) for i in range(2, len(op.node.inputs))]
    count = len(body.outputs) - 1 - len(carried)
    index = op.let("0", "int")
    limit = op.let(f"int({op.x(0)})" if op.has(0) else "9223372036854775807", "int")
    going = op.let(f"bool({op.x(1)})" if op.has(1) else "True", "bool")
    lists = [op.let("torch.jit.annotate(list[Tensor], [])") for _ in range(count)]
    op.writer.line(f"while {index} < {limit} and {going}:")
    iteration, condition = f"torch.tensor({index}, dtype=torch.int64)", f"torch.tensor({going})"
    outputs = op.writer.block(body, [iteration, condition, *carried])
    op.writer.line(f"    {going} = bool({outputs[0]})")
    for name, output in zip((*carried, *lists), outputs[1:], strict=True):
        op.writer.line(f"    {name}_next = {output}")
    for name in carried:
        op.writer.line(f"    {name} = {name}_next")
    for name in lists:
        op.writer.line(f"    {name}.append({name}_next)")
    op.writer.line(f"    {index} = {index} + 1")
    values = body.outputs[1 + len(carried) :]
    stacked = [_stack(op, n, 0, v) for n, v in zip(lists, values, strict=True)]
    return [*carried, *stacked]


def _stack(op: Op, name: str, axis: int, value: ir.Value) -> str:
    """The scan output; without iterations, no elements of the shape that is known."""
    from infc.targets.torchscript_lowering import int_list, torch_dtype

    known = [] if value.shape is None else [d if isinstance(d, int) else 0 for d in value.shape]
    dtype = torch_dtype(op, op.dtype_of(value))
    return op.let(op.call("stack", name, axis, int_list(known), dtype))


@lowers("Scan")
def scan(op: Op) -> list[str]:
    """One iteration for each element of the scanned axes (Scan-9: no batch axis)."""
    if op.version < 9:
        op.refuse("Scan-8, which has a batch axis")
    body: ir.Graph = op.attribute("body")
    scanned = op.attribute("num_scan_inputs")
    states = len(op.node.inputs) - scanned
    outs = len(body.outputs) - states
    in_axes = list(op.attribute("scan_input_axes", [0] * scanned))
    back = list(op.attribute("scan_input_directions", [0] * scanned))
    out_axes = list(op.attribute("scan_output_axes", [0] * outs))
    out_back = list(op.attribute("scan_output_directions", [0] * outs))
    carried = [op.let(op.x(i)) for i in range(states)]
    sources = [op.x(states + i) for i in range(scanned)]
    length = op.let(f"{sources[0]}.shape[{in_axes[0]}]")
    lists = [op.let("torch.jit.annotate(list[Tensor], [])") for _ in range(outs)]
    index = op.writer.fresh()
    op.writer.line(f"for {index} in range({length}):")
    slices = [
        f"torch.select({x}, {axis}, {f'{length} - 1 - {index}' if reverse else index})"
        for x, axis, reverse in zip(sources, in_axes, back, strict=True)
    ]
    outputs = op.writer.block(body, [*carried, *slices])
    for name, output in zip((*carried, *lists), outputs, strict=True):
        op.writer.line(f"    {name}_next = {output}")
    for name in carried:
        op.writer.line(f"    {name} = {name}_next")
    for name, reverse in zip(lists, out_back, strict=True):
        at = f"insert(0, {name}_next)" if reverse else f"append({name}_next)"
        op.writer.line(f"    {name}.{at}")
    values = body.outputs[states:]
    stacked = [_stack(op, n, a, v) for n, a, v in zip(lists, out_axes, values, strict=True)]
    return [*carried, *stacked]

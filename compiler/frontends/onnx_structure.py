"""Is this a graph at all: names, scopes, cycles, functions.

Everything here looks at the protobuf, before onnx_ir or ONNX's C++ code sees it: those assert,
loop or crash on what a hostile file may hold. Source: ONNX IR specification (onnx/docs/IR.md),
"Graphs", "Names within a graph", "Functions".
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import onnx

from infc.frontends.findings import Findings, printable, quoted
from infc.frontends.onnx_context import Context, FunctionId, context_of, function_id, subgraphs
from infc.frontends.onnx_operators import check_attributes, check_operator, is_text
from infc.frontends.onnx_tensors import MAX_RANK, check_sparse, check_tensor

MAX_INLINED_NODES = 1_000_000
"""Functions that call each other twice, thirty deep, are a kilobyte that unfolds into a billion."""


def check_structure(model: onnx.ModelProto, findings: Findings) -> None:
    """Add an E104 (E102 for text that is not UTF-8) for everything that makes this no graph."""
    context = context_of(model, findings)
    functions, label = context.functions, context.label
    if len(functions) < len(model.functions):
        findings.add("E104", "two functions have the same domain, name and overload")
    for function in model.functions:
        texts = (*function_id(function), *function.input, *function.output)
        if not all(map(is_text, texts)):
            findings.add("E102", f"a name in {quoted(_spell(function_id(function)))} is not UTF-8")
    for key, function in functions.items():
        _check_function(function, _spell(key), context)
    _check_calls(model, functions, findings)
    _check_graph(model.graph, context, [])
    if not model.graph.output:
        findings.add("E104", "the graph has no outputs: there is nothing to compute", label)


def _spell(key: FunctionId) -> str:
    domain, name, overload = key
    return f"{domain}.{name}" + (f":{overload}" if overload else "")


def _check_function(function: onnx.FunctionProto, name: str, context: Context) -> None:
    inner = replace(
        context,
        label=printable(name),
        opsets={o.domain: o.version for o in function.opset_import},
        parameters={*function.attribute, *(a.name for a in function.attribute_proto)},
    )
    for domain, version in inner.opsets.items():
        model_version = context.opsets.get(domain)
        if model_version is not None and model_version != version:
            context.findings.add(
                "E104",
                f"the function imports opset {version} of {quoted(domain or 'ai.onnx')}, "
                f"the model {model_version}",
                inner.label,
                help="save the model with one version for both",
            )
    _check_scope(function.node, function.input, (), function.output, inner, [])


def _check_calls(
    model: onnx.ModelProto,
    functions: Mapping[FunctionId, onnx.FunctionProto],
    findings: Findings,
) -> None:
    """Functions that call themselves never end; ones that unfold without bound end in no memory."""
    sizes: dict[FunctionId, int] = {}
    open_calls: set[FunctionId] = set()

    def size(nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = function_id(node)
            total += inlined(key) if key in functions else 1
            total += sum(size(graph.node) for graph in subgraphs(node))
        return total

    def inlined(key: FunctionId) -> int:
        if key in sizes:
            return sizes[key]
        if key in open_calls or len(open_calls) > 100:
            what = "calls itself" if key in open_calls else "is nested more than 100 calls deep"
            findings.add("E104", f"function {quoted(_spell(key))} {what}")
            return 1
        open_calls.add(key)
        sizes[key] = size(functions[key].node)
        open_calls.discard(key)
        return sizes[key]

    for key in functions:
        inlined(key)
    total = size(model.graph.node)
    if total > MAX_INLINED_NODES:
        findings.add(
            "E104",
            f"the model's functions unfold into {total:.3g} nodes; "
            f"infc stops at {MAX_INLINED_NODES:,}",
        )


def _check_graph(graph: onnx.GraphProto, context: Context, outer: Sequence[set[str]]) -> set[str]:
    """Check `graph`; return the names that it takes from the graphs around it."""
    for tensor in graph.initializer:
        if not tensor.name:
            context.findings.add("E104", "an initializer has no name", context.label)
        check_tensor(tensor, context.findings, context.label)
    for sparse in graph.sparse_initializer:
        check_sparse(sparse, context.findings, context.label)
    constants = [t.name for t in graph.initializer]
    constants += [s.values.name for s in graph.sparse_initializer]
    for value in (*graph.input, *graph.output, *graph.value_info):
        _check_dims(value, context)
    inputs = [v.name for v in graph.input]
    outputs = [v.name for v in graph.output]
    return _check_scope(graph.node, inputs, constants, outputs, context, outer)


def _check_dims(value: onnx.ValueInfoProto, context: Context) -> None:
    if not is_text(value.name):
        context.findings.add("E102", f"the name {quoted(value.name)} is not UTF-8", context.label)
    kind = value.type.tensor_type
    if len(kind.shape.dim) > MAX_RANK:
        what = f"{quoted(value.name)} has {len(kind.shape.dim)} dimensions"
        context.findings.add("E104", what, context.label)
        return
    for dim in kind.shape.dim:
        if dim.dim_value < 0 or dim.dim_value > 2**31 - 1:
            context.findings.add(
                "E104",
                f"{quoted(value.name)} has a dimension of {dim.dim_value}",
                context.label,
            )


def _check_scope(
    nodes: Sequence[onnx.NodeProto],
    inputs: Iterable[str],
    constants: Iterable[str],
    outputs: Iterable[str],
    context: Context,
    outer: Sequence[set[str]],
) -> set[str]:
    found, label = context.findings, context.label
    names = _declare(nodes, inputs, constants, context)
    scopes = [*outer, names]
    captured: set[str] = set()
    reads: list[list[str]] = []
    for index, node in enumerate(nodes):
        place = context.place(node, index)
        texts = (node.name, node.op_type, node.domain, node.overload, *node.input, *node.output)
        if not all(map(is_text, texts)):
            found.add("E102", "a name is not UTF-8", place)
            reads.append([])
            continue
        needed = [name for name in node.input if name]
        for name in needed:
            if not any(name in scope for scope in scopes):
                message = f"{quoted(name)} is read here, but no node, input or initializer"
                hint = "" if found.full else _nearest(name, scopes)
                found.add("E104", f"{message} provides it", place, hint)
        for graph in check_attributes(node, place, context):
            needed += _check_graph(graph, context, scopes)
        check_operator(node, place, context)
        captured.update(name for name in needed if name not in names)
        reads.append(needed)
    _check_cycle(nodes, reads, context)
    seen: set[str] = set()
    for name in outputs:
        if name in seen:
            found.add("E104", f"output {quoted(name)} is listed twice", label)
        seen.add(name)
        if name not in names:
            if any(name in scope for scope in outer):
                problem = "is a value of the graph around it, returned directly"
                remedy = "add an `Identity` node"
            else:
                problem = "is produced by no node"
                remedy = "" if found.full else _nearest(name, scopes)
            found.add("E104", f"output {quoted(name)} {problem}", label, help=remedy)
    return captured


def _declare(
    nodes: Sequence[onnx.NodeProto],
    inputs: Iterable[str],
    constants: Iterable[str],
    context: Context,
) -> set[str]:
    """The names of the scope; each is defined once, but an initializer may also be an input."""
    found, label = context.findings, context.label
    names: set[str] = set()
    for name in inputs:
        if name in names or not name:
            what = f"input {quoted(name)} is listed twice" if name else "an input has no name"
            found.add("E104", what, label)
        names.add(name)
    own: set[str] = set()
    for name in constants:
        if name in own:
            found.add("E104", f"initializer {quoted(name)} is defined twice", label)
        own.add(name)
    names |= own
    producers: dict[str, str] = {}
    for index, node in enumerate(nodes):
        place = context.place(node, index)
        for name in node.output:
            if name in names:
                by = producers.get(name, "an input" if name not in own else "an initializer")
                found.add("E104", f"{quoted(name)} is produced a second time", place, "", [by])
            if name:
                names.add(name)
                producers[name] = f"first by {place}"
    return names


def _check_cycle(
    nodes: Sequence[onnx.NodeProto], reads: Sequence[Sequence[str]], context: Context
) -> None:
    order = topological_order(nodes, reads)
    if len(order) == len(nodes):
        return
    producer = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    left = set(range(len(nodes))) - set(order)
    # Every node that is left reads from one that is left: walking back must come round.
    path: list[int] = []
    at = min(left)
    while at not in path:
        path.append(at)
        at = next(i for name in reads[at] if (i := producer.get(name, -1)) in left)
    cycle = [*reversed(path[path.index(at) :])]
    shown = [context.place(nodes[i], i) for i in cycle]
    if len(shown) > 8:
        shown[4:-4] = [f"... {len(shown) - 8} more ..."]
    context.findings.add(
        "E104", "the graph has a cycle", shown[0], notes=["through " + ", ".join(shown)]
    )


def topological_order(nodes: Sequence[onnx.NodeProto], reads: Sequence[Sequence[str]]) -> list[int]:
    """The indices of `nodes` in an order in which values are produced before they are read.

    Stable: sorted nodes stay as they are. Nodes on or behind a cycle are missing.
    """
    producer = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    waits = [{producer[n] for n in names if n in producer} for names in reads]
    readers: list[list[int]] = [[] for _ in nodes]
    for i, sources in enumerate(waits):
        for source in sources:
            readers[source].append(i)
    if all(source < i for i, sources in enumerate(waits) for source in sources):
        return list(range(len(nodes)))
    left = [len(sources) for sources in waits]
    ready = [i for i, count in enumerate(left) if not count]
    order: list[int] = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for reader in readers[i]:
            left[reader] -= 1
            if not left[reader]:
                heapq.heappush(ready, reader)
    return order


def _nearest(name: str, scopes: Sequence[set[str]]) -> str:
    names = [n for scope in scopes for n in scope]
    if len(name) > 200 or len(names) > 5000:  # difflib is quadratic
        return ""
    near = difflib.get_close_matches(name, [n for n in names if is_text(n)], n=1, cutoff=0.8)
    return f"is {quoted(near[0])} meant?" if near else ""

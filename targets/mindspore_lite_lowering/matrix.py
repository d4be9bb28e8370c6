"""Products.

| operator | what MindSpore Lite 2.0.0 does with it |
|---|---|
| MatMul with an operand of one dimension | wrong shape, wrong or refused |
| Gemm with alpha, beta or a C that is no constant row | refused |
| Einsum other than a product of two operands | refused |
| MatMul of integers | refused |
"""

from __future__ import annotations

import onnx_ir as ir

from infc.passes.rewriting import Edit, attribute, const_tensor, given, rank, static_dims
from infc.targets.mindspore_lite_lowering.formula import Formula, own_constants, required


def _matmul(node: ir.Node, edit: Edit) -> bool:
    a, b = required(node, 0), required(node, 1)
    ranks = rank(a), rank(b)
    if None in ranks or 1 not in ranks:
        return own_constants(node, edit, 0, 1)
    f = Formula(node, edit)
    row, column = ranks[0] == 1, ranks[1] == 1
    depth = max(r or 0 for r in ranks)
    product = f.matmul(f.unsqueeze(a, (0,)) if row else a, f.unsqueeze(b, (1,)) if column else b)
    depth = max(depth, 2)
    dropped = ((depth - 2,) if row else ()) + ((depth - 1,) if column else ())
    return f.finish(f.squeeze(product, dropped))


def _gemm(node: ir.Node, edit: Edit) -> bool:
    a, b, c = required(node, 0), required(node, 1), given(node, 2)
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    f = Formula(node, edit)
    if c is None:
        plain = alpha == 1.0
    else:
        width = static_dims(node.outputs[0])
        row = width is not None and static_dims(c) in ((width[-1],), (1, width[-1]))
        plain = alpha == beta == 1.0 and row and const_tensor(c) is not None
    if plain:
        return own_constants(node, edit, 0, 1, 2)
    for i, (value, flag) in enumerate(((a, "transA"), (b, "transB"))):
        if attribute(node, flag, 0):
            turned = f.transpose(value, (1, 0))
            a, b = (turned, b) if i == 0 else (a, turned)
    product = f.matmul(a, b)
    if alpha != 1.0:
        product = f.mul(product, alpha)
    if c is None:
        return f.finish(product)
    return f.finish(f.add(product, c if beta == 1.0 else f.mul(c, beta)))


def _einsum(node: ir.Node, edit: Edit) -> bool:
    """Sum of products: every operand laid out over all labels, then reduced.

    Two operands with one label summed over, each label of the result in one operand or, first, in
    both, are a MatMul.
    """
    parsed = _parsed(node)
    if parsed is None:
        return False
    operands, result = parsed
    f = Formula(node, edit)
    product = _as_matmul(f, operands, result)
    if product is None:
        product = _as_sum(f, operands, result)
    return f.finish(product)


def _parsed(node: ir.Node) -> tuple[list[str], str] | None:
    """The labels of the operands and of the result; `...` as capitals that occur nowhere else."""
    equation = str(attribute(node, "equation", "")).replace(" ", "")
    left, arrow, result = equation.partition("->")
    operands = left.split(",")
    ranks = [rank(v) for v in node.inputs]
    if len(operands) != len(ranks) or any(c.isupper() for c in equation):
        return None
    longest = ""
    for i, (labels, depth) in enumerate(zip(operands, ranks, strict=True)):
        if depth is None:
            return None
        count = depth - len(labels.replace("...", ""))
        dots = "ABCDEFGH"[8 - count :] if count > 0 else ""
        longest = max(longest, dots, key=len)
        operands[i] = labels.replace("...", dots)
    if not arrow:
        joined = "".join(operands)
        single = sorted(c for c in set(joined) if c.islower() and joined.count(c) == 1)
        result = ("..." if "..." in left else "") + "".join(single)
    result = result.replace("...", longest)
    repeated = any(len(set(labels)) != len(labels) for labels in (*operands, result))
    return None if repeated else (operands, result)


def _as_matmul(f: Formula, operands: list[str], result: str) -> ir.Value | None:
    if len(operands) != 2:
        return None
    a, b = operands
    summed = [c for c in a if c in b and c not in result]
    rows = [c for c in a if c in result and c not in b]
    columns = [c for c in b if c in result and c not in a]
    shared = [c for c in result if c in a and c in b]
    if len(summed) != 1 or len(rows) != 1 or len(columns) != 1:
        return None
    if set(a) | set(b) != {*summed, *rows, *columns, *shared}:
        return None
    left, right = [*shared, *rows, *summed], [*shared, *summed, *columns]
    product = f.matmul(
        f.transpose(required(f.node, 0), [a.index(c) for c in left]),
        f.transpose(required(f.node, 1), [b.index(c) for c in right]),
    )
    found = [*shared, *rows, *columns]
    return f.transpose(product, [found.index(c) for c in result])


def _as_sum(f: Formula, operands: list[str], result: str) -> ir.Value:
    labels = result + "".join(sorted({c for o in operands for c in o} - set(result)))
    total: ir.Value | None = None
    for i, own in enumerate(operands):
        order = [own.index(c) for c in labels if c in own]
        laid = f.transpose(required(f.node, i), order)
        absent = [k for k, c in enumerate(labels) if c not in own]
        if absent:
            laid = f.unsqueeze(laid, absent)
        total = laid if total is None else f.mul(total, laid)
    assert total is not None
    axes = tuple(range(len(result), len(labels)))
    if axes:
        return f.reduce("ReduceSum", total, axes, keepdims=0)
    return total if len(operands) > 1 or total is not f.node.inputs[0] else f.op("Identity", total)


RULES = {"Einsum": _einsum, "Gemm": _gemm, "MatMul": _matmul}

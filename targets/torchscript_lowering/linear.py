"""Matrix products. Source: ONNX operators MatMul-13, Gemm-13, Einsum-12."""

from __future__ import annotations

from infc.targets.torchscript_lowering import FLOATING, Op, lowers, number


@lowers("MatMul")
def matmul(op: Op) -> str:
    """Numpy's matmul, as torch's."""
    return f"torch.matmul({op.x(0)}, {op.x(1)})"


@lowers("Gemm")
def gemm(op: Op) -> str:
    """Alpha A' B' + beta C; the usual alpha = beta = 1, B transposed, C a vector is a linear."""
    alpha, beta = float(op.attribute("alpha", 1.0)), float(op.attribute("beta", 1.0))
    a, b = op.x(0), op.x(1)
    if op.dtype(0) not in FLOATING and (alpha != int(alpha) or beta != int(beta)):
        op.refuse("a fractional alpha or beta for integers")
    left = f"torch.t({a})" if op.flag("transA") else a
    plain = alpha == 1.0 and beta == 1.0 and op.dtype(0) in FLOATING
    if op.flag("transB") and plain and (not op.has(2) or op.rank(2) == 1):
        return f"torch.ops.aten.linear({left}, {b}, {op.or_none(2)})"
    right = f"torch.t({b})" if op.flag("transB") else b
    product = f"torch.mm({left}, {right})"
    if not op.has(2):
        return product if alpha == 1.0 else f"torch.mul({product}, {_scalar(op, alpha)})"
    factors = f"beta={_scalar(op, beta)}, alpha={_scalar(op, alpha)}"
    return f"torch.addmm({op.x(2)}, {left}, {right}, {factors})"


def _scalar(op: Op, value: float) -> str:
    return number(value) if op.dtype(0) in FLOATING else str(int(value))


@lowers("Einsum")
def einsum(op: Op) -> str:
    """The same language; upper-case letters and the ellipsis included."""
    equation = op.text("equation").replace(" ", "")
    if not all(c.isalpha() or c in ",->." for c in equation):
        op.refuse(f"equation `{equation}`")
    return f'torch.einsum("{equation}", [{", ".join(op.all())}])'

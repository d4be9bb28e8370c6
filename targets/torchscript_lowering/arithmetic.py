"""Elementwise arithmetic, comparison and logic, with numpy's multidirectional broadcasting.

Source: ONNX operators Add-14, Mod-13, Pow-15, Max-13, BitShift-11, Clip-13, Where-16 and their kin.
"""

from __future__ import annotations

from infc.targets.torchscript_lowering import FLOATING, Op, lowers, number, torch_dtype

UNARY = {
    "Abs": "abs",
    "Acos": "acos",
    "Acosh": "acosh",
    "Asin": "asin",
    "Asinh": "asinh",
    "Atan": "atan",
    "Atanh": "atanh",
    "BitwiseNot": "bitwise_not",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Det": "det",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "IsNaN": "isnan",
    "Log": "log",
    "Neg": "neg",
    "Not": "logical_not",
    "Reciprocal": "reciprocal",
    "Round": "round",  # half to even in both
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Sqrt": "sqrt",
    "Tan": "tan",
}
BINARY = {
    "Add": "add",
    "And": "logical_and",
    "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor",
    "Equal": "eq",
    "Greater": "gt",
    "GreaterOrEqual": "ge",
    "Less": "lt",
    "LessOrEqual": "le",
    "Mul": "mul",
    "Or": "logical_or",
    "Sub": "sub",
    "Xor": "logical_xor",
}
VARIADIC = {"Max": "maximum", "Min": "minimum", "Sum": "add"}


@lowers(*UNARY)
def unary(op: Op) -> str:
    """One aten function of the same meaning."""
    return f"torch.{UNARY[op.node.op_type]}({op.x(0)})"


@lowers(*BINARY)
def binary(op: Op) -> str:
    """One aten function; both operands are of one type, so torch promotes nothing."""
    return f"torch.{BINARY[op.node.op_type]}({op.x(0)}, {op.x(1)})"


@lowers(*VARIADIC)
def variadic(op: Op) -> str:
    """A chain of the binary function."""
    return _chain(op, VARIADIC[op.node.op_type])


@lowers("Mean")
def mean(op: Op) -> str:
    """The sum of the operands by their count."""
    return f"torch.div({_chain(op, 'add')}, {len(op.node.inputs)})"


def _chain(op: Op, function: str) -> str:
    """The operands, combined from the left."""
    first, *rest = op.all()
    for other in rest:
        first = f"torch.{function}({first}, {other})"
    return first


@lowers("Div")
def div(op: Op) -> str:
    """Integers divide toward zero, as in C."""
    operand = op.node.inputs[0]
    if operand is None or operand.dtype is None:
        return op.call("divide", op.x(0), op.x(1))
    rounding = "" if op.is_float() else ', rounding_mode="trunc"'
    return f"torch.div({op.x(0)}, {op.x(1)}{rounding})"


@lowers("Mod")
def mod(op: Op) -> str:
    """fmod=0: the sign of the divisor; fmod=1: the sign of the dividend."""
    function = "fmod" if op.flag("fmod") else "remainder"
    return f"torch.{function}({op.x(0)}, {op.x(1)})"


@lowers("Pow")
def power(op: Op) -> str:
    """The result is of the base's type, whatever the exponent's (Pow-12)."""
    base, exponent = op.dtype(0), op.dtype(1)
    known = op.const(1)
    if (
        base in FLOATING
        and known is not None
        and known.size == 1
        and known.ndim <= (op.rank() or 0)
    ):
        return f"torch.pow({op.x(0)}, {number(known.reshape(-1)[0])})"
    if base == exponent and base in FLOATING:
        return f"torch.pow({op.x(0)}, {op.x(1)})"
    if base in FLOATING:
        return f"torch.pow({op.x(0)}, {op.x(1)}.to({torch_dtype(op, base)}))"
    # Integers go through double, as in ONNX Runtime: torch refuses negative integer exponents.
    wide = f"torch.pow({op.x(0)}.to(torch.float64), {op.x(1)}.to(torch.float64))"
    if exponent in FLOATING:
        return f"{wide}.to({torch_dtype(op, base)})"
    return op.call("integer_power", op.x(0), op.x(1))


@lowers("BitShift")
def bit_shift(op: Op) -> str:
    """Only unsigned types; torch shifts uint8 logically."""
    side = op.text("direction").lower()
    if side not in ("left", "right"):
        op.refuse(f"direction `{side}`")
    return f"torch.bitwise_{side}_shift({op.x(0)}, {op.x(1)})"


@lowers("IsInf")
def is_inf(op: Op) -> str:
    """Either sign can be left out."""
    negative, positive = op.flag("detect_negative", True), op.flag("detect_positive", True)
    if negative and positive:
        return f"torch.isinf({op.x(0)})"
    if not (negative or positive):
        return f"torch.zeros_like({op.x(0)}, dtype=torch.bool)"
    return f"torch.is{'neg' if negative else 'pos'}inf({op.x(0)})"


@lowers("Where")
def where(op: Op) -> str:
    """`torch.where` broadcasts all three."""
    return f"torch.where({op.x(0)}, {op.x(1)}, {op.x(2)})"


@lowers("Clip")
def clip(op: Op) -> str:
    """Bounds: attributes before opset 11, optional scalar inputs since; max wins over min."""
    low, high = _bound(op, "min", 1), _bound(op, "max", 2)
    if all(bound is None or bound[1] for bound in (low, high)):
        words = [f"{k}={b[0]}" for k, b in (("min", low), ("max", high)) if b is not None]
        return f"torch.clamp({', '.join([op.x(0), *words])})" if words else op.x(0)
    x = op.x(0)
    if low is not None:
        x = f"torch.maximum({x}, {op.x(1)})"
    return x if high is None else f"torch.minimum({x}, {op.x(2)})"


def _bound(op: Op, name: str, index: int) -> tuple[str, bool] | None:
    """A bound's source and whether it is a literal; None where it is absent."""
    if op.version < 11:
        value = op.attribute(name)
        return None if value is None else (number(value), True)
    if not op.has(index):
        return None
    known = op.const(index)
    if known is None or known.size != 1:
        return op.x(index), False
    value = known.reshape(-1)[0]
    return (number(value) if op.is_float() else str(int(value))), True


@lowers("Identity", "Dropout")
def identity(op: Op) -> list[str]:
    """Dropout at inference is the identity with a mask of ones (False before opset 10: none)."""
    if op.node.op_type == "Dropout" and op.has(2):
        training, ratio = op.const(2), op.const(1) if op.has(1) else None
        off = training is not None and not bool(training.reshape(-1)[0])
        if not off and not (ratio is not None and float(ratio.reshape(-1)[0]) == 0.0):
            op.refuse("training_mode")
    out = [op.x(0)]
    if op.wants(1):
        dtype = "torch.bool" if op.version >= 10 else op.output_dtype(0)
        out.append(f"torch.ones_like({op.x(0)}, dtype={dtype})")
    return out

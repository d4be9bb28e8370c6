"""Element types. Source: ONNX operators Cast-24, CastLike-24.

float -> integer drops the fraction, anything -> bool is x != 0, a wider integer wraps: torch and
ONNX agree. Types below a byte and float8 are refused with the type.
"""

from __future__ import annotations

from infc.targets.torchscript_lowering import Op, lowers, torch_dtype


@lowers("Cast")
def cast(op: Op) -> str:
    """`to` is an attribute."""
    import onnx_ir as ir

    return f"{op.x(0)}.to({torch_dtype(op, ir.DataType(op.attribute('to')).name)})"


@lowers("CastLike")
def cast_like(op: Op) -> str:
    """`to` is the type of the second input."""
    return f"{op.x(0)}.to({op.x(1)}.dtype)"

"""Element types. Source: ONNX operators Cast-24, CastLike-24, BitCast-26.

float -> integer drops the fraction, anything -> bool is x != 0, a wider integer wraps: torch and
ONNX agree. Types below a byte and float8 are refused with the type.
"""

from __future__ import annotations

from infc.targets.torchscript_lowering import Op, lowers


@lowers("Cast")
def cast(op: Op) -> str:
    """`to` is an attribute."""
    return f"{op.x(0)}.to({op.output_dtype()})"


@lowers("CastLike")
def cast_like(op: Op) -> str:
    """`to` is the type of the second input."""
    return f"{op.x(0)}.to({op.x(1)}.dtype)"


@lowers("BitCast")
def bit_cast(op: Op) -> str:
    """The same bits, of a type of the same width."""
    if op.dtype_of(op.node.outputs[0]) == "BOOL" or op.dtype(0) == "BOOL":
        op.refuse("torch reads a bool's byte as 0 or 1 only")
    return f"torch.ops.aten.view.dtype({op.x(0)}, {op.output_dtype()})"

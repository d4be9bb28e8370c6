"""Activations. Source: ONNX operators Relu-14 to Swish-24; defaults are ONNX's, not torch's."""

from __future__ import annotations

from infc.targets.torchscript_lowering import Op, lowers, number

SIMPLE = {
    "HardSwish": "torch.ops.aten.hardswish({x})",
    "Mish": "torch.ops.aten.mish({x})",
    "Relu": "torch.relu({x})",
    "Sigmoid": "torch.sigmoid({x})",
    # Above 40, log1p(exp(x)) - x is below double's last place; torch's default of 20 is not.
    "Softplus": "torch.ops.aten.softplus({x}, 1.0, 40.0)",
    "Softsign": "torch.div({x}, torch.add(torch.abs({x}), 1.0))",
    "Tanh": "torch.tanh({x})",
}


@lowers(*SIMPLE)
def simple(op: Op) -> str:
    """No attributes."""
    return SIMPLE[op.node.op_type].format(x=op.x(0))


@lowers("LeakyRelu")
def leaky_relu(op: Op) -> str:
    """X < 0: alpha x."""
    return f"torch.ops.aten.leaky_relu({op.x(0)}, {number(op.attribute('alpha', 0.01))})"


@lowers("Elu", "Celu")
def elu(op: Op) -> str:
    """Elu: alpha (exp(x) - 1); Celu: alpha (exp(x / alpha) - 1)."""
    alpha = number(op.attribute("alpha", 1.0))
    return f"torch.ops.aten.{op.node.op_type.lower()}({op.x(0)}, {alpha})"


@lowers("Selu")
def selu(op: Op) -> str:
    """Gamma (alpha exp(x) - alpha) below zero, gamma x above."""
    alpha = op.attribute("alpha", 1.67326319217681884765625)
    gamma = op.attribute("gamma", 1.05070102214813232421875)
    return f"torch.ops.aten.elu({op.x(0)}, {number(alpha)}, {number(gamma)})"


@lowers("PRelu")
def prelu(op: Op) -> str:
    """The slope broadcasts to x from the right, unlike torch's, which is per channel."""
    x, slope = op.x(0), op.x(1)
    return f"torch.where(torch.lt({x}, 0), torch.mul({x}, {slope}), {x})"


@lowers("ThresholdedRelu")
def thresholded_relu(op: Op) -> str:
    """X where x > alpha, else 0."""
    return f"torch.ops.aten.threshold({op.x(0)}, {number(op.attribute('alpha', 1.0))}, 0.0)"


@lowers("HardSigmoid")
def hard_sigmoid(op: Op) -> str:
    """max(0, min(1, alpha x + beta))."""
    alpha, beta = number(op.attribute("alpha", 0.2)), number(op.attribute("beta", 0.5))
    return f"torch.clamp(torch.add(torch.mul({op.x(0)}, {alpha}), {beta}), min=0.0, max=1.0)"


@lowers("Gelu")
def gelu(op: Op) -> str:
    """Exact or with tanh."""
    kind = op.text("approximate", "none")
    if kind not in ("none", "tanh"):
        op.refuse(f"approximate=`{kind}`")
    return f'torch.ops.aten.gelu({op.x(0)}, approximate="{kind}")'


@lowers("Swish")
def swish(op: Op) -> str:
    """X sigmoid(alpha x)."""
    alpha = number(op.attribute("alpha", 1.0))
    return f"torch.mul({op.x(0)}, torch.sigmoid(torch.mul({op.x(0)}, {alpha})))"


@lowers("Shrink")
def shrink(op: Op) -> str:
    """X + bias below -lambd, x - bias above lambd, else 0; integers too."""
    lambd, bias = number(op.attribute("lambd", 0.5)), number(op.attribute("bias", 0.0))
    return f"{op.call('shrink', op.x(0), lambd, bias)}.to({op.output_dtype()})"


@lowers("Softmax", "LogSoftmax")
def softmax(op: Op) -> str:
    """Along an axis since opset 13; before, over all dimensions from the axis on."""
    function = "log_softmax" if op.node.op_type == "LogSoftmax" else "softmax"
    axis = op.attribute("axis", -1 if op.version >= 13 else 1)
    rank = op.rank()
    if op.version >= 13 or (rank is not None and axis in (-1, rank - 1)):
        return f"torch.{function}({op.x(0)}, {axis})"
    return f"torch.{function}({op.call('rows_from', op.x(0), axis)}, 1).reshape({op.x(0)}.shape)"


@lowers("Hardmax")
def hardmax(op: Op) -> str:
    """1 at the first maximum, else 0."""
    axis = op.attribute("axis", -1 if op.version >= 13 else 1)
    if op.version >= 13:
        return op.call("hardmax", op.x(0), axis)
    rows = op.call("rows_from", op.x(0), axis)
    return f"{op.call('hardmax', rows, 1)}.reshape({op.x(0)}.shape)"

"""Transposes of what the caller gives, in five dimensions.

| operator | what MindSpore Lite 2.0.0 does with it |
|---|---|
| Transpose N, H, W, C -> N, C, H, W of a graph input | the input becomes N, C, H, W itself |
| the same, with operators of elements or MatMul between | the same |
| any Transpose of four dimensions of a graph input, with a Conv behind | refused, or wrong |

The converter, which computes in N, H, W, C inside, moves such a transpose up to the input and
drops it there: the artifact then wants its data in another layout than the model's, and says
nothing. In five dimensions it sees no layout in it. Behind a convolution, whose layout is known,
transposes cancel as they should, and stay.

    Transpose(x, p)  ->  Squeeze(Transpose(Unsqueeze(x, 1), p'), 4)
"""

from __future__ import annotations

import onnx_ir as ir

from infc.passes.rewriting import Edit, Rule, attribute, rank
from infc.targets.mindspore_lite_lowering.formula import Formula, required

SETTLED = frozenset(
    (
        "AveragePool",
        "Conv",
        "ConvTranspose",
        "DepthToSpace",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "MaxPool",
        "Resize",
        "SpaceToDepth",
    )
)
"""Operators that the converter itself puts transposes around."""


def _transpose(node: ir.Node, edit: Edit) -> bool:
    x = required(node, 0)
    perm = tuple(attribute(node, "perm", (3, 2, 1, 0)))
    if rank(x) != 4 or perm == (0, 1, 2, 3) or not _is_given(x):
        return False
    f = Formula(node, edit)
    # The new axis is the second of the operand's and the last of the result's.
    wide = f.op("Transpose", f.unsqueeze(x, (1,)), perm=[*(p + (p > 0) for p in perm), 1])
    return f.finish(f.squeeze(wide, (4,)))


def _is_given(value: ir.Value) -> bool:
    """Whether a graph input reaches `value` without passing an operator whose layout is known."""
    seen: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        source = value.producer()
        if source is None:
            if value.is_graph_input():
                return True
        elif source.op_type not in SETTLED:
            waiting.extend(v for v in source.inputs if v is not None)
    return False


FINAL: dict[str, Rule] = {"Transpose": _transpose}
WRITES = ("Squeeze", "Unsqueeze")
"""What the rule writes and other rules have a word about."""

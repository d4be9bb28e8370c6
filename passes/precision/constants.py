"""What is wrong with the constants of a model in the lower type, each looked at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from infc.passes.precision import policy
from infc.passes.precision.formats import Format, misfit, vanishes
from infc.passes.precision.masks import masked_values
from infc.passes.precision.slots import Slots
from infc.passes.rewriting import const_tensor
from infc.quantization import Range


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a constant cannot be had: it "overflows" or "underflows"; `text` names it."""

    kind: str
    text: str


class Constants:
    """The constants of `model`; `holding` are the values with masked entries (`masks`)."""

    def __init__(self, model: ir.Model, form: Format, ranges: Mapping[str, Range] | None) -> None:
        self._form = form
        self._problems: dict[ir.Value, str] = {}
        self._masks, self.holding = masked_values(model, ranges, form.largest)

    def problem(
        self, node: ir.Node, slots: Slots, clipped: dict[tuple[ir.Node, int], float]
    ) -> Problem | None:
        """Why a constant of `node` cannot be had; None where all can.

        Those that lose nothing by being clipped are put into `clipped`, with the bound.
        """
        for i in sorted(slots.inputs):
            value = node.inputs[i]
            tensor = const_tensor(value)
            if value is None or tensor is None:
                continue
            if value not in self._problems:
                self._problems[value] = misfit(tensor, self._form)
            problem = self._problems[value]
            if problem == "overflows" and value in self._masks:
                clipped[node, i] = self._form.masked
            elif problem == "overflows" and _is_bound(node, i):
                clipped[node, i] = self._form.largest
            elif problem:
                return Problem(problem, f"constant `{value.name}` {problem}")
            elif policy.SINGULAR.get(node.op_type) == i and vanishes(tensor, self._form):
                return Problem("underflows", f"divisor `{value.name}` underflows")
        return None


def _is_bound(node: ir.Node, index: int) -> bool:
    """Whether the constant only bounds what else there is."""
    return node.op_type in policy.EXTREMES and (node.op_type != "Clip" or index > 0)

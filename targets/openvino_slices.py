"""Slices that OpenVINO would take away from a GatherElements.

    GatherElements(Slice(x, 0, e), i)   ->   GatherElements(Slice(x, -big, e), i)

The same slice: a start is clamped to the beginning. When it compiles a model, OpenVINO reads such
elements from x itself (`EliminateSliceBeforeGatherElements`, openvino pull request 18614), looking
for slices that start at 0; where another dimension than that of the indices was sliced, it then
refuses its own result: "data and indices must have equal or intersecting dimensions". A detector
that picks the boxes of its best scores is such a model. Seen with 2026.4.1.
"""

from __future__ import annotations

from typing import Any

BEGINNING = -(2**31) + 1
"""Clamped to 0 in any dimension; fits the 32 bits that the CPU plugin computes indices in."""


def keep_sliced(network: Any) -> None:
    """Rewrite the starts, in place, of all slices that a GatherElements reads its data from."""
    import numpy as np
    from openvino import opset8

    for node in network.get_ops():
        if node.get_type_name() != "GatherElements":
            continue
        sliced = node.input_value(0).get_node()
        if sliced.get_type_name() != "Slice":
            continue
        starts, steps = (_constant(sliced.input_value(i).get_node()) for i in (1, 3))
        if starts is None or steps is None or np.any(starts) or np.any(steps < 0):
            continue
        beginning = opset8.constant(np.full(starts.shape, BEGINNING, np.int64))
        sliced.input(1).replace_source_output(beginning.output(0))
    network.validate_nodes_and_infer_types()


def _constant(node: Any) -> Any:
    """The elements of a constant, or those that are broadcast: steps that were left out are."""
    import numpy as np

    if node.get_type_name() == "Broadcast":
        node = node.input_value(0).get_node()
    return np.asarray(node.data) if node.get_type_name() == "Constant" else None

"""Magnitude channel pruning: channels really removed, of a float graph.

    y = W2 f(W1 x + b1)    ->    y = W2[:, S] f(W1[S] x + b1[S])        S: the channels that stay

It is no pass of the pipeline: it changes what the model answers. To be run on the optimised graph,
where batch normalisation lies in the weights that are judged, and shapes are constants.

    channels      what goes together          layers        Conv, Gemm, MatMul, LSTM, ...
    tracking      the axes of every value     elementwise   with broadcasting
    choice        which channels go           normalizing   reductions and pools, too
    surgery       they are taken out          reshaping     Reshape, Flatten: heads, groups
    counting      parameters and MACs         shaping       Transpose, Expand, Resize, ...
                                              slicing       Concat, Split, Slice, Pad, ...

Groups are found from the axes: one array of channel numbers along each, which operators tie, join,
split and repeat. What has no rule, and whatever reaches an input, an output or the body of a loop,
is not pruned. By default a channel goes only where removing it is the same as setting it to zero,
so that the result can be proved: `silence` does that, and both graphs have to answer alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from infc.passes.pruning.choice import NORMS, SCOPES, Amount, Mask, choose
from infc.passes.pruning.counting import macs, parameters
from infc.passes.pruning.surgery import remove, silence
from infc.passes.pruning.tracking import Tracker, track
from infc.passes.rewriting import const_tensor

__all__ = ["NORMS", "SCOPES", "Amount", "PrunedLayer", "PruningRecord", "prune", "silenced"]


@dataclass(frozen=True, slots=True)
class PrunedLayer:
    """A layer by the name of its node (or of its weights), and how many channels it computes."""

    name: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class PruningRecord:
    """What pruning did: the layers that lost channels, and the model's size; MACs may be unknown.

    `layers` counts all that have weights. `exact`: removing the channels is setting them to zero.
    """

    pruned: tuple[PrunedLayer, ...]
    layers: int
    parameters: tuple[int, int]
    macs: tuple[int, int] | None
    exact: bool


def prune(model: ir.Model, amount: Amount, sizes: Mapping[str, int]) -> PruningRecord:
    """Remove channels in place; `sizes` are those of dynamic dimensions, for the MACs.

    The same graph and amount give the same result. Nothing is done to a graph with nothing to
    remove.
    """
    before = parameters(model), macs(model, sizes)
    tracker = track(model)
    gone = choose(tracker, amount)
    rows, layers = _rows(tracker, gone)
    always = tracker.channels.removable(averaged=False)
    exact = bool(always[gone].all())
    if rows:
        remove(model, tracker, gone)
    after = parameters(model), macs(model, sizes)
    both = None if before[1] is None or after[1] is None else (before[1], after[1])
    return PruningRecord(rows, layers, (before[0], after[0]), both, exact)


def silenced(model: ir.Model, amount: Amount) -> ir.Model:
    """A clone in which the channels that `prune` would remove are zero."""
    clone = model.clone()
    tracker = track(clone)
    silence(clone, tracker, choose(tracker, amount))
    return clone


def _rows(tracker: Tracker, gone: Mask) -> tuple[tuple[PrunedLayer, ...], int]:
    rows, layers = [], 0
    for use in tracker.uses:
        if not use.outputs or const_tensor(use.value) is None:
            continue
        layers += 1
        for place in sorted(use.outputs):
            axis = use.axes[place]
            if axis is None or not gone[axis].any():
                continue
            name = use.readers[0][0].name or str(use.value.name)
            rows.append(PrunedLayer(name, len(axis), int((~gone[axis]).sum())))
    return tuple(rows), layers

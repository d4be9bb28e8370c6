"""Which channels go: the least important, of every layer or of the whole model.

    importance(c) = sum of |w|           over the weights that compute channel c, in all layers
                    sqrt(sum of w**2)    that are tied (L1, L2)

A group is what is tied through residual additions and the like: layers that keep the same
channels. Ranked by layer, every group loses the same part; ranked over the whole model, importance
is in units of its group's mean, and no group loses more than MOST_OF_A_GROUP.

Source: H. Li et al., "Pruning Filters for Efficient ConvNets", 2017 (arXiv:1608.08710); groups and
normalised ranking as in G. Fang et al., "DepGraph", 2023 (arXiv:2301.12900).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infc.passes.pruning.channels import Places
from infc.passes.pruning.tracking import Tracker
from infc.passes.rewriting import const_tensor, elements

Mask = npt.NDArray[np.bool_]
MOST_OF_A_GROUP = 0.9
NORMS = ("l1", "l2")
SCOPES = ("layer", "model")


@dataclass(frozen=True, slots=True)
class Amount:
    """What part of the channels is to go, `part` from 0 to 1, and how they are chosen.

    `multiple`: a layer keeps a multiple of so many channels, rounded up, where that still removes
    any. `averaged` takes in channels that a normalisation averages over.
    """

    part: float
    scope: str = "layer"
    norm: str = "l1"
    multiple: int = 8
    averaged: bool = False


@dataclass(slots=True)
class Group:
    """Layers that keep the same channels.

    `channels` are those that may go, one number each; `importance` is theirs. `times` is how many
    places of a layer one of them is (heads, groups of a convolution).
    """

    channels: Places
    importance: npt.NDArray[np.float64]
    times: int


def choose(tracker: Tracker, amount: Amount) -> Mask:
    """Whether each channel goes: (channels,) bool, the same for all that are tied."""
    roots = tracker.channels.roots(np.arange(len(tracker.channels)))
    groups = groups_of(tracker, amount)
    gone = np.zeros(len(roots), bool)
    limits = _limits(groups, amount)
    for group, count in zip(groups, limits, strict=True):
        order = np.lexsort((group.channels, group.importance))
        gone[group.channels[order[:count]]] = True
    _leave_one(tracker, groups, gone)
    return gone[roots]


def groups_of(tracker: Tracker, amount: Amount) -> list[Group]:
    """The groups with channels that may go, in the order of their first layer."""
    channels = tracker.channels
    roots = channels.roots(np.arange(len(channels)))
    removable = channels.removable(averaged=amount.averaged)
    energy = np.zeros(len(roots), np.float64)
    layers = []
    for use in tracker.uses:
        for place in sorted(use.outputs):
            axis = use.axes[place]
            if axis is None:
                continue
            own = roots[axis]
            tensor = const_tensor(use.value)
            if tensor is None or not removable[axis].any():
                continue
            np.add.at(energy, own, _rows(elements(tensor), place, amount.norm))
            layers.append(own)
    importance = np.sqrt(energy) if amount.norm == "l2" else energy
    groups = []
    for members in _connected(layers):
        places = np.concatenate(members)
        found, first = np.unique(places, return_index=True)
        found = found[np.argsort(first)]
        found = found[removable[found]]
        times = max(int(np.bincount(np.searchsorted(np.unique(m), m)).max()) for m in members)
        if len(found):
            groups.append(Group(found, importance[found], times))
    return groups


def _rows(array: npt.NDArray[np.generic], axis: int, norm: str) -> npt.NDArray[np.float64]:
    """|w| or w**2 summed along `axis`; what is not finite is beyond all others."""
    rows = np.moveaxis(array.astype(np.float64), axis, 0).reshape(array.shape[axis], -1)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.abs(rows).sum(axis=1) if norm == "l1" else (rows**2).sum(axis=1)
    beyond = np.finfo(np.float64).max
    return np.where(np.isfinite(sums), sums, beyond)


def _connected(layers: list[Places]) -> list[list[Places]]:
    """Layers that have channels in common, together, in the order of the first of each."""
    parent = list(range(len(layers)))

    def first(layer: int) -> int:
        while parent[layer] != layer:
            parent[layer] = parent[parent[layer]]
            layer = parent[layer]
        return layer

    owner: dict[int, int] = {}
    for number, layer in enumerate(layers):
        for channel in np.unique(layer).tolist():
            one, other = first(owner.setdefault(channel, number)), first(number)
            parent[max(one, other)] = min(one, other)
    groups: dict[int, list[Places]] = {}
    for number, layer in enumerate(layers):
        groups.setdefault(first(number), []).append(layer)
    return list(groups.values())


def _limits(groups: list[Group], amount: Amount) -> list[int]:
    """How many channels each group loses."""
    if amount.scope == "layer":
        return [_rounded(group, amount.part, amount.multiple) for group in groups]
    every = [group.importance / max(float(group.importance.mean()), 1e-300) for group in groups]
    if not every:
        return []
    owners = np.repeat(np.arange(len(groups)), [len(own) for own in every])
    order = np.argsort(np.concatenate(every), kind="stable")
    lost = np.bincount(owners[order[: int(amount.part * len(order))]], minlength=len(groups))
    return [
        _rounded(group, min(int(count) / len(own), MOST_OF_A_GROUP), amount.multiple)
        for group, own, count in zip(groups, every, lost, strict=True)
    ]


def _rounded(group: Group, part: float, multiple: int) -> int:
    """How many go when `part` do, so that a multiple stays if that is possible; one stays."""
    count = len(group.channels)
    stay = max(1, count - math.floor(part * count + 1e-9))
    step = multiple // math.gcd(multiple, group.times)
    up = -(-stay // step) * step
    return count - (up if up < count else stay)


def _leave_one(tracker: Tracker, groups: list[Group], gone: Mask) -> None:
    """Keep the most important channel of an axis that would lose all; `gone` is by root."""
    importance = np.zeros(len(gone))
    for group in groups:
        importance[group.channels] = group.importance
    values = [tracked.axes for tracked in tracker.values.values()]
    axes = [a for found in (*values, *(u.axes for u in tracker.uses)) for a in found]
    for axis in axes:
        if axis is None or not len(axis):
            continue
        own = tracker.channels.roots(axis)
        if gone[own].all():
            gone[own[int(np.argmax(importance[own]))]] = False

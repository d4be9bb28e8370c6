"""Which channels can only be removed together.

A channel is a number. Two that must share their fate are tied, and are one from then on; those
that cannot be removed are fixed. An axis of a tensor is an array of channels, (size,), one for each
index along it; None stands for an axis of which nothing is removed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
"""Channels, one for each index along an axis."""
Axis = Places | None


class Channels:
    """Channels, and what is known of them."""

    def __init__(self) -> None:
        self._parent = np.zeros(0, np.int64)
        self._fixed = np.zeros(0, bool)
        self._averaged = np.zeros(0, bool)

    def fresh(self, count: int) -> Places:
        """So many new channels."""
        first = len(self._parent)
        new = np.arange(first, first + count, dtype=np.int64)
        self._parent = np.concatenate([self._parent, new])
        self._fixed = np.concatenate([self._fixed, np.zeros(count, bool)])
        self._averaged = np.concatenate([self._averaged, np.zeros(count, bool)])
        return new

    def roots(self, channels: Places) -> Places:
        """One number for all that are tied; the shape of `channels`."""
        found = self._parent[channels]
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                return found
            self._parent[channels] = above
            found = above

    def tie(self, *axes: Axis) -> Axis:
        """Tie axes index by index; all are fixed where one is, or where their sizes differ."""
        known = [axis for axis in axes if axis is not None]
        if len(known) < len(axes) or len({len(axis) for axis in known}) > 1:
            self.fix(*axes)
            return None
        if not known:
            return None
        first = known[0]
        for other in known[1:]:
            self._unite(first, other)
        return first

    def fold(self, rows: Places) -> Places:
        """Tie the columns of (size, times): what lies side by side goes together; (size,)."""
        for column in rows.T[1:]:
            self._unite(rows[:, 0], column)
        return np.ascontiguousarray(rows[:, 0])

    def _unite(self, a: Places, b: Places) -> None:
        pairs = np.stack([self.roots(a), self.roots(b)], axis=1)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        for one, other in np.unique(pairs, axis=0):
            x, y = self._root(int(one)), self._root(int(other))
            if x != y:
                low, high = min(x, y), max(x, y)
                self._parent[high] = low

    def _root(self, channel: int) -> int:
        while self._parent[channel] != channel:
            channel = int(self._parent[channel])
        return channel

    def fix(self, *axes: Axis) -> None:
        """None of these is removed."""
        for axis in axes:
            if axis is not None:
                self._fixed[axis] = True

    def average(self, *axes: Axis) -> None:
        """Something is computed over all of these together, such as their mean."""
        for axis in axes:
            if axis is not None:
                self._averaged[axis] = True

    def removable(self, *, averaged: bool) -> npt.NDArray[np.bool_]:
        """(channels,): whether its root is not fixed nor, but for `averaged`, averaged."""
        stays = self._fixed if averaged else self._fixed | self._averaged
        roots = self.roots(np.arange(len(self._parent)))
        fixed = np.zeros(len(roots), bool)
        np.logical_or.at(fixed, roots, stays)
        return ~fixed[roots]

    def __len__(self) -> int:
        return len(self._parent)

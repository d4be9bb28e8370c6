"""Random samples, for those who ask for them in words: they say nothing about real ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from infc.feeds import random_tensor, shape_at
from infc.signature import TensorSpec

if TYPE_CHECKING:
    from infc.calibration.sources import Row

DEFAULT_SAMPLES = 32
TYPICAL = 1
"""The middle one of the three sizes of a dynamic dimension."""


class RandomSamples:
    """Standard normal floats, 0 and 1 for integers; each sample is seeded by its own index."""

    kind = "random"
    text = False

    def __init__(self, inputs: Sequence[TensorSpec], samples: int | None, seed: int) -> None:
        self._inputs = tuple(inputs)
        self._seed = seed
        self.count = samples or DEFAULT_SAMPLES
        self.shapes = {spec.name: tuple(shape_at(spec, TYPICAL, {})) for spec in inputs}

    def rows(self, indices: Iterable[int]) -> Iterator[Row]:
        """Whole values of every input, dynamic dimensions at their typical size."""
        import numpy as np

        for index in indices:
            rng = np.random.default_rng([self._seed, index])
            yield (
                f"random sample {index}",
                {s.name: random_tensor(rng, s, self.shapes[s.name]) for s in self._inputs},
            )

    def digest(self, digest: Any, indices: Iterable[int]) -> bool:
        """The seed; NumPy keeps its streams the same."""
        digest.update(f"random {self._seed}".encode())
        return True

"""How a loader builds an artifact on the device: the builder's spec as constants of C.

    spec (JSON of `infc.targets.tensorrt_builder`) -> Recipe -> bundle_info.h

The loader then reads no JSON. What the spec says of logs and of several GPUs is not for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SETTINGS = (
    "dla_core",
    "hardware_compatible",
    "optimization_level",
    "tf32",
    "version_compatible",
    "workspace_bytes",
)
"""The keys of the spec that the loader's builder knows; one that is None is left out."""


@dataclass(frozen=True, slots=True)
class Range:
    """What the builder is told of one input, for one optimization profile.

    `low`, `typical` and `high` are `count` numbers each, as C writes them: a shape, or with
    `of_contents` what the input contains.
    """

    input: str
    profile: int
    of_contents: int
    count: int
    low: str
    typical: str
    high: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """`files` are what is built, relative to the bundle's folder, with their hashes.

    The first one is the graph, the others hold its weights.
    """

    files: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    ranges: tuple[Range, ...]
    profile_count: int


def recipe_of(
    spec: Mapping[str, Any], graph: str, sha256: str, *weights: tuple[str, str]
) -> Recipe:
    """The recipe that does what `spec` says with the ONNX file `graph`.

    `weights` are the files of its external data, with their hashes.
    """
    ranges = tuple(_ranges(spec["inputs"]))
    settings = ((key, spec[key]) for key in SETTINGS if spec.get(key) is not None)
    return Recipe(
        ((graph, sha256), *weights),
        tuple((key, _text(value)) for key, value in settings),
        ranges,
        1 + max((r.profile for r in ranges), default=-1),
    )


def _ranges(inputs: Sequence[Mapping[str, Any]]) -> list[Range]:
    found = []
    for row in inputs:
        for key, of_contents in (("profiles", 0), ("values", 1)):
            for number, (low, typical, high) in enumerate(row.get(key) or ()):
                # A scalar that shapes are computed from has one number, and no shape to tell.
                if len(low) == 0:
                    continue
                texts = (", ".join(map(str, numbers)) for numbers in (low, typical, high))
                found.append(Range(row["name"], number, of_contents, len(low), *texts))
    return found


def _text(value: object) -> str:
    """As the loader reads it: numbers, 1 and 0 for true and false, words."""
    return str(int(value)) if isinstance(value, bool) else str(value)

"""`sensitivity.json`: what each layer costs when it alone is quantised.

Measured once, in the scheme `layers.CANONICAL`, for every target and every budget:

    {"format": "infc-sensitivity", "version": 1, "model": SHA-256 of the equalised float graph,
     "data": fingerprint of the calibration data, "scheme": "canonical", "runs": 16,
     "metric": "top1" | null, "labelled_samples": 64, "float": {"metric": 0.97},
     "layers": [{"name", "op_type", "sqnr_db", "metric"}, ...]}

in graph order; `sqnr_db` is that of the worst output against the float graph's, null where it is
exact. The file holds no clock, host or path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infc.mixed_precision.evaluation import Figures

FORMAT, VERSION = "infc-sensitivity", 1
"""The version is part of every key of the cache: raised when the same graph and data would give
other figures."""
DECIDING = 2.0
"""A drop of the metric orders layers only where more samples than this decided it."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer, and the figures of the graph in which it alone is quantised."""

    name: str
    op_type: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The content of `sensitivity.json`; see the module's docstring."""

    model: str
    data: str
    runs: int
    metric: str | None
    labelled_samples: int
    exact: Figures
    layers: tuple[Layer, ...]

    def order(self) -> list[str]:
        """The names of the layers, the most harmful first.

        A drop of the metric counts before SQNR, but not one that two samples may have caused.
        """
        if self.exact.metric is None:
            certain = 0.0
        else:
            certain = DECIDING * abs(self.exact.metric) / max(1, self.labelled_samples)
        whole = self.exact.metric or 0.0

        def harm(layer: Layer) -> tuple[float, float]:
            metric, sqnr = layer.figures.metric, layer.figures.sqnr_db
            drop = 0.0 if metric is None else whole - metric
            return -drop if drop > certain else 0.0, float("inf") if sqnr is None else sqnr

        return [layer.name for layer in sorted(self.layers, key=harm)]

    def to_json(self) -> dict[str, Any]:
        """The document."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model,
            "data": self.data,
            "scheme": "canonical",
            "runs": self.runs,
            "metric": self.metric,
            "labelled_samples": self.labelled_samples,
            "float": self.exact.to_json(),
            "layers": [
                {"name": row.name, "op_type": row.op_type, **row.figures.to_json()}
                for row in self.layers
            ],
        }

    def dump(self) -> str:
        """The text of the file, a line for each layer."""
        document = self.to_json()
        rows = ",\n  ".join(json.dumps(row, allow_nan=False) for row in document.pop("layers"))
        return f'{json.dumps(document)[:-1]},\n "layers": [\n  {rows}\n ]}}\n'

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Sensitivity:
        """The inverse of `to_json`.

        Raises:
            ValueError: it is no such document, or of another version.
            KeyError: something is missing.
        """
        if (document["format"], document["version"]) != (FORMAT, VERSION):
            raise ValueError(f"not {FORMAT} {VERSION}")
        return cls(
            str(document["model"]),
            str(document["data"]),
            int(document["runs"]),
            document["metric"],
            int(document["labelled_samples"]),
            Figures.from_json(document["float"]),
            tuple(
                Layer(str(row["name"]), str(row["op_type"]), Figures.from_json(row))
                for row in document["layers"]
            ),
        )


def cache_key(*parts: object) -> str:
    """For what the figures depend on."""
    return hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()[:32]


def load_cached(place: Path) -> Sensitivity | None:
    """What the file `place` of the cache holds; None where it is not there or damaged."""
    try:
        return Sensitivity.from_json(json.loads(place.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(place: Path, found: Sensitivity) -> None:
    """Into the cache, in one rename; a cache that cannot be written costs time, no more."""
    partial = place.with_name(f"{place.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(found.dump(), encoding="utf-8")
        partial.replace(place)

"""What the user asked for of `--prune`: parsed, checked and frozen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infc.budget import TOP1, require_metric
from infc.diagnostics import fail
from infc.preprocessing import Preprocess

SCOPES = ("layer", "model")
"""Whose least important channels go: every layer's, or the model's."""
NORMS = ("l1", "l2")
"""What the importance of a channel is: of the weights that compute it."""


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """How many channels go, and what the accuracy before and after is taken on.

    `part` is above 0 and below 1. A layer keeps a multiple of `multiple` channels where it can.
    `normalized` takes in channels that a normalisation averages over. `labelled` is data for
    `metric`, read with `preprocess` in runs of `batch`; None for no metric.
    """

    part: float
    scope: str = "layer"
    norm: str = "l1"
    multiple: int = 8
    normalized: bool = False
    labelled: str | None = None
    metric: str = TOP1
    preprocess: Preprocess | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        require_metric(self.metric)
        if not 0 < self.part < 1:
            raise fail(
                "E110",
                f"`--prune {self.part:g}` is not above 0 and below 100 %",
                help="for example `--prune 30%`",
            )
        for option, value, known in (
            ("scope", self.scope, SCOPES),
            ("norm", self.norm, NORMS),
        ):
            if value not in known:
                have = ", ".join(f"`{name}`" for name in known)
                raise fail("E110", f"there is no `--prune-{option} {value}`", help=f"it is {have}")
        if self.multiple < 1:
            raise fail("E110", f"`--prune-multiple {self.multiple}` is not above 0")

    def to_json(self) -> dict[str, Any]:
        """What decides which channels go, as the manifest has it."""
        return {
            "amount": self.part,
            "scope": self.scope,
            "norm": self.norm,
            "multiple": self.multiple,
            "normalized": self.normalized,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PruneOptions:
        """The inverse of `to_json`; what else the mapping holds is ignored."""
        names = ("scope", "norm", "multiple", "normalized")
        return cls(data["amount"], **{name: data[name] for name in names})


def parse_part(text: str) -> float:
    """Parse `--prune`: `30%` is 0.3, and so is `0.3`.

    Raises:
        InfcError: E110 where it is neither.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(%?)", text.strip())
    if match is None:
        raise fail("E110", f"`--prune {text}` is no part", help="for example `30%` or `0.3`")
    # Not divided: 30 / 100 has no more digits than the text.
    return float(f"{match[1]}e-2") if match[2] else float(match[1])

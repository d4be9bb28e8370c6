"""Render the loaders of a bundle, compile them, and run them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infc.signature import TensorSpec
from infc.targets import Artifact, Target


def render(
    folder: Path,
    name: str,
    target: Target,
    artifact: Artifact,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    languages: Sequence[str],
) -> None:
    """Write `loader/<language>/` into the bundle in `folder`."""

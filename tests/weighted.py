"""Small models as text, given random weights: `save(path, text, shapes)`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper


def save(
    path: Path,
    text: str,
    shapes: Mapping[str, tuple[int, ...]],
    gains: Mapping[str, float] | None = None,
) -> np.random.Generator:
    """Write the model `text` with float32 weights that keep activations in range (He et al., 2015).

    `gains` multiply the weights of a name. Returns the generator, to draw data from.
    """
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(text)
    for name, shape in shapes.items():
        weights = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        weights = (weights * (gains or {}).get(name, 1.0)).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(weights, name))
    onnx.save(proto, path)
    return rng

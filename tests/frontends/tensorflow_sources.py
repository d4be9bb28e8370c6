"""Code that Keras files of the tests need, as a user has it."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops


class Steep(layers.Layer):
    """A layer that Keras does not have."""

    def call(self, x: Any) -> Any:
        return x * ops.sigmoid(2 * x)


def make_model() -> Any:
    """The model that a file of weights belongs to."""
    x = layers.Input((6,), name="x")
    return keras.Model(x, layers.Dense(2, name="y")(layers.Dense(4, activation="relu")(x)))

"""Models that keep a state, for `tensorflow_zoo`, with what they answer at two calls in a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

SPEC = tf.TensorSpec([2, 3], tf.float32, name="x")
FRAMES = tf.TensorSpec([None, 16], tf.float32, name="x")


class Keeper(tf.Module):
    """Functions that assign."""

    def __init__(self) -> None:
        self.last = tf.Variable(tf.ones([2, 3]), name="last")
        self.count = tf.Variable(0.0, name="count")

    @tf.function(input_signature=[SPEC])
    def ordered(self, x: Any) -> Any:
        before = self.last.read_value()
        self.last.assign(x * 2.0)
        middle = self.last.read_value()
        self.last.assign_sub(before)
        self.count.assign_add(1.0)
        return {"y": before + 10.0 * middle + 100.0 * self.last + self.count}

    @tf.function(input_signature=[SPEC])
    def branch(self, x: Any) -> Any:
        def counted() -> Any:
            self.count.assign_add(1.0)
            return x

        return {"y": tf.cond(tf.reduce_sum(x) > 0.0, counted, lambda: -x)}

    @tf.function(input_signature=[SPEC])
    def part(self, x: Any) -> Any:
        self.last[0].assign(x[0])
        return {"y": x + self.last}

    @tf.function(input_signature=[FRAMES])
    def spectrum(self, x: Any) -> Any:
        z = tf.signal.rfft(x)
        phase = tf.exp(1j * tf.cast(tf.math.angle(z), tf.complex64))
        again = tf.cast(tf.abs(z) * 0.5, tf.complex64) * phase
        return {"y": tf.signal.irfft(again), "im": tf.math.imag(tf.math.conj(z))}


def write(folder: Path) -> None:
    """SavedModels, a Keras file, and `NAME.npz` with `x0`, `y0`, `x1`, `y1`."""
    for name, layer in (("lstm", layers.LSTM), ("gru", layers.GRU)):
        keras.utils.set_random_seed(4)
        x = layers.Input(batch_shape=(2, 1, 3), name="frames")
        y = layer(5, stateful=True, return_sequences=True, name="memory")(x)
        model = keras.Model(x, layers.Dense(4, name="scores")(y))
        model.save(folder / f"stateful_{name}.keras")
        model.export(folder / f"stateful_{name}", verbose=False)
        steps = [np.random.randn(2, 1, 3).astype(np.float32) for _ in range(2)]
        answers = [model(step).numpy() for step in steps]
        rows = {f"x{i}": row for i, row in enumerate(steps)}
        rows |= {f"y{i}": row for i, row in enumerate(answers)}
        np.savez(folder / f"stateful_{name}.npz", **rows)
    module = Keeper()
    for name in ("ordered", "branch", "part", "spectrum"):
        function = getattr(module, name).get_concrete_function()
        place = str(folder / f"sm_state_{name}")
        tf.saved_model.save(module, place, signatures={"serving_default": function})

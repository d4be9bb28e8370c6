"""A small image classifier in Keras, written in each format: `python leaves.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers


def leaves() -> keras.Model:
    """Photos of leaves, 32 x 32 RGB from 0 to 1, to four species."""
    x = photo = layers.Input((32, 32, 3), name="photo")
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.MaxPooling2D()(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(photo, layers.Dense(4, activation="softmax", name="species")(x))


def main(folder: Path) -> None:
    """A model of random weights will do: this is about formats."""
    keras.utils.set_random_seed(1)
    model = leaves()
    model.save(folder / "leaves.keras")
    model.save(folder / "leaves.h5")
    model.export(folder / "leaves_saved_model")
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (folder / "leaves.tflite").write_bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    photos = np.random.rand(16, 1, 32, 32, 3).astype(np.float32)
    converter.representative_dataset = lambda: ([photo] for photo in photos)
    (folder / "leaves_int8.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]))

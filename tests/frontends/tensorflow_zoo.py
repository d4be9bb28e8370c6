"""Models for the tests, written by TensorFlow itself: `python tensorflow_zoo.py FOLDER`.

Runs in the toolchain's Python, once; `tensorflow_session` asks for it.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

SPEC = tf.TensorSpec([None, 2], tf.float32, name="x")
FLOAT = tf.float32


def cnn() -> Any:
    x = image = layers.Input((16, 16, 3), name="image")
    for filters in (8, 12):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.MaxPooling2D()(layers.ReLU()(x))
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    return keras.Model(
        image, layers.Dense(5, activation="softmax", name="classes")(layers.Flatten()(x))
    )


def grey() -> Any:
    x = image = layers.Input((None, None, 1), name="luma")
    x = layers.Conv2D(6, 5, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(x)
    return keras.Model(image, layers.Conv2D(1, 3, padding="same", name="sharp")(x))


def stretched() -> Any:
    """A row and a column behind what the transposed convolution computes; of one channel."""
    x = coarse = layers.Input((5, 4, 3), name="coarse")
    x = layers.Conv2DTranspose(1, 3, strides=3, output_padding=2)(x)
    return keras.Model(coarse, keras.ops.squeeze(x, -1))


def windows() -> Any:
    """No picture is as small as the one pixel that TensorFlow Lite starts with."""
    x = picture = layers.Input((None, None, 1), name="picture")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 5)(x))
    return keras.Model(picture, x)


def mobilenet() -> Any:
    return keras.applications.MobileNetV2(input_shape=(64, 64, 3), weights=None, classes=7)


def rnn() -> Any:
    frames = layers.Input((None, 12), name="frames")
    x = layers.LSTM(16, return_sequences=True)(frames)
    return keras.Model(frames, layers.Dense(4, name="scores")(layers.GRU(8)(x)))


def transformer() -> Any:
    tokens = layers.Input((16,), dtype="int32", name="tokens")
    x = layers.Embedding(50, 32)(tokens)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 8)(x, x))
    y = layers.Dense(32)(layers.Dense(64, activation="gelu")(x))
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x + y))
    return keras.Model(tokens, layers.Dense(3, name="logits")(x))


def frozen(model: Any) -> bytes:
    specs = [tf.TensorSpec(v.shape, v.dtype, name=v.name) for v in model.inputs]
    function = tf.function(lambda *given: model(given[0], training=False))
    concrete = convert_variables_to_constants_v2(
        function.get_concrete_function(*specs), lower_control_flow=False
    )
    return bytes(concrete.graph.as_graph_def().SerializeToString())


def lite(model: Any, samples: Callable[[], Any] | None = None, **settings: Any) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if samples is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
    for name, value in settings.items():
        setattr(converter, name, value)
    return bytes(converter.convert())


def write_formats(folder: Path) -> None:
    """Each architecture in each format that can hold it."""
    stretched().save(folder / "stretched.keras")
    (folder / "windows.tflite").write_bytes(lite(windows()))
    policy = keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    brief = layers.Dense(2, dtype=policy, name="brief")
    model = keras.Sequential([layers.Input((3,)), brief])
    model.save(folder / "bfloat16.keras")
    model.export(folder / "sm_bfloat16", verbose=False)
    for make in (cnn, grey, mobilenet, rnn, transformer):
        keras.utils.set_random_seed(1)
        model, name = make(), make.__name__
        for weight in model.weights:  # statistics that are not 0 and 1
            if "moving_mean" in weight.path:
                weight.assign(np.random.randn(*weight.shape) * 0.1)
            if "moving_variance" in weight.path:
                weight.assign(np.random.rand(*weight.shape) + 0.5)
        model.save(folder / f"{name}.keras")
        model.save(folder / f"{name}.h5")
        model.export(folder / name, verbose=False)
        (folder / f"{name}.pb").write_bytes(frozen(model))
        if make is not rnn:  # TensorFlow Lite has no recurrent layer of unknown length
            (folder / f"{name}.tflite").write_bytes(lite(model))


def write_quantised(folder: Path) -> None:
    keras.utils.set_random_seed(2)
    model = cnn()

    def samples() -> Any:
        for _ in range(32):
            yield [np.random.randn(1, 16, 16, 3).astype(np.float32)]

    (folder / "int8_float_io.tflite").write_bytes(lite(model, samples))
    wide = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    spec = tf.lite.TargetSpec(supported_ops=[wide])
    (folder / "int16.tflite").write_bytes(lite(model, samples, target_spec=spec))
    for dtype in (tf.int8, tf.uint8):
        io = {"inference_input_type": dtype, "inference_output_type": dtype}
        (folder / f"int8_{dtype.name}_io.tflite").write_bytes(lite(model, samples, **io))


def write_lite_recurrent(folder: Path) -> None:
    x = layers.Input((5, 3), batch_size=1, name="seq")
    (folder / "lstm.tflite").write_bytes(lite(keras.Model(x, layers.LSTM(4)(x))))
    x = layers.Input((16,), name="x")
    for approximate in (False, True):
        y = layers.Lambda(lambda t, a=approximate: tf.nn.gelu(t, approximate=a))(layers.Dense(8)(x))
        (folder / f"gelu_{approximate}.tflite").write_bytes(lite(keras.Model(x, y)))


def write_keras_cases(folder: Path) -> None:
    x = layers.Input((4,), name="x")
    twice = layers.Lambda(lambda t: t * 2, name="twice", output_shape=(4,))
    doubled = keras.Model(x, twice(x))
    for suffix in ("keras", "h5"):
        doubled.save(folder / f"lambda.{suffix}")
    sys.path.insert(0, str(Path(__file__).parent))
    import tensorflow_sources

    custom = keras.Model(x, tensorflow_sources.Steep(name="steep")(x))
    for suffix in ("keras", "h5"):
        custom.save(folder / f"custom.{suffix}")
    weights = tensorflow_sources.make_model()
    weights.save_weights(folder / "only.weights.h5")
    shutil.copy(folder / "cnn.h5", folder / "keras2.h5")
    with h5py.File(folder / "keras2.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "DepthwiseConv2D":
                layer["config"]["groups"] = 1  # as Keras 2.15 wrote it
        file.attrs["model_config"] = json.dumps(config)
    first, second = layers.Input((4,), name="p"), layers.Input((4,), name="q")
    sums = layers.Dense(2)(first) + layers.Dense(2)(second)
    keras.Model(
        {"left": first, "right": second}, {"sum": sums, "plain": layers.Dense(3)(first)}
    ).save(folder / "dictionary.keras")
    state = layers.Input(batch_shape=(1, 5, 3), name="seq")
    keras.Model(state, layers.LSTM(4, stateful=True)(state)).save(folder / "stateful.keras")
    keras.Sequential([layers.Dense(3)]).save(folder / "unbuilt.keras")
    vectorise = layers.TextVectorization(max_tokens=10)
    vectorise.adapt(["a b", "c d"])
    text = layers.Input((1,), dtype="string", name="text")
    keras.Model(text, layers.Embedding(10, 3)(vectorise(text))).save(folder / "text.keras")


class Module(tf.Module):
    """Functions that a SavedModel may hold."""

    def __init__(self) -> None:
        self.v = tf.Variable([1.0, 2.0])
        self.count = tf.Variable(0.0, name="count")

    @tf.function(input_signature=[SPEC])
    def plain(self, x: Any) -> Any:
        return {"y": x * self.v}

    @tf.function(input_signature=[SPEC])
    def stateful(self, x: Any) -> Any:
        self.count.assign_add(1.0)
        return {"y": x * self.count}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def text(self, text: Any) -> Any:
        return {"n": tf.strings.length(text)}

    @tf.function(input_signature=[SPEC])
    def unsupported(self, x: Any) -> Any:
        return {"y": tf.linalg.svd(x, compute_uv=False), "z": tf.math.lgamma(x)}

    @tf.function(input_signature=[SPEC, tf.TensorSpec([None, 3], tf.int32, name="a")])
    def several(self, x: Any, a: Any) -> Any:
        y = tf.cast(a, FLOAT) + tf.reduce_sum(x, 1, keepdims=True)
        return {"z": y, "same": x, "again": x, "constant": tf.constant([1.0, 2.0])}

    @tf.function(input_signature=[SPEC, tf.TensorSpec([None, 2], FLOAT, name="unused")])
    def unread(self, x: Any, unused: Any) -> Any:
        return {"y": x * 2.0}

    @tf.function(input_signature=[SPEC])
    def branch(self, x: Any) -> Any:
        return {"y": tf.cond(tf.reduce_sum(x) > 0.0, lambda: x * 2.0, lambda: x - 1.0)}

    @tf.function(input_signature=[SPEC])
    def noisy(self, x: Any) -> Any:
        return {"y": x + tf.random.normal(tf.shape(x))}

    @tf.function(input_signature=[tf.TensorSpec(None, FLOAT, name="x")])
    def ranks(self, x: Any) -> Any:
        return {"y": x * 2.0}


class Writer(tf.Module):
    """One that would write a file."""

    @tf.function(input_signature=[SPEC, tf.TensorSpec([], tf.int32, name="n")])
    def writes(self, x: Any, n: Any) -> Any:
        tf.io.write_file("written", tf.strings.as_string(n))
        return {"y": x * 2.0}


def write_saved_models(folder: Path) -> None:
    module, default = Module(), "serving_default"
    names = (
        "plain",
        "stateful",
        "text",
        "unsupported",
        "several",
        "unread",
        "branch",
        "noisy",
        "ranks",
    )
    functions = {name: getattr(module, name).get_concrete_function() for name in names}
    for name, function in functions.items():
        tf.saved_model.save(module, str(folder / f"sm_{name}"), signatures={default: function})
    both = {name: functions[name] for name in ("plain", "branch")}
    tf.saved_model.save(module, str(folder / "sm_two"), signatures=both)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(folder / "sm_two"), signature_keys=["branch", "plain"]
    )
    (folder / "two.tflite").write_bytes(converter.convert())
    tf.saved_model.save(module, str(folder / "sm_none"))
    writer = Writer()
    function = writer.writes.get_concrete_function()
    tf.saved_model.save(writer, str(folder / "sm_writes"), signatures={default: function})
    shutil.copytree(folder / "sm_plain", folder / "sm_no_variables")
    shutil.rmtree(folder / "sm_no_variables" / "variables")
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        x = v1.placeholder(FLOAT, [None, 4], name="x")
        y = tf.nn.relu(tf.matmul(x, v1.get_variable("v", [4, 3])), name="y")
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder / "sm_v1"), {"x": x}, {"y": y})
        (folder / "unfrozen.pb").write_bytes(graph.as_graph_def().SerializeToString())


def write_graphs(folder: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(FLOAT, [None, 4], name="x")
        keep = v1.placeholder_with_default(1.0, [], name="keep")
        middle = tf.nn.relu(x * keep, name="middle")
        tf.split(tf.identity(middle * 2.0), 2, 1, name="halves")
        definition = graph.as_graph_def()
        (folder / "graph.pb").write_bytes(definition.SerializeToString())
        mine = definition.node.add()
        mine.name, mine.op = "mine", "MyOperator"
        mine.input.append("middle")
        (folder / "third_party.pb").write_bytes(definition.SerializeToString())
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(FLOAT, None, name="x")
        y = tf.nn.conv2d(x, tf.ones([3, 3, 2, 4]), 1, "SAME")
        tf.transpose(y, [0, 3, 1, 2], name="channels_first")
        (folder / "unknown_rank.pb").write_bytes(graph.as_graph_def().SerializeToString())
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(FLOAT, None, name="x")
        tf.nn.relu(x, name="y")
        (folder / "no_rank.pb").write_bytes(graph.as_graph_def().SerializeToString())


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    write_formats(folder)
    write_quantised(folder)
    write_lite_recurrent(folder)
    write_keras_cases(folder)
    write_saved_models(folder)
    write_graphs(folder)
    sys.path.insert(0, str(Path(__file__).parent))
    import tensorflow_states

    tensorflow_states.write(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

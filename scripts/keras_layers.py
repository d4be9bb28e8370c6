"""A Keras HDF5 file of common layers as an ONNX model, read without Keras.

For the models whose numbers the tests and benchmarks quote. Images go in as N, H, W, C, as the
Keras model takes them; inside they are N, C, H, W. A layer without a rule is refused by name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 13
ACTIVATIONS = {"relu": "Relu", "softmax": "Softmax", "sigmoid": "Sigmoid", "tanh": "Tanh"}


def read(path: Path) -> onnx.ModelProto:
    """The model in `path`: input `x` and output `y`, float32, batch dimension `N`."""
    import h5py

    with h5py.File(path) as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        graph = _Graph(file["model_weights"])
        previous: list[str] = []
        for layer in layers:
            config = layer["config"]
            nodes = layer.get("inbound_nodes") or [[[name] for name in previous]]
            graph.add(layer["class_name"], config, [row[0] for row in nodes[0]])
            previous = [config["name"]]
    return graph.model()


class _Graph:
    """Layer by layer; `_values` maps a layer's name to the value it gives."""

    def __init__(self, weights: Any) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._values: dict[str, str] = {}
        self._shape: list[int] = []
        self._units = 0
        self._last = ""

    def add(self, kind: str, config: dict[str, Any], inbound: list[str]) -> None:
        inputs = [self._values[name] for name in inbound]
        rule = getattr(self, f"_{kind.lower()}", None)
        if rule is None:
            raise ValueError(f"no rule for the Keras layer {kind}")
        self._last = rule(config, *inputs)
        self._values[config["name"]] = self._last

    def model(self) -> onnx.ModelProto:
        self._nodes.append(helper.make_node("Identity", [self._last], ["y"]))
        row = helper.make_tensor_value_info
        graph = helper.make_graph(
            self._nodes,
            "keras",
            [row("x", TensorProto.FLOAT, ["N", *self._shape])],
            [row("y", TensorProto.FLOAT, ["N", self._units])],
            self._constants,
        )
        imports = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _inputlayer(self, config: dict[str, Any]) -> str:
        self._shape = (config.get("batch_input_shape") or config["batch_shape"])[1:]
        return self._emit("Transpose", "x", perm=[0, 3, 1, 2]) if len(self._shape) == 3 else "x"

    def _dropout(self, config: dict[str, Any], x: str) -> str:
        return x

    def _dense(self, config: dict[str, Any], x: str) -> str:
        kernel = self._read(config["name"], "kernel")
        self._units = kernel.shape[1]
        bias = [self._constant(self._read(config["name"], "bias"))] if config["use_bias"] else []
        return self._activate(config, self._emit("Gemm", x, self._constant(kernel), *bias))

    def _conv2d(self, config: dict[str, Any], x: str) -> str:
        kernel = self._read(config["name"], "kernel").transpose(3, 2, 0, 1)  # from H, W, I, O
        bias = [self._constant(self._read(config["name"], "bias"))] if config["use_bias"] else []
        y = self._emit(
            "Conv",
            *(x, self._constant(np.ascontiguousarray(kernel)), *bias),
            strides=config["strides"],
            auto_pad="SAME_UPPER" if config["padding"] == "same" else "VALID",
        )
        return self._activate(config, y)

    def _averagepooling2d(self, config: dict[str, Any], x: str) -> str:
        return self._emit(
            "AveragePool",
            x,
            kernel_shape=config["pool_size"],
            strides=config["strides"],
            auto_pad="SAME_UPPER" if config["padding"] == "same" else "VALID",
        )

    def _batchnormalization(self, config: dict[str, Any], x: str) -> str:
        rows = ("gamma", "beta", "moving_mean", "moving_variance")
        names = [self._constant(self._read(config["name"], row)) for row in rows]
        return self._emit("BatchNormalization", x, *names, epsilon=config["epsilon"])

    def _flatten(self, config: dict[str, Any], x: str) -> str:
        return self._emit("Flatten", self._emit("Transpose", x, perm=[0, 2, 3, 1]))

    def _add(self, config: dict[str, Any], a: str, b: str) -> str:
        return self._emit("Add", a, b)

    def _activation(self, config: dict[str, Any], x: str) -> str:
        return self._activate(config, x)

    def _activate(self, config: dict[str, Any], x: str) -> str:
        name = config["activation"]
        return x if name == "linear" else self._emit(ACTIVATIONS[name], x)

    def _read(self, layer: str, weight: str) -> np.ndarray[Any, Any]:
        found: list[Any] = []

        def visit(name: str, item: Any) -> None:
            if name.rpartition("/")[2].partition(":")[0] == weight:
                found.append(item)

        self._weights[layer].visititems(visit)
        return np.asarray(found[0], np.float32)

    def _constant(self, array: np.ndarray[Any, Any]) -> str:
        name = f"w{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def _emit(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        output = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, inputs, [output], **attributes))
        return output
